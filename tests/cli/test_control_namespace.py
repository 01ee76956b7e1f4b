"""Where the commands look for a cluster's control plane. At a real API server: tests/cluster/install."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click
import pytest
from click.testing import CliRunner

from cli.control_namespace import VARIABLE, control_namespace, mesh_options, revision
from kube.client import Client, Page, Refused
from mesh.errors import Conflict


class Cluster(Client):
    """Pods of discovery in some namespaces (`NAMESPACE` or `NAMESPACE/REVISION`), which may be listed `everywhere`."""

    def __init__(self, *places: str, everywhere: bool = True) -> None:
        pairs = [place.partition("/")[::2] for place in places]
        self._namespaces = [namespace for namespace, _ in pairs]
        self._labels = [{"istio.io/rev": revision} if revision else {} for _, revision in pairs]
        self._everywhere = everywhere

    def list(self, path: str, query: Mapping[str, str] | None = None, **_: Any) -> Iterator[Page]:
        if path == "/api/v1/pods" and not self._everywhere:
            raise Refused(403, "pods is forbidden")
        metas = [
            {"namespace": name, "name": "heddle-discovery-0", "labels": labels}
            for name, labels in zip(self._namespaces, self._labels, strict=True)
            if path in ("/api/v1/pods", f"/api/v1/namespaces/{name}/pods")
        ]
        yield Page([{"metadata": meta} for meta in metas], "1")


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        (Cluster(), "istio-system"),
        (Cluster("istio-system", "other"), "istio-system"),
        (Cluster("mesh"), "mesh"),
        (Cluster("mesh", everywhere=False), "istio-system"),
    ],
)
def test_where_it_is_found(cluster: Cluster, expected: str) -> None:
    assert control_namespace(cluster) == expected


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        (Cluster(), "default"),
        (Cluster("mesh"), "default"),
        (Cluster("mesh/default", "mesh/canary"), "default"),
        (Cluster("mesh/canary", "other/old"), "canary"),
    ],
)
def test_whose_settings_are_meant(cluster: Cluster, expected: str) -> None:
    assert revision(cluster, "mesh") == expected


def test_of_several_one_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Conflict, match=r"control planes in a, b \(name one with -i\)"):
        control_namespace(Cluster("a", "b"))
    monkeypatch.setenv(VARIABLE, "b")
    assert control_namespace(Cluster("a", "b")) == "b"


def test_the_option_goes_before_the_variable() -> None:
    @click.command
    @mesh_options
    def where(kubeconfig: str) -> None:
        click.echo(control_namespace(Cluster("a", "b")))

    ran = CliRunner().invoke(where, ["-i", "c"], env={VARIABLE: "d"})
    assert ran.output == "c\n"
