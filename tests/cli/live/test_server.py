"""The dashboard's server over real sockets: what it answers, to whom, and what it refuses."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from importlib import resources

import pytest

from cli.live.server import FILES, PICTURE, Server
from mesh.errors import Conflict
from tests.cli.run import heddle


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(0, lambda: {"workloads": [{"id": "n/<b>"}]}) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(server: Server, path: str, method: str = "GET", host: str = "") -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


@pytest.mark.parametrize("path", FILES)
def test_every_file_has_its_type_and_may_load_from_here_only(server: Server, path: str) -> None:
    answer, content = ask(server, path)
    assert answer.status == 200
    assert content
    assert answer.headers["Content-Type"] == FILES[path][1]
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_no_file_names_another_machine_or_makes_markup_of_text() -> None:
    for name, _ in FILES.values():
        text = resources.files("cli.live.page").joinpath(name).read_text()
        addresses = set(re.findall(r"(?:https?:)?//[\w.]+", re.sub(r"(?m)^\s*//.*$|\s// .*$", "", text)))
        assert addresses <= {"http://www.w3.org"}, name  # names of SVG's, which nobody fetches
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", text), name
        assert not re.search(r"<script>|\son\w+=|\sstyle=", text), name


def test_the_picture_is_what_is_newest(server: Server) -> None:
    answer, content = ask(server, PICTURE)
    assert answer.headers["Content-Type"] == "application/json"
    assert json.loads(content) == {"workloads": [{"id": "n/<b>"}]}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "HEAD", "NONSENSE"])
def test_there_is_no_method_but_get(server: Server, method: str) -> None:
    answer, _ = ask(server, PICTURE, method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize("path", ["/v1", "/../pyproject.toml", "/dashboard.py", "/%2e%2e/server.py"])
def test_there_is_nothing_else(server: Server, path: str) -> None:
    assert ask(server, path)[0].status == 404


def test_other_names_of_this_machine_are_refused(server: Server) -> None:
    """As they come from a page whose name was made to resolve to 127.0.0.1."""
    port = server.server_address[1]
    assert ask(server, PICTURE, host=f"LOCALHOST:{port}")[0].status == 200
    for host in ("attacker.example", f"attacker.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", f"[::1]:{port}"):
        assert ask(server, PICTURE, host=host)[0].status == 421


@pytest.mark.parametrize(
    "request_line",
    ["nonsense", "GET / HTTP/9.9", "GET " + "/" * 70_000 + " HTTP/1.1", "GET / HTTP/1.1\r\nHost: a\r\nHost: b"],
)
def test_what_is_no_request_is_refused_and_the_server_goes_on(server: Server, request_line: str) -> None:
    with socket.create_connection(server.server_address[:2], timeout=60) as connection:
        connection.sendall(f"{request_line}\r\n\r\n".encode())
        connection.shutdown(socket.SHUT_WR)
        assert b"200 OK" not in connection.recv(65536)
    assert ask(server, "/")[0].status == 200


def test_who_goes_away_before_the_answer_is_no_trouble(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(5):
        with socket.create_connection(server.server_address[:2], timeout=60) as connection:
            connection.sendall(
                f"GET /dashboard.js HTTP/1.1\r\nHost: localhost:{server.server_address[1]}\r\n\r\n".encode()
            )
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # ends by RST
    assert ask(server, "/")[0].status == 200
    assert capfd.readouterr().err == ""


def test_a_port_in_use_is_said(server: Server) -> None:
    port = server.server_address[1]
    with pytest.raises(Conflict, match=f"port {port} of this machine cannot be opened: Address already in use"):
        Server(port, dict)


@pytest.mark.parametrize("command", ["top", "dashboard"])
def test_without_a_mesh_both_commands_say_so(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    empty = tmp_path_factory.mktemp("none")
    monkeypatch.setenv("HEDDLE_STATE", str(empty))
    monkeypatch.setenv("HOME", str(empty))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    done = heddle(command)
    assert done.code == 1
    assert "no mesh runs here" in done.err
