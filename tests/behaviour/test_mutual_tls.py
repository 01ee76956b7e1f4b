"""Which connections are mutual TLS, and which are let in: PeerAuthentication, DestinationRule's tls, and auto mTLS."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.behaviour.world import CALLER, TRUST, Answer, World, eventually, thing

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
ECHO = "http://echo.mesh/"
XFCC = "x-forwarded-client-cert"
BOTH = (f"By={TRUST}mesh/sa/echo", f"URI={TRUST}mesh/sa/client")


def policy(mode: str, namespace: str = "mesh", name: str = "case", **spec: Any) -> Answer:
    return thing("PeerAuthentication", name, {"mtls": {"mode": mode}, **spec}, namespace)


def rule(tls: dict[str, Any], host: str = "echo.mesh.svc.cluster.local") -> Answer:
    return thing("DestinationRule", "case", {"host": host, "trafficPolicy": {"tls": tls}})


ECHO_PODS = {"selector": {"matchLabels": {"app": "echo"}}}
MESH, NAMESPACE, WORKLOAD = "istio-system", "mesh", ECHO_PODS


def is_mutual(answer: Answer) -> bool:
    seen = answer["body"]["headers"].get(XFCC, "")
    assert not seen or all(part in seen for part in BOTH), seen
    return bool(seen)


def is_refused(answer: Answer) -> bool:
    return "RemoteDisconnected" in answer.get("error", "") or "ConnectionReset" in answer.get("error", "")


def becomes(world: World, *, mutual: bool) -> None:
    """Connections that are open may end as they began, so for a moment there may be both kinds, and no failure."""

    def now() -> bool:
        answers = world.many(ECHO, 10)
        assert {answer.get("status") for answer in answers} == {200}, answers
        return {is_mutual(answer) for answer in answers} == {mutual}

    eventually(now, f"requests do not become {'mutual TLS' if mutual else 'plain text'}")


def test_a_request_in_the_mesh_shows_both_identities_and_one_from_outside_none(world: World) -> None:
    assert is_mutual(world.get(ECHO))
    outside = world.get(ECHO, CALLER)
    assert outside["status"] == 200
    assert not is_mutual(outside)


def test_plain_text_that_was_seen_is_told_before_it_is_refused(world: World, tmp_path: Path) -> None:
    assert not is_mutual(world.get(ECHO, CALLER))
    file = tmp_path / "strict.yaml"
    file.write_text(json.dumps(policy("STRICT", **WORKLOAD)))

    def told() -> list[str]:
        found = world.mesh.json("analyze", "-f", str(file), "--on-mesh")["findings"]
        return [each["message"] for each in found if each["code"] == "HDL0403" and "in plain text" in each["message"]]

    # Envoy adds up what its threads have counted every five seconds.
    eventually(lambda: bool(told()), "nobody is seen in plain text")
    assert re.search(r"to mesh/echo-\S+ \(\d+\)", told()[0])
    file.write_text(json.dumps(policy("STRICT", selector={"matchLabels": {"app": "client"}})))
    assert told() == [], "nobody sends to the client"


def test_an_identity_that_the_client_claims_is_thrown_away(world: World) -> None:
    forged = {XFCC: f"By=x;URI={TRUST}mesh/sa/admin"}
    for pod in ("mesh/client", CALLER):
        seen = world.get(ECHO, pod, headers=forged)["body"]["headers"].get(XFCC, "")
        assert "admin" not in seen


@pytest.mark.parametrize(
    ("policies", "outside_may", "inside_mutual"),
    [
        pytest.param([policy("PERMISSIVE", MESH)], True, True, id="mesh permissive"),
        pytest.param([policy("STRICT", MESH)], False, True, id="mesh strict"),
        pytest.param([policy("DISABLE", MESH)], True, False, id="mesh disabled"),
        pytest.param([policy("STRICT")], False, True, id="namespace strict"),
        pytest.param([policy("DISABLE")], True, False, id="namespace disabled"),
        pytest.param([policy("STRICT", **WORKLOAD)], False, True, id="workload strict"),
        pytest.param([policy("DISABLE", **WORKLOAD)], True, False, id="workload disabled"),
        pytest.param([policy("STRICT", MESH), policy("PERMISSIVE")], True, True, id="namespace over mesh"),
        pytest.param(
            [policy("STRICT"), policy("PERMISSIVE", name="narrow", **WORKLOAD)],
            True,
            True,
            id="workload over namespace",
        ),
        pytest.param([policy("STRICT", MESH), policy("UNSET")], False, True, id="unset inherits"),
        pytest.param(
            [policy("DISABLE", MESH), policy("STRICT", name="narrow", **WORKLOAD)], False, True, id="workload over mesh"
        ),
        pytest.param([policy("STRICT", "plain")], True, True, id="of another namespace"),
    ],
)
def test_peer_authentication(
    world: World, case: Callable[..., Any], policies: list[Answer], outside_may: bool, inside_mutual: bool
) -> None:
    case(*policies)
    becomes(world, mutual=inside_mutual)
    outside = world.get(ECHO, CALLER)
    assert (outside.get("status") == 200) == outside_may, outside
    assert outside_may or is_refused(outside)


@pytest.mark.parametrize(
    ("ports", "web", "other"),
    [
        pytest.param({8080: {"mode": "DISABLE"}}, True, False, id="one port plain under strict"),
        pytest.param({8081: {"mode": "PERMISSIVE"}}, False, True, id="the other port permissive under strict"),
    ],
)
def test_a_port_has_a_mode_of_its_own(
    world: World, case: Callable[..., Any], ports: dict[int, Any], web: bool, other: bool
) -> None:
    case(policy("STRICT", **WORKLOAD, portLevelMtls=ports))
    for url, open_ in ((ECHO, web), ("http://echo.mesh:81/", other)):
        outside = world.get(url, CALLER)
        assert (outside.get("status") == 200) == open_, (url, outside)
        assert world.get(url)["status"] == 200
    becomes(world, mutual=8080 not in ports)


def test_strict_covers_tcp_and_undeclared_ports(world: World, case: Callable[..., Any]) -> None:
    assert world.lines("lines.mesh", 9000, CALLER, first=True)["body"] == "a line"
    case(policy("STRICT", MESH))
    assert world.lines("lines.mesh", 9000)["body"] == "a line"
    outside = world.lines("lines.mesh", 9000, CALLER, first=True)
    assert not outside.get("greeting"), outside
    echo = world.pods("mesh", "echo-v1")[0]["ip"]
    assert is_refused(world.get(f"http://{echo}:8081/", CALLER))


def test_a_workload_without_sidecar_is_called_in_plain_text(world: World, case: Callable[..., Any]) -> None:
    case(policy("STRICT", MESH))
    answer = world.get("http://old.plain/")
    assert answer["status"] == 200
    assert XFCC not in answer["body"]["headers"]


@pytest.mark.parametrize(
    ("tls", "strict", "status", "mutual"),
    [
        pytest.param({"mode": "DISABLE"}, False, 200, False, id="plain where both are allowed"),
        pytest.param({"mode": "DISABLE"}, True, 503, False, id="plain where it is refused"),
        pytest.param({"mode": "ISTIO_MUTUAL"}, True, 200, True, id="mutual"),
        pytest.param(
            {"mode": "ISTIO_MUTUAL", "subjectAltNames": [f"{TRUST}mesh/sa/another"]},
            True,
            503,
            False,
            id="not the expected identity",
        ),
    ],
)
def test_a_destination_rule_says_how_to_call(
    world: World, case: Callable[..., Any], tls: dict[str, Any], strict: bool, status: int, mutual: bool
) -> None:
    case(rule(tls), *([policy("STRICT")] if strict else []))
    answer = world.get(ECHO)
    assert answer["status"] == status
    assert status != 200 or is_mutual(answer) == mutual


def test_mutual_tls_to_who_speaks_plain_text_fails_and_simple_tls_too(world: World, case: Callable[..., Any]) -> None:
    for mode in ("ISTIO_MUTUAL", "SIMPLE"):
        case(rule({"mode": mode}, "old.plain.svc.cluster.local"))
        assert world.get("http://old.plain/")["status"] == 503


def test_a_policy_takes_hold_of_connections_that_are_open(world: World, case: Callable[..., Any]) -> None:
    """Keep-alive connections between the sidecars are no way round a change, and no request fails over it."""
    for mode in ("STRICT", "DISABLE", "STRICT", "PERMISSIVE"):
        case(policy(mode))
        becomes(world, mutual=mode != "DISABLE")
