"""`heddle certificates renew`: whom it tells, and what it says of those that could not."""

from __future__ import annotations

import json
import re

from tests.cli.run import heddle
from tests.cli.test_mesh_commands import answer_exec
from tests.local.command_server import CommandServer

PROXIES = {
    "ready": True,
    "proxies": [
        {"namespace": "shop", "pod": "web-1"},
        {"namespace": "shop", "pod": "cart-1"},
        {"namespace": "b", "pod": "x"},
    ],
}


def rows(text: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()[1:]]


def test_one_pod(mesh: CommandServer) -> None:
    mesh.operator.answers["discovery/v1/status"] = (200, PROXIES)
    asked = answer_exec(mesh, 0, json.dumps({"old": "ab", "new": "cd"}).encode())
    done = heddle("certificates", "renew", "web")
    assert (done.code, rows(done.out)) == (0, [["shop/web-1", "ab", "cd"]])
    assert [one[:3] for one in asked] == [("shop", "web-1", "istio-proxy")]


def test_all_of_a_namespace(mesh: CommandServer) -> None:
    mesh.operator.answers["discovery/v1/status"] = (200, PROXIES)
    answer_exec(mesh, 0, json.dumps({"old": "", "new": "cd"}).encode())
    done = heddle("certificates", "renew", "--all", "-n", "shop", "-o", "json")
    assert [one["pod"] for one in json.loads(done.out)["renewed"]] == ["shop/cart-1", "shop/web-1"]


def test_one_that_could_not(mesh: CommandServer) -> None:
    mesh.operator.answers["discovery/v1/status"] = (200, PROXIES)
    answer_exec(mesh, 1, err=b"heddle-agent: the ca does not answer\n")
    done = heddle("certificates", "renew", "--all")
    assert done.code == 1
    assert len(rows(done.out)) == 3
    assert "the ca does not answer" in done.out
    answer_exec(mesh, 0, b"what?")
    assert "did not say what it did" in heddle("certificates", "renew", "x").out


def test_said_clearly(mesh: CommandServer) -> None:
    assert "or all of them with --all" in heddle("certificates", "renew").err
    assert "or all of them with --all" in heddle("certificates", "renew", "web", "--all").err
    mesh.operator.answers["discovery/v1/status"] = (200, PROXIES)
    assert "there is no pod none" in heddle("certificates", "renew", "none").err
