"""Probes: thresholds and timing as decisions; attempts against real servers, a real gRPC one among them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.probes import Outcome, Probe, Schedule, Tally, attempt, observe, parse_probe
from mesh.errors import InvalidInput

CONTAINER = {"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}


async def never(argv: list[str], seconds: float) -> tuple[int, str]:
    raise AssertionError("nothing is to be run")


def test_defaults_and_named_ports() -> None:
    probe = parse_probe({**CONTAINER, "readinessProbe": {"httpGet": {"port": "web", "path": "/x"}}}, "readinessProbe")
    assert probe == Probe("readinessProbe", "httpGet", {"port": "web", "path": "/x"}, 8080, 0, 10, 1, 1, 3)
    assert parse_probe(CONTAINER, "livenessProbe") is None


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        ({"periodSeconds": 1}, "c.startupProbe: a probe needs httpGet"),
        ({"tcpSocket": {"port": "nope"}}, "no port named 'nope'"),
    ],
)
def test_errors_name_the_container_and_probe(raw: dict[str, Any], part: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_probe({**CONTAINER, "startupProbe": raw}, "startupProbe")
    assert part in str(caught.value)


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 4), st.integers(1, 4))
def test_the_verdict_is_that_of_the_last_long_enough_row(results: list[bool], up: int, down: int) -> None:
    probe = Probe("readinessProbe", "exec", {}, success_threshold=up, failure_threshold=down)
    tally = Tally()
    expected = None
    for index, ok in enumerate(results):
        tally = observe(probe, tally, ok)
        needed = up if ok else down
        row = results[max(0, index + 1 - needed) : index + 1]
        if len(row) == needed and all(one == ok for one in row):
            expected = ok
        assert tally.passing == expected


def times(probe: Probe, until: float, passes_at: float) -> list[tuple[float, bool]]:
    """When attempts are made, and which of them count, for a program that is well from `passes_at` on."""
    schedule, found = Schedule(probe, 0.0), []
    while (at := schedule.next_at()) <= until:
        found.append((round(at, 3), schedule.take(at, passed=at >= passes_at)))
    return found


def test_extra_attempts_come_early_and_stop_once_it_passes() -> None:
    probe = Probe("startupProbe", "exec", {}, period=1.0)
    made = times(probe, 3.0, passes_at=0.2)
    assert made[:4] == [(0.0, True), (0.03, False), (0.075, False), (0.143, False)]
    passed = next(at for at, _ in made if at >= 0.2)
    assert passed < 0.3  # long before the next period
    assert [at for at, _ in made if at > passed] == [1.0, 2.0, 3.0]


def test_only_the_probes_own_attempts_count() -> None:
    made = times(Probe("readinessProbe", "exec", {}, period=2.0, initial_delay=1.0), 9.0, passes_at=99.0)
    assert [at for at, counts in made if counts] == [1.0, 3.0, 5.0, 7.0, 9.0]
    assert times(Probe("livenessProbe", "exec", {}, period=2.0), 4.0, passes_at=99.0) == [
        (0.0, True), (2.0, True), (4.0, True),
    ]  # fmt: skip


def test_a_clock_that_jumps_does_not_cause_a_burst() -> None:
    schedule = Schedule(Probe("livenessProbe", "exec", {}, period=1.0), 0.0)
    schedule.take(1000.0, passed=True)
    schedule.take(schedule.next_at(), passed=True)
    assert schedule.next_at() == 1001.0


def try_against(answer: bytes, action: dict[str, Any], handler: str = "httpGet", **more: Any) -> tuple[Outcome, bytes]:
    """One attempt against a server that answers every connection with these bytes; and what it was sent."""
    received = bytearray()

    async def scenario() -> Outcome:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received.extend(await reader.read(65536))
            if answer:
                writer.write(answer)
                await writer.drain()
                writer.close()
            else:
                await asyncio.sleep(5)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            return await attempt(Probe("readinessProbe", handler, action, port, **more), "127.0.0.1", never)

    return asyncio.run(scenario()), bytes(received)


@pytest.mark.parametrize(
    ("answer", "ok", "part"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nfine", True, ""),
        (b"HTTP/1.0 302 Found\r\nLocation: /\r\n\r\n", True, ""),
        (b"HTTP/1.1 503 No\r\n\r\nnot yet", False, "503: not yet"),
        (b"SSH-2.0-x\r\n", False, "not HTTP"),
        (b"HTTP/1.1", False, ""),
        (b"\x00" * 100_000, False, ""),
    ],
)
def test_http(answer: bytes, ok: bool, part: str) -> None:
    headers = [{"name": "Host", "value": "shop"}, {"name": "X", "value": "y"}]
    outcome, received = try_against(answer, {"path": "ready?now", "httpHeaders": headers})
    assert outcome.ok == ok
    assert part in outcome.message
    assert received.startswith(b"GET /ready?now HTTP/1.1\r\nhost: shop\r\n")
    assert b"x: y\r\n" in received


def test_no_answer_is_a_time_out_and_no_server_a_refusal() -> None:
    outcome, _ = try_against(b"", {}, timeout=0.05)
    assert not outcome.ok
    assert "within 0.05 s" in outcome.message
    refused = asyncio.run(attempt(Probe("livenessProbe", "tcpSocket", {}, 1), "127.0.0.1", never))
    assert not refused.ok


@pytest.mark.parametrize("code", [0, 1])
def test_exec(code: int) -> None:
    async def run(argv: list[str], seconds: float) -> tuple[int, str]:
        assert (argv, seconds) == (["check", "it"], 2)
        return code, "words"

    probe = Probe("livenessProbe", "exec", {"command": ["check", "it"]}, timeout=2)
    outcome = asyncio.run(attempt(probe, "", run))
    assert outcome.ok == (code == 0)
    assert ("words" in outcome.message) == (code != 0)


@pytest.mark.parametrize(("service", "ok"), [("", True), ("shop", True), ("asleep", False), ("unknown", False)])
def test_grpc_against_a_real_server(service: str, ok: bool) -> None:
    # Messages by hand, as grpc.health.v1 defines them: request field 1 the name, response field 1 the status.
    serving = {b"": 1, b"\n\x04shop": 1, b"\n\x06asleep": 2}

    def check(request: bytes, context: grpc.ServicerContext) -> bytes:
        if request not in serving:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return bytes((8, serving[request]))

    method = grpc.unary_unary_rpc_method_handler(check)
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        probe = Probe("livenessProbe", "grpc", {"service": service}, port, timeout=60)
        assert asyncio.run(attempt(probe, "127.0.0.1", never)).ok == ok
    finally:
        server.stop(None)
