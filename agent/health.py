"""What kubelet and Prometheus ask: readiness (15021 and 15020), the app's probes, merged statistics, quitting."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agent.http_server import Request, Response
from agent.metrics import PATHS, Metrics
from agent.probes import AppProbes

READY = "/healthz/ready"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "::ffff:127.0.0.1"})


class Health:
    """`not_ready()` says why the pod must get no traffic, "" when it may."""

    def __init__(
        self,
        *,
        not_ready: Callable[[], Awaitable[str]],
        metrics: Metrics,
        probes: AppProbes,
        quit: Callable[[], None],
    ) -> None:
        self._not_ready = not_ready
        self._metrics = metrics
        self._probes = probes
        self._quit = quit

    def readiness_only(self, request: Request) -> Response | Awaitable[Response]:
        """Port 15021."""
        return self._ready() if request.path == READY else Response(404)

    def everything(self, request: Request) -> Response | Awaitable[Response]:
        """Port 15020."""
        if request.path == READY:
            return self._ready()
        if request.path.startswith(("/app-health/", "/app-lifecycle/")):
            return self._probes.answer(request)
        if request.path in PATHS:
            return self._metrics.answer(request)
        if request.path == "/quitquitquit":
            return self._quitting(request)
        return Response(404)

    async def _ready(self) -> Response:
        why = await self._not_ready()
        return Response(503, why.encode()) if why else Response(200)

    def _quitting(self, request: Request) -> Response:
        if request.peer not in _LOOPBACK:
            return Response(403, b"only from inside the pod")
        if request.method != "POST":
            return Response(405, headers=(("allow", "POST"),))
        self._quit()
        return Response(200, b"OK")
