"""The agent's own commands, on its Unix socket beside xDS: what `heddle-agent status`, `renew` and the others ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agent.envoy import Envoy
from agent.http_server import Later, Request, Response, json_response
from agent.identity import IdentityKeeper
from agent.xds_server import PATHS, XdsServer
from mesh.errors import NotFound

ADMIN = "/agent/admin"
"""What follows is the path that Envoy's admin interface is asked for; the method is passed on."""


class Control:
    """`status()` is the agent's state in JSON values; `drain()` starts the end without exiting."""

    def __init__(
        self,
        xds: XdsServer,
        envoy: Envoy,
        identity: IdentityKeeper,
        *,
        status: Callable[[], Mapping[str, Any]],
        drain: Callable[[], Awaitable[None]],
    ) -> None:
        self._xds = xds
        self._envoy = envoy
        self._identity = identity
        self._status = status
        self._drain = drain

    def handle(self, request: Request) -> Response | Later | Awaitable[Response]:
        """Everything that arrives on the socket."""
        kind = PATHS.get(request.path)
        if kind is not None:
            return self._xds.handle(kind, request)
        if request.path.startswith(f"{ADMIN}/"):
            return self._ask_envoy(request)
        match request.method, request.path:
            case "GET", "/agent/status":
                return json_response(self._status())
            case "POST", "/agent/renew":
                return self._renew()
            case "POST", "/agent/drain":
                return self._start_drain()
            case "POST", "/agent/restart-envoy":
                return self._restart_envoy()
        raise NotFound(f"{request.method} {request.path} is nothing that the agent answers")

    async def _ask_envoy(self, request: Request) -> Response:
        target = request.path.removeprefix(ADMIN) + (f"?{request.query}" if request.query else "")
        answer = await self._envoy.admin(request.method, target, timeout=60.0)
        return Response(answer.status, answer.body, answer.header("content-type") or "text/plain")

    async def _renew(self) -> Response:
        before = self._identity.material
        after = await self._identity.renew_now()
        return json_response({"old": before.serial if before else "", "new": after.serial})

    async def _start_drain(self) -> Response:
        await self._drain()
        return json_response({"draining": True})

    def _restart_envoy(self) -> Response:
        before = self._envoy.child
        self._envoy.kill()
        return json_response({"killed": before.pid if before else 0})
