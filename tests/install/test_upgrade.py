"""Which version may follow which, and whose pods are behind."""

from __future__ import annotations

import re
from typing import Any

import pytest

from install.preflight import server_version, too_old
from install.upgrade import Behind, behind, check_skew
from kube.client import Client
from mesh.errors import InvalidInput
from mesh.objects import SIDECAR_STATUS_ANNOTATION


@pytest.mark.parametrize("wanted", ["0.1.0", "0.1.9", "0.2.0", "main"])
def test_the_same_and_the_next_minor_version_may_follow(wanted: str) -> None:
    check_skew("0.1.0", wanted)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("0.3.0", "upgrade to 0.2 first"),
        ("0.0.9", "a downgrade is not tested"),
        ("1.0.0", "one minor version at a time"),
    ],
)
def test_others_are_refused_with_the_way_out(wanted: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        check_skew("0.1.0", wanted)


def test_pods_with_another_proxy_are_behind() -> None:
    def pod(namespace: str, image: str, *, native: bool = False, injected: bool = True) -> dict[str, Any]:
        proxy = [{"name": "istio-proxy", "image": image}]
        annotations = {SIDECAR_STATUS_ANNOTATION: "{}"} if injected else {}
        app = [{"name": "app", "image": "app"}]
        spec = {"initContainers": proxy, "containers": app} if native else {"containers": [*app, *proxy]}
        return {"metadata": {"namespace": namespace, "annotations": annotations}, "spec": spec}

    pods = [
        pod("a", "old"),
        pod("a", "older", native=True),
        pod("b", "new"),
        pod("c", "old", injected=False),
    ]
    assert behind(pods, "new") == [Behind("a", 2, ("old", "older"))]


class _Answers(Client):
    """A managed cluster's answer, which no API server here gives."""

    def __init__(self, answer: dict[str, str]) -> None:
        self.answer = answer

    def get(self, path: str, query: Any = None) -> Any:
        assert path == "/version"
        return self.answer


def test_the_version_of_a_managed_cluster() -> None:
    assert server_version(_Answers({"major": "1", "minor": "29+"})) == (1, 29)


@pytest.mark.parametrize(
    ("minor", "native", "says"),
    [
        ("29", True, None),
        ("27", False, None),
        (
            "28+",
            True,
            r"1\.28, and 1\.29 is needed \(upgrade the cluster, or go without native sidecars: --set values\.",
        ),
        ("26", True, r"1\.26, and 1\.29 is needed \(upgrade the cluster\)"),
        ("26", False, r"1\.26, and 1\.27 is needed \(upgrade the cluster\)"),
    ],
)
def test_a_cluster_that_is_too_old(minor: str, native: bool, says: str | None) -> None:
    found = list(too_old(_Answers({"major": "1", "minor": minor}), native_sidecars=native))
    assert len(found) == (says is not None)
    assert says is None or re.search(says, str(found[0]))
