"""A WSGI application (PEP 3333) as a handler of requests that are whole already: Flask's."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mesh.identity import Identity
from serving.http1 import Answer, Peer, Request

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

Environ = dict[str, Any]

_PEER = "heddle.peer"


def peer_of(environ: Environ) -> Peer | None:
    """Who is at the other end; None where a request came otherwise than by `run`."""
    return environ.get(_PEER)


def caller_of(environ: Environ) -> Identity:
    """The verified identity of a request's caller; raises Unauthenticated."""
    peer: Peer = environ[_PEER]
    return peer.identity()


def run(app: WSGIApplication, request: Request) -> Answer:
    """What `app` answers. Its parts are put together: no answer of ours is a stream."""
    said: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], _error: object = None) -> Callable[[bytes], object]:
        said[:] = int(status.split(" ", 1)[0]), headers
        return _no_write

    parts = app(environ_of(request), start_response)
    try:
        body = b"".join(parts)
    finally:
        if hasattr(parts, "close"):
            parts.close()
    status, headers = said
    return Answer(status, body, headers)


def environ_of(request: Request) -> Environ:
    """The request as WSGI has it."""
    path, _, query = request.target.partition("?")
    environ: Environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(path, "latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "heddle",
        "REMOTE_ADDR": request.peer.address,
        "SERVER_PORT": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(request.body)),
        "CONTENT_TYPE": request.header("content-type"),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        _PEER: request.peer,
    }
    for name, value in request.headers:
        if name not in ("content-length", "content-type") and "_" not in name:
            variable = "HTTP_" + name.upper().replace("-", "_")
            environ[variable] = f"{environ[variable]},{value}" if variable in environ else value
    return environ


def _no_write(_data: bytes) -> object:
    raise NotImplementedError("the application returns its body")
