"""The engine's socket for the `heddle` command, asked over the real Unix socket."""

from __future__ import annotations

import http.client
import json
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local import control
from tests.local.command_server import CommandServer


@pytest.fixture
def server() -> Iterator[CommandServer]:
    with tempfile.TemporaryDirectory(prefix="hc") as state:
        running = CommandServer(Path(state))
        yield running
        running.components.stop_all()


def ask(server: CommandServer, method: str, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(server.state / "engine.sock"))
    connection.request(method, path)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    return answer.status, body


def test_status(server: CommandServer) -> None:
    server.add_pod("n", "p")
    code, body = ask(server, "GET", "/status")
    assert code == 200
    assert [pod["name"] for pod in body["pods"]] == ["p"]
    assert body["components"] == {"ca": "stopped", "webhook": "stopped", "discovery": "stopped"}


def test_only_the_owner_may_connect_and_a_second_server_takes_over(server: CommandServer) -> None:
    path = server.state / "engine.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    control.serve_in_thread(control.Flask("other"), path)
    assert ask_raw(server, b"GET /status HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 404")


def ask_raw(server: CommandServer, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(server.state / "engine.sock"))
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").read()


def test_objects_of_a_kind(server: CommandServer) -> None:
    raw = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "n", "name": "a"}}
    server.store.put(raw)
    code, body = ask(server, "GET", "/objects/ConfigMap")
    assert (code, body["resourceVersion"]) == (200, 1)
    assert [item["metadata"]["name"] for item in body["items"]] == ["a"]
    code, body = ask(server, "GET", "/objects/configmap")
    assert (code, body["error"]["code"]) == (404, "not-found")


def test_components_start_stop_and_end(server: CommandServer) -> None:
    for _ in range(2):
        assert ask(server, "POST", "/components/ca/start")[1]["components"]["ca"] == "running"
    for verb in ("stop", "kill"):
        assert ask(server, "POST", f"/components/ca/{verb}")[1]["components"]["ca"] == "stopped"


def test_discovery_and_ca_are_passed_on_with_path_and_query(server: CommandServer) -> None:
    server.operator.answers["discovery/v1/status"] = (200, {"ready": True})
    assert ask(server, "GET", "/control/discovery/v1/status?observed=5&wait=1") == (200, {"ready": True})
    assert server.operator.asked == ["discovery/v1/status?observed=5&wait=1"]
    server.operator.answers["ca/v1/certificates"] = (403, {"error": {"code": "forbidden", "message": "no"}})
    assert ask(server, "GET", "/control/ca/v1/certificates")[0] == 403
    assert ask(server, "GET", "/control/discovery/v1/other")[0] == 503


def test_capture_and_down(server: CommandServer) -> None:
    assert ask(server, "POST", "/capture/n/p/start") == (200, {"started": True})
    assert server.captured == [("n", "p", "start")]
    assert ask(server, "POST", "/down") == (200, {"ending": True})
    assert server.downs == 1


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/", 404),
        ("GET", "/statuss", 404),
        ("GET", "/down", 405),
        ("POST", "/status", 405),
        ("DELETE", "/components/ca/start", 405),
        ("POST", "/components/ca/explode", 404),
        ("POST", "/components/pilot/stop", 404),
        ("POST", "/capture/n/p/look", 404),
        ("GET", "/logs/n/p/none", 404),
        ("GET", "/logs/n", 404),
        ("GET", "/control/webhook/x", 404),
        ("GET", "/control/discovery", 404),
        ("GET", "/objects/../status", 404),
    ],
)
def test_what_is_unknown_is_an_error_in_json(server: CommandServer, method: str, path: str, code: int) -> None:
    status, body = ask(server, method, path)
    assert status == code
    assert body["error"]["message"]
    assert server.downs == 0


def test_a_bug_is_a_500_in_json_and_the_next_request_is_served(server: CommandServer) -> None:
    server.failure = KeyError("oops")
    status, body = ask(server, "GET", "/status")
    assert (status, body["error"]["code"]) == (500, "Internal Server Error")
    server.failure = None
    assert ask(server, "GET", "/status")[0] == 200


@pytest.mark.parametrize("request_bytes", [b"\r\n\r\n", b"nonsense\r\n\r\n", b"\x16\x03\x01", b"GET"])
def test_what_is_no_http_ends_only_its_connection(server: CommandServer, request_bytes: bytes) -> None:
    ask_raw(server, request_bytes)
    assert ask(server, "GET", "/status")[0] == 200
