"""Serves a picture to a browser of this machine: four files and one JSON, to be read only (docs/adr/0281).

Loopback is no protection from pages of other sites in the same browser: their scripts may ask any address, and by a
name of theirs that resolves to 127.0.0.1 (DNS rebinding) read what is answered. So the Host header must name this
machine, no answer may be used by another site, and there is nothing that could be changed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

from mesh.errors import Conflict

ADDRESS = "127.0.0.1"
NAMES = (ADDRESS, "localhost")
PICTURE = "/v1/picture"
IDLE_SECONDS = 30.0
FILES = {
    "/": ("dashboard.html", "text/html; charset=utf-8"),
    "/dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
    "/dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Server(ThreadingHTTPServer):
    """At 127.0.0.1:`port` (0: any free one). Conflict when the port cannot be opened; `newest` makes a picture."""

    daemon_threads = True

    def __init__(self, port: int, newest: Callable[[], Mapping[str, Any]]) -> None:
        self.newest = newest
        self.files = {path: (_content(name), kind) for path, (name, kind) in FILES.items()}
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise Conflict(
                f"port {port} of this machine cannot be opened: {error.strerror}",
                hint="name another one with --port, or 0 for any that is free",
            ) from error

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is nobody's trouble."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "heddle", ""
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        host = self.headers.get_all("Host") or []
        port = self.server.server_address[1]
        if len(host) != 1 or host[0].lower() not in {f"{name}:{port}" for name in NAMES}:
            return self._answer(HTTPStatus.MISDIRECTED_REQUEST, f"ask {self.server.url}\n".encode())
        path = self.path.partition("?")[0]
        if path == PICTURE:
            content = json.dumps(self.server.newest(), separators=(",", ":")).encode()
            return self._answer(HTTPStatus.OK, content, "application/json")
        if path in self.server.files:
            return self._answer(HTTPStatus.OK, *self.server.files[path])
        return self._answer(HTTPStatus.NOT_FOUND, b"there is no such page\n")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Also of every method but GET: there is none that changes anything."""
        self.close_connection = True
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self._answer(status, f"{status.phrase}\n".encode())

    def _answer(self, status: HTTPStatus, content: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal is the user's."""


def _content(name: str) -> bytes:
    return resources.files("cli.live.page").joinpath(name).read_bytes()
