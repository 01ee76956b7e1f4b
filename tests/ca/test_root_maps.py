"""Which namespaces get istio-ca-root-cert, and when it is written."""

from __future__ import annotations

from typing import Any

import pytest

from ca.root_maps import KEY, NAME, SEQUENCE, carried, namespace_facts, root_map, to_write
from svid.material import TrustBundle

BUNDLE = TrustBundle("cluster.local", 3, ("A\n", "B\n"))
HOME = "mesh"


def namespaces(**labels: dict[str, str]) -> dict[str, Any]:
    return {
        name.replace("_", "-"): namespace_facts({"metadata": {"name": name, "labels": given}})
        for name, given in labels.items()
    }


ON, OFF = {"istio-injection": "enabled"}, {"istio-injection": "disabled"}


@pytest.mark.parametrize(
    ("labels", "injected"),
    [
        ({}, False),
        (ON, True),
        (OFF, False),
        ({"istio.io/rev": "canary"}, True),
        ({"istio.io/rev": "canary", **OFF}, False),
        ({"istio.io/rev": "canary", **ON}, True),
        ({"istio-injection": "perhaps"}, False),
    ],
)
def test_labels(labels: dict[str, str], injected: bool) -> None:
    assert namespace_facts({"metadata": {"labels": labels}}).injected is injected


def test_who_gets_it() -> None:
    known = namespaces(labelled=ON, plain={}, with_pods={}, mesh={}, istio_system={}, kube_system=ON)
    assert to_write(known, ["with-pods", "gone"], {}, BUNDLE, HOME) == ["labelled", "mesh", "with-pods"]


def test_a_namespace_that_is_being_deleted_gets_nothing() -> None:
    ending = {"metadata": {"labels": ON, "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert to_write({"a": namespace_facts(ending)}, ["a"], {}, BUNDLE, HOME) == []
    assert namespace_facts({"metadata": {}, "status": {"phase": "Terminating"}}).ending


def test_the_map() -> None:
    made = root_map("a", BUNDLE)
    assert (made["metadata"]["namespace"], made["metadata"]["name"]) == ("a", NAME)
    assert made["data"] == {KEY: "A\nB\n"}


def changed(**change: Any) -> dict[str, Any]:
    made = root_map("a", BUNDLE)
    return {**made, **change}


@pytest.mark.parametrize(
    ("there", "written"),
    [
        (changed(), False),
        (changed(data={KEY: "A\n"}), True),
        (changed(data=None), True),
        (changed(data={KEY: "A\nB\n", "mine": "x"}), False),
        (changed(metadata={}), True),  # Istio's, with the same roots: ours from now on
        (changed(metadata={"annotations": {SEQUENCE: "2"}}), True),
        (changed(metadata={"annotations": {SEQUENCE: "4"}}, data={KEY: "A\n"}), False),  # of a replica that knows more
        (changed(metadata={"annotations": {SEQUENCE: "nonsense"}}), True),
    ],
)
def test_when_it_is_written(there: dict[str, Any], written: bool) -> None:
    assert to_write(namespaces(a=ON), [], {"a": there}, BUNDLE, HOME) == (["a"] if written else [])


def test_a_namespace_that_wants_it_no_more_keeps_ours_right_and_others_alone() -> None:
    wrong = changed(data={KEY: "old"})
    assert to_write(namespaces(a={}), [], {"a": wrong}, BUNDLE, HOME) == ["a"]
    assert to_write(namespaces(a={}), [], {}, BUNDLE, HOME) == []
    foreign = {**wrong, "metadata": {}}
    assert to_write(namespaces(a={}), [], {"a": foreign}, BUNDLE, HOME) == []


def test_which_bundle_each_has() -> None:
    known = namespaces(right=ON, missing=ON, edited=ON, behind=ON, ahead=ON, theirs={}, kept={})
    there = {
        "right": changed(),
        "edited": changed(data={KEY: "A\n"}),
        "behind": changed(metadata={"annotations": {SEQUENCE: "2"}}, data={KEY: "A\n"}),
        "ahead": changed(metadata={"annotations": {SEQUENCE: "4"}}),
        "theirs": changed(metadata={}),
        "kept": changed(),
    }
    expected = {"ahead": 4, "behind": 2, "edited": None, "kept": 3, "missing": None, "right": 3}
    assert carried(known, [], there, BUNDLE, HOME) == expected
