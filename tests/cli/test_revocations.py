"""`heddle certificates revoke`, `unrevoke` and `revoked`: what is asked of the ca, and what is shown."""

from __future__ import annotations

import re

from tests.cli.run import heddle
from tests.local.command_server import CommandServer

LIST = {
    "number": 3,
    "updated": 1_800_000_000,
    "entries": [
        {"identity": "", "serials": {"ab12": 1_800_000_100}, "at": 1_800_000_000, "reason": "keyCompromise"},
        {
            "identity": "spiffe://cluster.local/ns/shop/sa/web",
            "serials": {"cd": 1, "ef": 2},
            "at": 1_800_000_000,
            "reason": "unspecified",
        },
    ],
}


def asked(mesh: CommandServer) -> list[dict[str, object]]:
    return list(mesh.operator.sent)


def test_shows_the_list(mesh: CommandServer) -> None:
    mesh.operator.answers["ca/v1/revocations"] = (200, LIST)
    lines = [re.split(r"\s{2,}", line) for line in heddle("certificates", "revoked").out.splitlines()]
    assert lines == [
        ["REVOKED", "SERIALS", "REASON", "SINCE"],
        ["ab12", "1", "keyCompromise", "2027-01-15T08:00:00Z"],
        ["spiffe://cluster.local/ns/shop/sa/web", "2", "unspecified", "2027-01-15T08:00:00Z"],
    ]


def test_asks_for_what_is_named(mesh: CommandServer) -> None:
    mesh.operator.answers["ca/v1/revocations"] = (200, LIST)
    for words in (
        ("revoke", "shop/web-1"),
        ("revoke", "--serial", "ab12", "--reason", "keyCompromise"),
        ("revoke", "--identity", "spiffe://cluster.local/ns/shop/sa/web", "-y"),
        ("unrevoke", "ab12"),
        ("unrevoke", "spiffe://cluster.local/ns/shop/sa/web"),
    ):
        done = heddle("certificates", *words)
        assert done.code == 0, done.err
    assert asked(mesh) == [
        {"do": "revoke", "pod": "shop/web-1", "reason": "unspecified"},
        {"do": "revoke", "serial": "ab12", "reason": "keyCompromise"},
        {"do": "revoke", "identity": "spiffe://cluster.local/ns/shop/sa/web", "reason": "unspecified"},
        {"do": "restore", "serial": "ab12"},
        {"do": "restore", "identity": "spiffe://cluster.local/ns/shop/sa/web"},
    ]


def test_says_when_proxies_do_not_know(mesh: CommandServer) -> None:
    for listed, said in ((True, False), (False, True)):
        mesh.operator.answers["ca/v1/revocations"] = (200, LIST | {"listed": listed})
        assert ("PROXIES DO NOT KNOW" in heddle("certificates", "revoke", "--serial", "ab12").err) is said


def test_said_clearly(mesh: CommandServer) -> None:
    assert "exactly one of NS/POD, --serial and --identity" in heddle("certificates", "revoke").err
    assert "write default/web-1" in heddle("certificates", "revoke", "web-1").err
    assert "say yes with -y" in heddle("certificates", "revoke", "--identity", "spiffe://cluster.local/ns/a/sa/b").err
    mesh.operator.answers["ca/v1/revocations"] = (403, {"error": {"code": "forbidden", "message": "not you"}})
    assert heddle("certificates", "revoked").err == "heddle: not you\n"
