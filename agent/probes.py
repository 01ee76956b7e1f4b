"""The app's own probes, asked by the agent from inside the pod for kubelet, which has no certificate.

What to ask is Istio's ISTIO_KUBE_APP_PROBERS, JSON: `"/app-health/<container>/livez": {"httpGet": {...}, ...}`, and
`/app-lifecycle/<container>/prestopz` for hooks of the life cycle.
Success is what kubelet calls success: an answer from 200 to 399, an open port, or SERVING.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.http_client import connect
from agent.http_server import Request, Response
from mesh.errors import InvalidInput, Unavailable
from mesh.grpc_health import HealthCheck

log = logging.getLogger("agent.probes")

DEFAULT_TIMEOUT = 1.0  # seconds, as kubelet's
MAX_ANSWER = 10 << 10
MARK = "127.0.0.6"
MARK6 = "::6"
"""Connections from here are not intercepted (mesh/interception.py), so that the probe reaches the app itself."""
_PATH = re.compile(r"/(app-health/[^/]+/(livez|readyz|startupz)|app-lifecycle/[^/]+/(prestopz|poststartz))\Z")


@dataclass(frozen=True, slots=True)
class Probe:
    """`how` is httpGet, tcpSocket or grpc; `headers` are the manifest's."""

    how: str
    port: int
    timeout: float
    path: str = "/"
    https: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    service: str = ""


def parse_probes(raw: Mapping[str, Any]) -> dict[str, Probe]:
    """The probes by path; InvalidInput names the one that is wrong."""
    return {path: _parse(path, definition) for path, definition in raw.items()}


def _parse(path: str, definition: object) -> Probe:
    field = f'ISTIO_KUBE_APP_PROBERS["{path}"]'
    if not _PATH.match(path):
        raise InvalidInput(
            "must be /app-health/<container>/livez, readyz or startupz, or /app-lifecycle/<container>/prestopz or "
            "poststartz",
            field=field,
        )
    actions = [how for how in ("httpGet", "tcpSocket", "grpc") if isinstance(definition, dict) and how in definition]
    if len(actions) != 1:
        raise InvalidInput("needs exactly one of httpGet, tcpSocket and grpc", field=field)
    assert isinstance(definition, dict)
    action = definition[actions[0]]
    port = action.get("port") if isinstance(action, dict) else None
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
        raise InvalidInput(f"port must be a number from 1 to 65535, got {port!r}", field=f"{field}.{actions[0]}")
    target = str(action.get("path") or "/")
    return Probe(
        how=actions[0],
        port=port,
        timeout=float(definition.get("timeoutSeconds") or DEFAULT_TIMEOUT),
        path=target if target.startswith("/") else f"/{target}",
        https=str(action.get("scheme") or "HTTP").upper() == "HTTPS",
        headers=tuple((str(h["name"]).lower(), str(h.get("value", ""))) for h in action.get("httpHeaders") or ()),
        service=str(action.get("service") or ""),
    )


class AppProbes:
    """Asks the app at `ip`, the pod's address, as kubelet would."""

    def __init__(self, probes: Mapping[str, Probe], ip: str) -> None:
        self._probes = probes
        self._ip = ip
        self._source = mark(ip)

    async def answer(self, request: Request) -> Response:
        """The app's status and the first 10 KB of its answer; 500 when the probe fails without one."""
        probe = self._probes.get(request.path)
        if probe is None:
            return Response(404, f"no probe of the app at {request.path}".encode())
        try:
            async with asyncio.timeout(probe.timeout):
                return await self._ask(probe, request)
        except TimeoutError:
            return _failed(request.path, f"no answer within {probe.timeout:g} s")
        except (Unavailable, OSError, EOFError, ValueError) as error:
            return _failed(request.path, str(error) or type(error).__name__)

    async def _grpc_serving(self, probe: Probe) -> bool:
        check = HealthCheck(f"{self._ip}:{probe.port}", probe.service)
        reader, writer = await asyncio.open_connection(self._ip, probe.port, local_addr=self._source)
        try:
            writer.write(check.opening)
            while check.serving is None:
                writer.write(check.receive(await reader.read(MAX_ANSWER)))
            return check.serving
        finally:
            writer.close()

    async def _ask(self, probe: Probe, request: Request) -> Response:
        if probe.how == "grpc":
            return Response(200) if await self._grpc_serving(probe) else _failed(request.path, "the app is not SERVING")
        tls = unverified() if probe.https else None
        connection = await connect(self._ip, probe.port, tls=tls, timeout=probe.timeout, source=self._source)
        try:
            if probe.how == "tcpSocket":
                return Response(200)
            agent = request.header("user-agent") or "kube-probe/heddle"
            names = {name for name, _ in probe.headers}
            defaults = [("user-agent", agent), ("accept", "*/*"), ("connection", "close")]
            headers = [*((name, value) for name, value in defaults if name not in names), *probe.headers]
            status, body = await connection.peek("GET", probe.path, headers, MAX_ANSWER)
        finally:
            connection.close()
        # A redirect without its Location would be nonsense; to kubelet it is a success.
        return Response(200 if 300 <= status < 400 else status, body)


def mark(ip: str) -> tuple[str, int] | None:
    """The source for connections to the app at `ip`; None where ::6 is nobody's, because IPv6 is not intercepted."""
    if ":" not in ip:
        return MARK, 0
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as trial:
            trial.bind((MARK6, 0))
    except OSError:
        return None
    return MARK6, 0


def _failed(path: str, why: str) -> Response:
    log.info("probe %s failed: %s", path, why)
    return Response(500, why.encode())


def unverified() -> ssl.SSLContext:
    """For an app in the same pod: kubelet does not verify the certificate of a probed app either."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
