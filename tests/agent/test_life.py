"""A real agent and a real Envoy through starts, kills, and a control plane that is away."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.control_plane import eventually
from tests.agent.sidecar import ALL, App, Sidecar, one_app, sidecar, virtual_host
from tests.support.ports import free_port


@pytest.fixture
def app() -> Iterator[App]:
    made = App("one")
    yield made
    made.stop()


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory on tmpfs."""
    made = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="heddle-agent-"))
    yield made
    shutil.rmtree(made)


def serves(made: Sidecar, port: int, expected: bytes = b"one") -> bool:
    try:
        return made.get(port, "/") == (200, expected)
    except OSError:
        return False


def envoy_pid(made: Sidecar) -> int:
    pid: int = made.status()["envoy"]["pid"]
    return pid


def test_it_starts_when_ca_and_discovery_come_late(tmp_path: Path, app: App) -> None:
    port = free_port()
    with sidecar(tmp_path) as (made, ca, discovery):
        discovery.put(*one_app(port, app))
        discovery.unknown = True
        ca.stop()
        made.start()
        eventually(lambda: b"no certificate yet" in made.get(made.health_port, "/healthz/ready")[1])
        ca.start()
        eventually(lambda: b"not known" in made.get(made.health_port, "/healthz/ready")[1])
        assert not made.ready()
        discovery.unknown = False
        made.await_ready()
        discovery.await_applied(*ALL)
        assert serves(made, port)
        said = [message["proxy"] for message in (*discovery.requests, *discovery.reports)]
        assert said[0]["namespace"] == "default"
        assert any(proxy["envoyVersion"].startswith("1.") for proxy in said)


def test_a_killed_envoy_comes_back_without_a_control_plane(tmp_path: Path, app: App) -> None:
    port = free_port()
    with sidecar(tmp_path) as (made, ca, discovery):
        made.start_with(discovery, *one_app(port, app))
        ca.stop()
        discovery.stop()
        before = envoy_pid(made)
        os.kill(before, signal.SIGKILL)
        eventually(lambda: serves(made, port) and made.ready())
        assert envoy_pid(made) != before
        assert made.command("restart-envoy")["killed"] != before
        eventually(lambda: made.status()["envoy"]["restarts"] == 2 and serves(made, port))
        discovery.start()
        discovery.put(virtual_host("r", "v", "one", "*", "other"))
        discovery.await_applied("virtualHosts")


def test_a_restarted_agent_serves_from_memory_without_a_control_plane(memory: Path, app: App) -> None:
    port = free_port()
    with sidecar(memory) as (made, ca, discovery):
        made.start_with(discovery, *one_app(port, app))
        eventually(lambda: (memory / "data" / "config.json").exists())
        serial = made.status()["certificate"]["serial"]
        envoy = envoy_pid(made)
        made.stop(signal.SIGKILL)
        eventually(lambda: not Path(f"/proc/{envoy}/exe").exists())  # nothing outlives the agent
        ca.stop()
        discovery.stop()
        made.start()
        made.await_ready()
        assert serves(made, port)
        assert made.status()["certificate"]["serial"] == serial


def test_on_a_disk_the_configuration_is_kept_but_the_key_is_made_anew(tmp_path: Path, app: App) -> None:
    port = free_port()
    with sidecar(tmp_path) as (made, ca, discovery):
        made.start_with(discovery, *one_app(port, app))
        assert made.stop() == 0
        assert sorted(path.name for path in (tmp_path / "data").glob("*.json")) == ["config.json", "envoy.json"]
        assert b"PRIVATE KEY" not in b"".join(path.read_bytes() for path in (tmp_path / "data").glob("*.json"))
        discovery.stop()
        made.start()
        made.await_ready()
        assert serves(made, port)
        assert len(ca.issued) == 2


def test_a_discovery_that_forgot_the_session_sends_nothing_again(tmp_path: Path, app: App) -> None:
    port = free_port()
    with sidecar(tmp_path) as (made, _ca, discovery):
        made.start_with(discovery, *one_app(port, app))
        discovery.forget_session()
        again = eventually(lambda: next((r for r in discovery.requests[1:] if "versions" in r), None))
        assert {kind: set(names) for kind, names in again["versions"].items()} == {
            "clusters": {"one"},
            "endpoints": {"one"},
            "listeners": {"l"},
            "routes": {"r"},
            "virtualHosts": {"r/v"},
        }
        discovery.put(virtual_host("r", "v", "one", "*", "more"))
        discovery.await_applied(*ALL)


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with sidecar(tmp_path) as (made, _ca, _discovery), socket.socket() as other:
        other.bind(("0.0.0.0", made.health_port))
        other.listen()
        made.start()
        assert made.process is not None
        assert made.process.wait(60) == 1
        assert f"port {made.health_port} cannot be listened on" in made.log
        assert "Traceback" not in made.log


def test_a_wrong_setting_is_one_sentence(tmp_path: Path) -> None:
    with sidecar(tmp_path, INSTANCE_IP="nowhere") as (made, _ca, _discovery):
        made.start()
        assert made.process is not None
        assert made.process.wait(60) == 1
        assert made.log == "heddle-agent: INSTANCE_IP: 'nowhere' is not an IP address\n"
