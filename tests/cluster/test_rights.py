"""The rights of each component: none is missing, and none is there that it does not use.

By the API server's audit log, over everything that the tests before did with the components of an installation.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from mesh.rbac import rights
from tests.cluster.rights import Use, denied, unused, uses


def line(verb: str, resource: str, *, code: int = 200, decision: str = "allow", user: str = "ca", **more: str) -> str:
    event: dict[str, Any] = {
        "verb": verb,
        "user": {"username": f"system:serviceaccount:istio-system:heddle-{user}"},
        "objectRef": {"resource": resource, **more},
        "responseStatus": {"code": code},
        "annotations": {"authorization.k8s.io/decision": decision},
    }
    return json.dumps(event)


ACCOUNT = "istio-system:heddle-ca"


def test_uses_are_those_of_the_account_that_were_allowed() -> None:
    log = [
        line("get", "pods", namespace="a", name="p"),
        line("get", "nodes", decision="forbid"),
        line("list", "pods", user="webhook"),
        line("patch", "configmaps", code=201, namespace="a", name="istio-ca-root-cert"),
    ]
    assert uses(log, ACCOUNT) == {
        Use("get", "", "pods", "a", "p"),
        Use("patch", "", "configmaps", "a", "istio-ca-root-cert"),
        Use("create", "", "configmaps", "a", "istio-ca-root-cert"),
    }
    assert denied(log, ACCOUNT) == {Use("get", "", "nodes", "", "")}


def test_a_right_that_nothing_used_is_named() -> None:
    everything = [
        Use(verb, right.group, right.resource, "", right.names[0] if right.names else "")
        for right in rights("ca")
        for verb in right.verbs
    ]
    assert unused("ca", everything) == []
    without = [use for use in everything if (use.verb, use.resource) != ("create", "tokenreviews")]
    assert unused("ca", without) == ["create tokenreviews (who a token belongs to)"]


@pytest.mark.parametrize("component", ["ca", "discovery", "webhook", "node"])
def test_no_component_may_do_everything(component: str) -> None:
    for right in rights(component):
        assert "*" not in (*right.verbs, right.resource, right.group)
        assert right.why
