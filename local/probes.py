"""Startup, readiness and liveness probes: what they say (pure), and how they are made (asyncio).

Sources: Kubernetes "Configure Liveness, Readiness and Startup Probes"; the gRPC health checking protocol. One addition:
until a startup or readiness probe has passed for the first time, it is also tried between its periods, at once and then
ever less often; such extra attempts can pass a probe but not fail it (docs/adr/0023).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from mesh.errors import HeddleError, InvalidInput
from mesh.grpc_health import HealthCheck

ProbeKind = Literal["startupProbe", "readinessProbe", "livenessProbe"]
# (command, seconds) -> (exit code, output)
RunCommand = Callable[[list[str], float], Awaitable[tuple[int, str]]]

FIRST_EXTRA = 0.03  # seconds between the first extra attempts; each gap is half as long again as the one before
_GROWTH = 1.5
_MOST_OF_A_BODY = 10 * 1024


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe with its numbers filled in; `action` is the Kubernetes handler (`httpGet` ...), ports resolved."""

    kind: ProbeKind
    handler: str
    action: Mapping[str, Any]
    port: int = 0
    initial_delay: float = 0.0
    period: float = 10.0
    timeout: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3
    grace: float | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """Results in a row. `passing` is None until a threshold has been reached for the first time."""

    successes: int = 0
    failures: int = 0
    passing: bool | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attempt: whether it succeeded, and what there is to say."""

    ok: bool
    message: str = ""


def parse_probe(container: Mapping[str, Any], kind: ProbeKind) -> Probe | None:
    """The container's probe of this kind, or None; InvalidInput for a port name that it does not declare."""
    raw = container.get(kind)
    if not raw:
        return None
    handler = next((name for name in ("httpGet", "tcpSocket", "exec", "grpc") if raw.get(name) is not None), None)
    if handler is None:
        raise InvalidInput("a probe needs httpGet, tcpSocket, exec or grpc", field=f"{container['name']}.{kind}")
    action = raw[handler]
    port = 0 if handler == "exec" else resolve_port(container, action.get("port"), f"{container['name']}.{kind}")
    return Probe(
        kind=kind,
        handler=handler,
        action=action,
        port=port,
        initial_delay=raw.get("initialDelaySeconds") or 0,
        period=raw.get("periodSeconds") or 10,
        timeout=raw.get("timeoutSeconds") or 1,
        success_threshold=raw.get("successThreshold") or 1,
        failure_threshold=raw.get("failureThreshold") or 3,
        grace=raw.get("terminationGracePeriodSeconds"),
    )


def resolve_port(container: Mapping[str, Any], port: Any, field: str) -> int:
    """A number, or the number of the container's port of that name."""
    if isinstance(port, int) or (isinstance(port, str) and port.isdigit()):
        return int(port)
    for declared in container.get("ports") or []:
        if declared.get("name") == port:
            return int(declared["containerPort"])
    raise InvalidInput(f"the container declares no port named {port!r}", field=f"{field}.port")


def observe(probe: Probe, tally: Tally, ok: bool) -> Tally:
    """The tally after one more result that counts."""
    if ok:
        successes = tally.successes + 1
        return Tally(successes, 0, True if successes >= probe.success_threshold else tally.passing)
    failures = tally.failures + 1
    return Tally(0, failures, False if failures >= probe.failure_threshold else tally.passing)


class Schedule:
    """When to try next. Pure: `next_at` and `take` are told the time (monotonic seconds)."""

    def __init__(self, probe: Probe, began: float) -> None:
        self._probe = probe
        self._counted = began + probe.initial_delay
        self._extra: float | None = None
        self._gap = FIRST_EXTRA
        self._eager = probe.kind != "livenessProbe"

    def next_at(self) -> float:
        return self._counted if self._extra is None else min(self._counted, self._extra)

    def take(self, now: float, passed: bool) -> bool:
        """Whether the attempt made at `now` counts as one of the probe's own; plans the next."""
        counted = now >= self._counted
        if counted:
            # Periods that were missed (the machine was suspended, the clock jumped) are not made up for.
            self._counted = max(self._counted + self._probe.period, now)
        if self._eager and not passed:
            self._extra = now + self._gap
            self._gap = min(self._gap * _GROWTH, self._probe.period)
        else:
            self._eager, self._extra = False, None
        return counted


async def attempt(probe: Probe, address: str, run: RunCommand) -> Outcome:
    """Try once, within the probe's timeout."""
    try:
        async with asyncio.timeout(probe.timeout):
            return await _handlers[probe.handler](probe, address, run)
    except TimeoutError:
        return Outcome(False, f"no answer within {probe.timeout:g} s")
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, HeddleError) as error:
        return Outcome(False, str(error) or type(error).__name__)


async def _http(probe: Probe, address: str, _: RunCommand) -> Outcome:
    action = probe.action
    host = action.get("host") or address
    secure = (action.get("scheme") or "HTTP").upper() == "HTTPS"
    status, body = await http_get(host, probe.port, action.get("path") or "/", action.get("httpHeaders") or [], secure)
    return Outcome(200 <= status < 400, f"HTTP status {status}" + (f": {body[:200]}" if status >= 400 else ""))


async def http_get(host: str, port: int, path: str, headers: list[Mapping[str, str]], secure: bool) -> tuple[int, str]:
    """Status and the beginning of the body; a certificate is not checked, as the kubelet does not."""
    context = None
    if secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        given = {item["name"].lower(): item["value"] for item in headers}
        own = {"host": f"{host}:{port}", "user-agent": "kube-probe/heddle", "accept": "*/*", "connection": "close"}
        lines = [f"GET {path if path.startswith('/') else f'/{path}'} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in (own | given).items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        first = (await reader.readuntil(b"\n")).split(maxsplit=2)
        if len(first) < 2 or not first[0].startswith(b"HTTP/") or not first[1].isdigit():
            raise ValueError("the answer is not HTTP")
        status = int(first[1])
        body = ""
        if status >= 400:
            rest = b"\r\n" + await reader.read(_MOST_OF_A_BODY)
            body = rest.partition(b"\r\n\r\n")[2].decode(errors="replace").strip()
        return status, body
    finally:
        writer.close()


async def _tcp(probe: Probe, address: str, run: RunCommand) -> Outcome:
    _, writer = await asyncio.open_connection(probe.action.get("host") or address, probe.port)
    writer.close()
    return Outcome(True)


async def _exec(probe: Probe, _: str, run: RunCommand) -> Outcome:
    code, output = await run(list(probe.action.get("command") or []), probe.timeout)
    return Outcome(code == 0, f"code {code}: {output[-200:]}" if code else "")


async def _grpc(probe: Probe, address: str, _: RunCommand) -> Outcome:
    check = HealthCheck(f"{address}:{probe.port}", probe.action.get("service") or "")
    reader, writer = await asyncio.open_connection(address, probe.port)
    try:
        writer.write(check.opening)
        while check.serving is None:
            writer.write(check.receive(await reader.read(_MOST_OF_A_BODY)))
    finally:
        writer.close()
    return Outcome(check.serving, "" if check.serving else "not SERVING")


_handlers: dict[str, Callable[[Probe, str, RunCommand], Awaitable[Outcome]]] = {
    "httpGet": _http,
    "tcpSocket": _tcp,
    "exec": _exec,
    "grpc": _grpc,
}


async def keep_probing(
    probe: Probe,
    address: str,
    run: RunCommand,
    clock: Callable[[], float],
    report: Callable[[bool, str], None],
) -> None:
    """Probe until cancelled; `report(passing, message)` whenever the verdict changes, and on each repeated failure."""
    schedule, tally = Schedule(probe, clock()), Tally()
    while True:
        await asyncio.sleep(max(0.0, schedule.next_at() - clock()))
        outcome = await attempt(probe, address, run)
        counted = schedule.take(clock(), tally.passing is True or outcome.ok)
        if not counted and not outcome.ok:
            continue
        before = tally.passing
        tally = observe(probe, tally, outcome.ok)
        if tally.passing is not None and (tally.passing != before or not tally.passing):
            report(tally.passing, outcome.message)
            if not tally.passing:
                tally = replace(tally, failures=0) if probe.kind != "readinessProbe" else tally
