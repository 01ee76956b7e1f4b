"""Which ProxyConfig objects are for a pod."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.kinds import parse_istio
from mesh.proxy_configs import Object, as_default_config, fingerprint, proxy_configs

ROOT = "mesh-system"


def config(
    name: str, namespace: str, labels: dict[str, str] | None = None, *, created: str = "", **spec: Any
) -> Object:
    if labels is not None:
        spec["selector"] = {"matchLabels": labels}
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": created}
    return parse_istio(
        {"apiVersion": "networking.istio.io/v1beta1", "kind": "ProxyConfig", "metadata": metadata, "spec": spec}
    )


ALL = [
    config("mesh", ROOT),
    config("shop", "shop"),
    config("web", "shop", {"app": "web"}, created="2026-01-02T00:00:00Z"),
    config("web-1", "shop", {"app": "web", "version": "v1"}, created="2026-01-01T00:00:00Z"),
    config("gateways", ROOT, {"app": "web"}),
    config("nobodys", "shop", {}, created="2026-01-01T00:00:00Z"),
]


@pytest.mark.parametrize(
    ("namespace", "labels", "expected"),
    [
        ("other", {"app": "web"}, ["mesh"]),
        ("shop", {"app": "db"}, ["mesh", "shop"]),
        ("shop", {"app": "web", "more": "x"}, ["mesh", "shop", "web"]),
        ("shop", {"app": "web", "version": "v1"}, ["mesh", "shop", "web-1"]),  # the older one
        (ROOT, {}, ["mesh"]),
        (ROOT, {"app": "web"}, ["mesh", "gateways"]),
    ],
)
def test_those_of_a_pod_the_weakest_first(namespace: str, labels: dict[str, str], expected: list[str]) -> None:
    found = proxy_configs(ALL, ROOT)
    assert [each.name for each in found.of(namespace, labels)] == expected
    assert found.of(namespace, labels).versions().keys() == {
        f"{each.namespace}/{each.name}" for each in found.of(namespace, labels)
    }


def test_the_younger_of_two_for_the_same_pods_has_no_effect() -> None:
    assert [(late.name, first.name) for late, first in proxy_configs(ALL, ROOT).ousted] == [("nobodys", "shop")]
    assert not any(proxy_configs([], ROOT).of("shop", {}))


def test_in_the_words_of_the_default_config() -> None:
    said = config("a", "b", concurrency=0, environmentVariables={"A": "1"}, image={"imageType": "debug"}).spec
    assert as_default_config(said) == {
        "concurrency": 0,
        "proxyMetadata": {"A": "1"},
        "image": {"imageType": "debug"},
    }
    assert as_default_config(config("a", "b").spec) == {}
    assert fingerprint(said) != fingerprint(config("a", "b").spec)
    assert fingerprint(config("a", "b", concurrency=1).spec) == fingerprint(config("c", "d", concurrency=1).spec)
