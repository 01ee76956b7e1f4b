"""What Prometheus gets from the agent: its own numbers, Envoy's, and the app's, one after the other.

As Istio's agent does (its "Integrations: Prometheus"), the expositions are joined as texts. Nothing is held in memory
but a chunk of each; all of it ends within the time that Prometheus waits; what is missing is left out and counted.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing

from agent.http_client import Connection, connect
from agent.http_server import Request, Response
from agent.istio_metrics import IstioMetrics
from agent.probes import mark, unverified
from agent.settings import AppMetrics
from mesh.errors import Unavailable
from mesh.workloads import Workload

log = logging.getLogger("agent.metrics")

PATHS = ("/stats/prometheus", "/metrics")
TEXT = "text/plain; version=0.0.4; charset=utf-8"
DEFAULT_SECONDS, LONGEST_SECONDS = 10.0, 60.0
SHARE = 0.9
"""Of the time that Prometheus waits: the rest is for the way back."""
LONGEST_LINE = 1 << 20
_TIMEOUT_HEADER = "x-prometheus-scrape-timeout-seconds"
_ACCEPT = [("accept", "text/plain;version=0.0.4;q=1,*/*;q=0.1"), ("connection", "close")]
Part = Callable[[], AsyncGenerator[bytes, None]]
_EXEMPLAR = re.compile(rb'([^{"]*(?:\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?[^{"#]*?)\s+#\s+\{.*', re.DOTALL)


class Metrics:
    """`own()` are the agent's, in the text format; `ip` is the pod's address, at which the app is asked first;
    `workload` is what metrics call this pod."""

    def __init__(
        self, own: Callable[[], str], admin_port: int, app: AppMetrics | None, ip: str, workload: Workload
    ) -> None:
        self._own, self._admin_port, self._app, self._ip = own, admin_port, app, ip
        self._istio = IstioMetrics(workload)
        self._scrapes = 0
        self._failures = {"envoy": 0, "application": 0}

    def answer(self, request: Request) -> Response:
        """The answer to a scrape."""
        self._scrapes += 1
        seconds = scrape_seconds(request.header(_TIMEOUT_HEADER))
        return Response(200, self._joined(asyncio.get_running_loop().time() + seconds), TEXT)

    async def _joined(self, deadline: float) -> AsyncIterator[bytes]:
        yield (self._own() + self._counters()).encode()
        rewrite = self._istio.rewriter()
        parts: list[tuple[str, Part, Callable[[bytes], bytes]]] = [
            ("envoy", self._from_envoy, lambda line: rewrite(plain(line)))
        ]
        if self._app is not None:
            parts.append(("application", self._from_app, plain))
        for name, open_part, of_line in parts:
            try:
                async with aclosing(self._part(open_part, deadline, of_line)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            except (Unavailable, OSError, ValueError, TimeoutError) as error:
                self._failures[name] += 1
                log.info("no metrics of %s: %s", name, error or type(error).__name__)

    async def _part(
        self, open_part: Part, deadline: float, of_line: Callable[[bytes], bytes]
    ) -> AsyncGenerator[bytes, None]:
        """Whole lines only: of a source that breaks off in the middle of one, that one is left out. `of_line` says what
        becomes of a line; an empty one is the end."""
        rest = b""
        async with aclosing(open_part()) as source:
            while True:
                async with asyncio.timeout_at(deadline):
                    chunk = await anext(source, None)
                if chunk is None:
                    break
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > LONGEST_LINE:
                    raise ValueError(f"a line has more than {LONGEST_LINE} bytes")
                if lines:
                    yield b"".join(map(of_line, lines))
        yield of_line(rest) + of_line(b"")

    async def _from_envoy(self) -> AsyncGenerator[bytes, None]:
        connection = await connect("127.0.0.1", self._admin_port)
        async for chunk in connection.stream("GET", "/stats/prometheus"):
            yield chunk

    async def _from_app(self) -> AsyncGenerator[bytes, None]:
        assert self._app is not None
        connection = await self._connect_to_app(self._app)
        async for chunk in connection.stream("GET", self._app.path, _ACCEPT):
            yield chunk

    async def _connect_to_app(self, app: AppMetrics) -> Connection:
        """At the pod's address, as Prometheus itself would ask; else on loopback, where some apps keep them."""
        tls = unverified() if app.https else None
        try:
            return await connect(self._ip, app.port, tls=tls, source=mark(self._ip))
        except Unavailable:
            return await connect("::1" if ":" in self._ip else "127.0.0.1", app.port, tls=tls)

    def _counters(self) -> str:
        failures: Sequence[str] = [
            f'istio_agent_scrape_failures_total{{type="{name}"}} {count}\n' for name, count in self._failures.items()
        ]
        head = "# TYPE istio_agent_scrape_failures_total counter\n"
        return f"# TYPE istio_agent_scrapes_total counter\nistio_agent_scrapes_total {self._scrapes}\n{head}" + "".join(
            failures
        )


def scrape_seconds(header: str) -> float:
    """How long a scrape may take: a little less than Prometheus says that it waits."""
    try:
        wanted = float(header) if header else DEFAULT_SECONDS
    except ValueError:
        wanted = DEFAULT_SECONDS
    return SHARE * min(max(wanted, 0.1), LONGEST_SECONDS) if wanted == wanted else SHARE * DEFAULT_SECONDS


def plain(line: bytes) -> bytes:
    """A line of the text format, with its end; of one in OpenMetrics, what the text format has too.

    An app may answer in OpenMetrics without being asked to: its `# EOF` would end everything, and the text format knows
    no exemplars (` # {...} 1.0` after a value).
    """
    line = line.rstrip(b"\r")
    if not line or line == b"# EOF":
        return b""
    if b"# {" in line and not line.startswith(b"#") and (found := _EXEMPLAR.fullmatch(line)):
        line = found[1]
    return line + b"\n"
