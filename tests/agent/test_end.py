"""SIGTERM: readiness goes, what is in flight finishes, and all of it is bounded."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.drain import drain_seconds
from tests.agent.control_plane import eventually
from tests.agent.sidecar import (
    App,
    Sidecar,
    one_app,
    sidecar,
)
from tests.support.ports import free_port


@contextmanager
def serving(directory: Path, drain: str, **env: str) -> Iterator[tuple[Sidecar, App, int]]:
    app, port = App("one"), free_port()
    with sidecar(directory, **env) as (made, _ca, discovery):
        config = json.loads(made.environment["PROXY_CONFIG"]) | {"terminationDrainDuration": drain}
        made.environment["PROXY_CONFIG"] = json.dumps(config)
        discovery.put(*one_app(port, app))
        made.start()
        made.await_ready()
        try:
            yield made, app, port
        finally:
            app.stop()


class Slow(threading.Thread):
    """A request that the app answers when it is released."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self.status = 0
        self.closes = False
        self.start()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request("GET", "/slow")
            response = connection.getresponse()
            response.read()
            self.status, self.closes = response.status, response.getheader("connection") == "close"
        except OSError:
            self.status = -1
        finally:
            connection.close()


def says_close(port: int) -> bool:
    """New requests are served, and told to go elsewhere."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        return response.read() == b"one" and response.getheader("connection") == "close"
    finally:
        connection.close()


def in_flight(made: Sidecar) -> bool:
    return b"cluster.one.upstream_rq_active: 1" in made.get(made.admin_port, "/stats?filter=upstream_rq_active")[1]


def test_a_request_in_flight_finishes_and_then_it_ends(tmp_path: Path) -> None:
    with serving(tmp_path, "20s") as (made, app, port):
        slow = Slow(port)
        eventually(lambda: in_flight(made))
        assert made.process is not None
        made.process.send_signal(signal.SIGTERM)
        eventually(lambda: made.get(made.health_port, "/healthz/ready") == (503, b"draining"))
        eventually(lambda: says_close(port))
        assert made.process.poll() is None
        app.release.set()
        assert made.process.wait(60) == 0
        slow.join(60)
        assert slow.status == 200
        assert slow.closes
        assert "drained" in made.log


def test_who_has_not_heard_yet_is_served_for_a_while(tmp_path: Path) -> None:
    """Though no connection is open."""
    with serving(tmp_path, "60s", MINIMUM_DRAIN_DURATION="60s") as (made, _app, port):
        assert made.process is not None
        made.process.send_signal(signal.SIGTERM)
        eventually(lambda: made.get(made.health_port, "/healthz/ready") == (503, b"draining"))
        for _ in range(5):
            time.sleep(0.3)
            assert says_close(port)
        assert made.stop(signal.SIGINT) == 0
        assert "drain ends" in made.log


def test_the_drain_is_bounded(tmp_path: Path) -> None:
    with serving(tmp_path, "300s", TERMINATION_GRACE_PERIOD_SECONDS="3") as (made, _app, port):
        slow = Slow(port)
        eventually(lambda: in_flight(made))
        assert made.stop(timeout=60) == 0
        slow.join(60)
        assert slow.status != 200
        assert "drain ends, 1 connections are still open" in made.log


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    with serving(tmp_path, "20s") as (made, _app, port):
        Slow(port)
        eventually(lambda: in_flight(made))
        assert made.process is not None
        made.process.send_signal(signal.SIGTERM)
        eventually(lambda: not made.ready())
        began = time.monotonic()
        assert made.stop(signal.SIGINT) == 0
        assert time.monotonic() - began < 15


def test_an_agent_that_never_got_started_ends_at_once(tmp_path: Path) -> None:
    with sidecar(tmp_path) as (made, ca, _discovery):
        ca.stop()
        made.start()
        eventually(lambda: made.get(made.health_port, "/healthz/ready")[0] == 503)
        assert made.stop(timeout=60) == 0


def test_quitting_is_asked_from_inside_the_pod_only(tmp_path: Path) -> None:
    with serving(tmp_path, "1s") as (made, _app, _port):
        assert made.get(made.agent_port, "/quitquitquit")[0] == 405
        assert made.get(made.agent_port, "/quitquitquit", "POST") == (200, b"OK")
        assert made.process is not None
        assert made.process.wait(60) == 0


@pytest.mark.parametrize(
    ("wanted", "grace", "expected"), [(5.0, 30.0, 5.0), (60.0, 30.0, 28.0), (5.0, 1.0, 0.0), (0.0, 30.0, 0.0)]
)
def test_how_long_a_drain_takes(wanted: float, grace: float, expected: float) -> None:
    assert drain_seconds(wanted, grace) == expected
