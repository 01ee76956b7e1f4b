"""A small service on everything that `serving` has: `python -m tests.serving.service PORT HEALTH CERTIFICATE KEY`.

With `small` behind it, within narrow limits.
"""

from __future__ import annotations

import os
import ssl
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from flask import Flask, Response, request

from mesh.errors import Forbidden
from serving import gthread, wsgi
from serving.certificate import FileCertificate
from serving.gthread import InThreads
from serving.health import create_health_app, serve_in_threads
from serving.http1 import Answer, Request, json_answer
from serving.impatient import make_impatient
from serving.json_http import handle_errors, json_response, read_json
from serving.logs import configure
from serving.server import Running

THREADS = 2
REQUEST_SECONDS = 1.0
MAX_BODY = 10_000
SMALL_HELD, SMALL_CONNECTIONS, SMALL_REQUEST_SECONDS = 200_000, 100, 60.0
LARGE = 20_000_000  # more than a connection on loopback takes without being read
OPEN_FILES = 100  # so that connections get descriptors above 1,023


def create_app() -> Flask:
    """`/echo` answers the JSON that it gets; every other path fails in a way of its own."""
    app = Flask("service", static_folder=None)

    @app.get("/")
    def hello() -> Response:
        return json_response({"hello": request.args.get("name", "")}, 200)

    @app.post("/echo")
    def echo() -> Response:
        return json_response(read_json(MAX_BODY), 200)

    @app.get("/forbidden")
    def forbidden() -> Response:
        raise Forbidden("not for you", hint="ask")

    @app.get("/broken")
    def broken() -> Response:
        raise RuntimeError("secret")

    @app.get("/cut")
    def cut() -> Response:
        def parts() -> object:
            yield b"x" * 10
            raise RuntimeError("in the middle")

        return Response(parts())  # type: ignore[arg-type]

    @app.get("/large")
    def large() -> Response:
        return Response(b"x" * LARGE)

    @app.get("/stream")
    def stream() -> Response:
        return Response(iter([b"one", b"two", b"three"]))

    handle_errors(app, "the service")
    return app


class Quick(InThreads):
    """`/quick` is answered by the poller's own thread, and `/quick-broken` fails there."""

    def at_once(self, requests: Sequence[Request]) -> Sequence[Answer | None]:
        return [self._quick(request) for request in requests]

    def _quick(self, request: Request) -> Answer | None:
        if request.path == "/quick":
            return json_answer(200, {"quick": threading.current_thread() is threading.main_thread()})
        if request.path == "/quick-broken":
            raise RuntimeError("quick")
        return None


def load(seconds: float, certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return make_impatient(context, seconds)


def start(health: int, seconds: float, files: tuple[Path, Path]) -> Running:
    for _ in range(OPEN_FILES):
        os.open(os.devnull, os.O_RDONLY)
    certificate = FileCertificate(files, partial(load, seconds))
    serve_in_threads(("127.0.0.1", health), create_health_app("health", lambda: b"a 1\n", certificate.not_ready))
    return Running(Quick(partial(wsgi.run, create_app())), certificate.context, certificate.close)


def main(port: str, health: str, certificate: str, key: str, small: str = "") -> None:
    configure()
    if small:
        gthread.MOST_HELD, gthread.MOST_CONNECTIONS, gthread.LEAST_CONNECTIONS = SMALL_HELD, *(SMALL_CONNECTIONS,) * 2
    begin = partial(
        start, int(health), SMALL_REQUEST_SECONDS if small else REQUEST_SECONDS, (Path(certificate), Path(key))
    )
    gthread.threaded_server(begin, f"127.0.0.1:{port}", threads=THREADS, keepalive=30, max_body=MAX_BODY).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
