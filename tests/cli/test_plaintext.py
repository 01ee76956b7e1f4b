"""Whom proxies have seen in plain text, where manifests make mutual TLS STRICT.

What stands for proxies here says what an agent reads from Envoy
(tests/agent/test_istio_metrics.py).
"""

from __future__ import annotations

from typing import Any

import pytest

from cli.analysing.plaintext import plain, taken_by, under_strict
from cli.live.samples import parse
from cli.proxies import Proxy
from mesh.analysis.policies import SHUTS_OUT
from mesh.analysis.registry import analyse
from mesh.analysis.view import View
from mesh.assembly import snapshot_of
from mesh.errors import Unavailable
from mesh.manifest import documents
from mesh.objects import Key
from mesh.reported import packed
from mesh.workloads import Workload

MESH = """
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, labels: {app: web}, annotations: {sidecar.istio.io/status: "{}"}}
---
apiVersion: v1
kind: Pod
metadata: {name: bare, namespace: shop, labels: {app: web}}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: bank, labels: {app: web}, annotations: {sidecar.istio.io/status: "{}"}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: one, namespace: NAMESPACE}
spec: SPEC
"""
STRICT = "mtls: {mode: STRICT}"


def view(namespace: str, spec: str, **more: Any) -> View:
    text = MESH.replace("NAMESPACE", namespace).replace("SPEC", f"{{{spec}}}")
    return View(snapshot_of(each.raw for each in documents(text, "text")), **more)


@pytest.mark.parametrize(
    ("namespace", "spec", "pods"),
    [
        ("shop", STRICT, ["shop/web-0"]),
        ("istio-system", STRICT, ["bank/web-0", "shop/web-0"]),
        ("shop", f"selector: {{matchLabels: {{app: web}}}}, {STRICT}", ["shop/web-0"]),
        ("shop", f"selector: {{matchLabels: {{app: other}}}}, {STRICT}", []),
        ("shop", "mtls: {mode: PERMISSIVE}", []),
        (
            "shop",
            "selector: {matchLabels: {app: web}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {80: {mode: STRICT}}",
            ["shop/web-0"],
        ),
    ],
)
def test_those_are_asked_for_whom_it_becomes_strict(namespace: str, spec: str, pods: list[str]) -> None:
    made = view(namespace, spec)
    policies = made.snapshot.of("PeerAuthentication").values()
    assert sorted(map(str, under_strict(made, policies))) == pods


def line(policy: str, value: int, reporter: str = "destination", name: str = "requests_total") -> str:
    fields = [("reporter", reporter), ("connection_security_policy", policy)]
    return f'envoy_istio_{name}{{istio="{packed(fields, ())}"}} {value}\n'


class Says:
    """Proxies that say this; None for one that cannot be asked."""

    def __init__(self, **pods: str | None) -> None:
        self._pods = pods

    def listed(self) -> list[Proxy]:
        return [Proxy(Key("shop", name), "10.0.0.1", 80, Workload(name, "shop", name, "")) for name in self._pods]

    def control_plane(self) -> list[tuple[str, str, int]]:
        return []

    def run(self, pod: Key, argv: list[str]) -> str:
        said = self._pods[pod.name]
        if said is None:
            raise Unavailable("you may not run a command in it")
        return said


def test_plain_text_is_counted_where_it_arrived() -> None:
    proxies = Says(
        plain=line("none", 3) + line("none", 2, name="tcp_connections_opened_total") + line("mutual_tls", 9),
        source=line("none", 4, "source") + line("mutual_tls", 5),
        silent=None,
        other=line("none", 7),
    )
    counts, silent = taken_by(proxies, frozenset(Key("shop", name) for name in ("plain", "source", "silent")))
    assert counts == {Key("shop", "plain"): 5}
    assert silent == ("shop/silent: you may not run a command in it",)
    assert plain(parse("")) == 0


def test_the_warning_names_who_takes_most() -> None:
    seen = {Key("shop", "web-0"): 12, Key("bank", "web-0"): 3}
    made = view("istio-system", STRICT, plain_text=seen)
    said = [str(each) for each in analyse(made) if each.code is SHUTS_OUT]
    assert any("in plain text, counted since each proxy started: to shop/web-0 (12), bank/web-0 (3)" in s for s in said)
    made = view("bank", STRICT, plain_text={Key("shop", "web-0"): 12})
    assert [each for each in analyse(made) if each.code is SHUTS_OUT] == []
