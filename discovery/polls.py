"""The agents' side of discovery's HTTP: `POST /v1/config` and `POST /v1/report` (docs/architecture.md has the wire)."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
import structlog

from discovery.gate import Gate
from discovery.sessions import Reply, Sessions
from mesh.errors import HeddleError
from mesh.wire import ConfigRequest
from serving.http1 import JSON, Answer, Handler, Request, json_answer
from serving.json_http import parse_json

SMALL_ANSWER = 128 << 10
"""Answers below this many bytes do not wait for room."""
ORDINARY = (404, 410, 503)
"""Answers that are part of the wire: a pod not known yet, a session of before a restart, a restart."""

_JSON = (("Content-Type", JSON),)
_NOTHING = Answer(204)

log = structlog.get_logger("discovery")


@dataclass(frozen=True, slots=True)
class Polls:
    """Answers agents itself, and leaves every other path to `others`."""

    sessions: Sessions
    gate: Gate
    others: Handler

    def __call__(self, request: Request) -> Answer:
        if request.target == "/v1/config":
            answer = self._config
        elif request.target == "/v1/report":
            answer = self._report
        else:
            return self.others(request)
        if request.method != "POST":
            refused = {"code": "method-not-allowed", "message": f"{request.target} is asked by POST"}
            return json_answer(405, {"error": refused}, ("Allow", "POST"))
        try:
            return answer(request)
        except HeddleError as error:
            level = log.info if error.status in ORDINARY else log.warning
            level("refused", method="POST", path=request.target, error=str(error), status=error.status)
            return json_answer(error.status, {"error": error.as_json()})

    def _config(self, request: Request) -> Answer:
        caller = request.caller()
        reply = self.sessions.poll(_message(request), caller)
        return _NOTHING if reply is None else self._encoded(reply)

    def _report(self, request: Request) -> Answer:
        caller = request.caller()
        self.sessions.report(_message(request), caller)
        return _NOTHING

    def _encoded(self, reply: Reply) -> Answer:
        size = sum(len(resource) for entries in reply.delta.changed.values() for _, resource in entries.values())
        if size < SMALL_ANSWER:
            return Answer(200, encode(reply), _JSON)
        leave = self.gate.enter(size)
        try:
            return Answer(200, encode(reply), _JSON, leave)
        except BaseException:
            leave()
            raise


def _message(request: Request) -> ConfigRequest:
    return ConfigRequest.parse(parse_json(request.header("content-type"), request.body))


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
