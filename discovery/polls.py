"""The agents' side of discovery's HTTP: `POST /v1/config` and `POST /v1/report` (docs/architecture.md has the wire).

A WSGI application below Flask: each change of the mesh brings an answer and a new request for every proxy, and Flask's
routing and request objects would cost as much as the work (docs/adr/0054-polls-below-flask.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import orjson
import structlog

from discovery.gate import Gate
from discovery.sessions import Reply, Sessions
from mesh.errors import HeddleError, Unauthenticated
from mesh.identity import Identity
from mesh.wire import ConfigRequest
from serving.json_http import JSON, json_of
from svid.tls import peer_identity

MAX_BODY = 16 << 20
"""A first request names a version for each resource: some 100 bytes each, so this is above 100,000 of them."""
SMALL_ANSWER = 128 << 10
"""Answers below this many bytes do not wait for room."""
ORDINARY = (404, 410, 503)
"""Answers that are part of the wire: a pod not known yet, a session of before a restart, a restart."""

Environ = dict[str, Any]
Peer = Callable[[Environ], Identity]
"""The verified identity of a request's caller, from its WSGI environment; raises Unauthenticated."""

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

log = structlog.get_logger("discovery")


@dataclass(frozen=True, slots=True)
class Polls:
    """Answers agents itself, and leaves every other path to `others`."""

    sessions: Sessions
    gate: Gate
    peer: Peer
    others: WSGIApplication

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/v1/config":
            answer = self._config
        elif path == "/v1/report":
            answer = self._report
        else:
            return self.others(environ, start_response)
        if environ["REQUEST_METHOD"] != "POST":
            refused = {"code": "method-not-allowed", "message": f"{path} is asked by POST"}
            return _send(start_response, 405, orjson.dumps({"error": refused}), ("Allow", "POST"))
        try:
            body = answer(environ)
        except HeddleError as error:
            level = log.info if error.status in ORDINARY else log.warning
            level("refused", method="POST", path=path, error=str(error), status=error.status)
            return _send(start_response, error.status, orjson.dumps({"error": error.as_json()}))
        except Exception:
            log.exception("failed", method="POST", path=path)
            failed = {"code": "internal", "message": "discovery failed; its log says why"}
            return _send(start_response, 500, orjson.dumps({"error": failed}))
        if body is None:
            start_response(_line(204), [])
            return ()
        return _send(start_response, 200, body)

    def _config(self, environ: Environ) -> bytes | _Leaving | None:
        caller = self.peer(environ)
        reply = self.sessions.poll(ConfigRequest.parse(json_of(environ, MAX_BODY)), caller)
        return None if reply is None else self._encoded(reply)

    def _report(self, environ: Environ) -> None:
        caller = self.peer(environ)
        self.sessions.report(ConfigRequest.parse(json_of(environ, MAX_BODY)), caller)

    def _encoded(self, reply: Reply) -> bytes | _Leaving:
        size = sum(len(resource) for entries in reply.delta.changed.values() for _, resource in entries.values())
        if size < SMALL_ANSWER:
            return encode(reply)
        leave = self.gate.enter(size)
        try:
            return _Leaving(encode(reply), leave)
        except BaseException:
            leave()
            raise


@dataclass(frozen=True, slots=True)
class _Leaving:
    """A body that gives its room back when it is sent, or cannot be."""

    body: bytes
    leave: Callable[[], None]

    def __len__(self) -> int:
        return len(self.body)

    def __iter__(self) -> Iterator[bytes]:
        yield self.body

    def close(self) -> None:
        """Called by the server in any case (PEP 3333)."""
        self.leave()


def _send(
    start_response: StartResponse, status: int, body: bytes | _Leaving, *headers: tuple[str, str]
) -> Iterable[bytes]:
    start_response(_line(status), [("Content-Type", JSON), ("Content-Length", str(len(body))), *headers])
    return (body,) if isinstance(body, bytes) else body


def _line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


def encode(reply: Reply) -> bytes:
    """The body of a 200. Resources are JSON already and go in as they are."""
    changed = {
        kind: {
            name: {"version": version, "resource": orjson.Fragment(resource)}
            for name, (version, resource) in entries.items()
        }
        for kind, entries in reply.delta.changed.items()
    }
    body = {
        "session": reply.session,
        "sequence": reply.sequence,
        "changed": changed,
        "removed": reply.delta.removed,
    }
    if reply.trust:
        body["trust"] = orjson.Fragment(reply.trust)
    return orjson.dumps(body)


class VerifiedPeers:
    """The callers' SPIFFE IDs, under gunicorn with TLS. A certificate is read once for each connection."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Any, Identity] = WeakKeyDictionary()

    def __call__(self, environ: Environ) -> Identity:
        connection = environ["gunicorn.socket"]
        identity = self._known.get(connection)
        if identity is None:
            identity = peer_identity(connection)
            if identity is None:
                raise Unauthenticated("the caller showed no certificate", hint="connect with the pod's SVID")
            self._known[connection] = identity
        return identity
