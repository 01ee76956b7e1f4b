"""What Prometheus gets: the agent's numbers, Envoy's and the app's, bounded in time and memory."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.http_server import Request, serve_tcp
from agent.metrics import LONGEST_SECONDS, Metrics, plain, scrape_seconds
from agent.settings import AppMetrics
from mesh.workloads import workload_of
from tests.agent.sidecar import App as NamedApp
from tests.agent.sidecar import one_app, sidecar
from tests.support.ports import free_port


@contextmanager
def server(answer: Callable[[socket.socket], None], host: str = "127.0.0.1") -> Iterator[int]:
    """Something on a port that does with each connection what it likes, after the request's head was read."""
    listening = socket.create_server((host, 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.recv(65536)
                    answer(connection)
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def saying(body: bytes, status: str = "200 OK") -> Callable[[socket.socket], None]:
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    return lambda connection: connection.sendall(head + body)


def scrape(metrics: Metrics, seconds: str = "") -> bytes:
    headers = (("x-prometheus-scrape-timeout-seconds", seconds),) if seconds else ()

    async def all_of_it() -> bytes:
        response = metrics.answer(Request("GET", "/stats/prometheus", "", headers, b"", "10.0.0.9"))
        assert isinstance(response.body, AsyncIterator)
        return b"".join([chunk async for chunk in response.body])

    return asyncio.run(all_of_it())


def of(app: int, envoy: int, ip: str = "127.0.0.1") -> Metrics:
    return Metrics(
        lambda: "own 1\n", envoy, AppMetrics(app, "/metrics", False), ip, workload_of("reviews-v1", "default", {})
    )


def test_all_three_in_order() -> None:
    with server(saying(b"envoy 1\n")) as envoy, server(saying(b"app 1")) as app:
        text = scrape(of(app, envoy))
    assert text.startswith(b"own 1\n")
    assert text.endswith(b"envoy 1\napp 1\n")
    assert b"istio_agent_scrapes_total 1\n" in text


@pytest.mark.parametrize("app", [saying(b"broken", "500 No"), lambda connection: connection.close()])
def test_without_the_app_envoys_are_served_and_the_failure_is_counted(app: Callable[[socket.socket], None]) -> None:
    with server(saying(b"envoy 1\n")) as envoy, server(app) as port:
        metrics = of(port, envoy)
        assert scrape(metrics).endswith(b"envoy 1\n")
        assert b'istio_agent_scrape_failures_total{type="application"} 1\n' in scrape(metrics)
    assert scrape(metrics).startswith(b"own 1\n")
    assert b'istio_agent_scrape_failures_total{type="envoy"} 1\n' in scrape(metrics)


def test_an_app_that_hangs_or_never_ends_takes_no_more_than_the_time_there_is() -> None:
    def hang(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nhalf 1\nnot wh")
        time.sleep(5)

    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x 1\n")
            time.sleep(0.01)

    for app in (hang, endless):
        with server(saying(b"envoy 1\n")) as envoy, server(app) as port:
            began = time.monotonic()
            text = scrape(of(port, envoy), "0.5")
            assert time.monotonic() - began < 4  # it would be 5, or for ever
        assert b"envoy 1\n" in text
        assert text.endswith(b" 1\n")
        assert b"not wh" not in text


def test_an_app_on_loopback_only_is_found() -> None:
    with server(saying(b"envoy 1\n")) as envoy, server(saying(b"app 1\n")) as app:
        assert scrape(of(app, envoy, ip="127.0.0.77")).endswith(b"app 1\n")


def test_a_line_without_end_is_given_up() -> None:
    def one_line(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(100):
            connection.sendall(b"x" * 65536)

    with server(saying(b"envoy 1\n")) as envoy, server(one_line) as app:
        text = scrape(of(app, envoy))
    assert text.endswith(b"envoy 1\n")


def test_a_slow_reader_makes_the_agent_hold_only_a_little() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65536
            yield b"x" * 65536

    async def run() -> int:
        from agent.http_server import Response

        made = await serve_tcp("127.0.0.1", 0, lambda _request: Response(200, endless()))
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readline()
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.2)
        writer.close()
        made.close()
        return sent

    assert asyncio.run(run()) < 16 << 20  # the kernel's buffers, and one chunk or two


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("", 9.0), ("10", 9.0), ("2.5", 2.25), ("x", 9.0), ("nan", 9.0), ("0", 0.09), ("-1", 0.09), ("1e9", 54.0)],
)
def test_the_time_that_there_is(header: str, seconds: float) -> None:
    assert scrape_seconds(header) == pytest.approx(seconds)
    assert LONGEST_SECONDS == 60


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"a 1", b"a 1\n"),
        (b"a 1\r", b"a 1\n"),
        (b"# TYPE a counter", b"# TYPE a counter\n"),
        (b"# EOF", b""),
        (b"", b""),
        (b'a_total{x="y"} 3 # {trace_id="1"} 0.5 1.2', b'a_total{x="y"} 3\n'),
        (b'a_bucket{le="1"} 3 17.5 # {} 0.5', b'a_bucket{le="1"} 3 17.5\n'),
        (b'a_total 3 # {trace_id="1"} 0.5', b"a_total 3\n"),
        (b'a{x="b # {c"} 3', b'a{x="b # {c"} 3\n'),
        (b'a{x="\\" # {c"} 3 # {t="1"} 1', b'a{x="\\" # {c"} 3\n'),
        (b"# HELP a what # {is} said", b"# HELP a what # {is} said\n"),
    ],
)
def test_what_the_text_format_does_not_know_goes(line: bytes, expected: bytes) -> None:
    assert plain(line) == expected


def test_an_exemplar_cannot_make_it_slow() -> None:
    line = b"a{" + b'x="y",' * 20_000 + b"} 3 " + b"# {" * 20_000
    began = time.thread_time()
    plain(line)
    assert time.thread_time() - began < 2


def test_a_running_sidecar_merges_and_applies_what_it_is_told(tmp_path: Path) -> None:
    app = NamedApp("app_requests_total 7\n")
    override = tmp_path / "custom_bootstrap.json"
    override.write_text(json.dumps({"stats_config": {"stats_tags": [{"tag_name": "x", "fixed_value": "overridden"}]}}))
    env = {
        "ISTIO_PROMETHEUS_ANNOTATIONS": json.dumps({"scrape": "true", "port": str(app.port), "path": "/m"}),
        "ISTIO_BOOTSTRAP_OVERRIDE": str(override),
        "STATS_HISTOGRAM_BUCKETS": json.dumps({"cluster.one.": [1, 77]}),
        "ENVOY_COMPONENT_LOG_LEVEL": "misc:error,config:debug",
        "INSTANCE_IPS": "127.0.0.1,::1",
    }
    try:
        with sidecar(tmp_path, **env) as (made, _ca, discovery):
            port = free_port()
            early = asyncio.run(_wait_fails(made.environment))
            assert "is not ready after" in early
            discovery.put(*one_app(port, app))
            made.start()
            made.await_ready()
            made.command("wait", "--timeout", "5")
            made.get(port, "/")
            text = made.get(made.agent_port, "/stats/prometheus")[1]
            assert b"\nheddle_agent_discovery_connected 1\n" in text
            assert b"envoy_cluster_upstream_rq_total" in text
            assert b'le="77"' in text
            assert b'x="overridden"' in text
            assert text.endswith(b"app_requests_total 7\n")
            for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                for listening in (made.agent_port, made.health_port, int(made.environment["STATS_PORT"])):
                    with socket.socket(family) as connection:
                        connection.settimeout(60)
                        connection.connect((host, listening))
    finally:
        app.stop()


async def _wait_fails(environment: dict[str, str]) -> str:
    import sys

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent", "wait", "--timeout", "0.3", env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, error = await process.communicate()
    assert process.returncode == 1
    return error.decode()
