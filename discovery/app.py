"""Discovery's HTTP (docs/architecture.md has the wire): agents' held requests, status and plans for operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from flask import Flask, Response, request

from discovery.feed import Feed
from discovery.findings import Finding
from discovery.gate import Gate
from discovery.hub import Hub
from discovery.sessions import Reply, Sessions
from discovery.status import ProxyStatus, missing, status_json
from discovery.views import of_session, plan_json
from mesh.errors import Forbidden, InvalidInput, NotFound, Unauthenticated
from mesh.identity import Identity
from mesh.objects import Key
from mesh.settings import CONTROL_NAMESPACE
from mesh.wire import MAX_HOLD_SECONDS, ConfigRequest
from serving.json_http import JSON, handle_errors, json_response, read_json
from svid.tls import peer_identity

MAX_BODY = 16 << 20
"""A first request names a version for each resource: some 100 bytes each, so this is above 100,000 of them."""
SMALL_ANSWER = 128 << 10
"""Answers below this many bytes do not wait for room."""
OPERATOR_ACCOUNT = "heddle-operator"
ORDINARY = (404, 410, 503)
"""Answers that are part of the wire: a pod not known yet, a session of before a restart, a restart."""

Peer = Callable[[dict[str, Any]], Identity]


@dataclass(frozen=True, slots=True)
class Deps:
    """Everything that the app works with; nothing is read or opened by it.

    `peer` gives the verified identity of a request's caller from its WSGI environment, or raises Unauthenticated.
    `bare` gives the status of proxies without an agent, with what is wrong in their plans.
    """

    hub: Hub
    sessions: Sessions
    feed: Feed
    peer: Peer
    gate: Gate
    bare: Callable[[], Iterable[tuple[ProxyStatus, tuple[Finding, ...]]]]


def create_app(deps: Deps) -> Flask:
    """The Flask application of the HTTPS port."""
    app = Flask("discovery", static_folder=None)

    @app.post("/v1/config")
    def config() -> Response:
        caller = deps.peer(request.environ)
        reply = deps.sessions.poll(ConfigRequest.parse(read_json(MAX_BODY)), caller)
        return Response(status=204) if reply is None else _answer(deps.gate, reply)

    @app.post("/v1/report")
    def report() -> Response:
        caller = deps.peer(request.environ)
        deps.sessions.report(ConfigRequest.parse(read_json(MAX_BODY)), caller)
        return Response(status=204)

    @app.get("/v1/status")
    def status() -> Response:
        _check_operator(deps)
        body: dict[str, Any] = {}
        if "observed" in request.args or "wait" in request.args:
            body = _await_applied(deps.hub)
        return json_response(_status(deps) | body, 200)

    @app.get("/v1/plan/<namespace>/<pod>")
    def plan(namespace: str, pod: str) -> Response:
        _check_operator(deps)
        key = Key(namespace, pod)
        found = next((session for session in deps.sessions if session.key == key), None)
        if found is None or found.compiled.plan is None:
            raise NotFound(f"no proxy of the pod {key} is connected here", hint="/v1/status lists those that are")
        return json_response(plan_json(found.compiled.plan), 200)

    handle_errors(app, "discovery", ordinary=ORDINARY)
    return app


def _answer(gate: Gate, reply: Reply) -> Response:
    size = sum(len(resource) for entries in reply.delta.changed.values() for _, resource in entries.values())
    if size < SMALL_ANSWER:
        return Response(encode(reply), 200, mimetype=JSON)
    leave = gate.enter(size)
    try:
        response = Response(encode(reply), 200, mimetype=JSON)
    except BaseException:
        leave()
        raise
    response.call_on_close(leave)
    return response


def encode(reply: Reply) -> bytes:
    """The body of a 200. Resources are JSON already and go in as they are."""
    changed = {
        kind: {
            name: {"version": version, "resource": orjson.Fragment(resource)}
            for name, (version, resource) in entries.items()
        }
        for kind, entries in reply.delta.changed.items()
    }
    return orjson.dumps(
        {
            "session": reply.session,
            "sequence": reply.sequence,
            "changed": changed,
            "removed": reply.delta.removed,
        }
    )


def _check_operator(deps: Deps) -> None:
    caller = deps.peer(request.environ)
    if (caller.namespace, caller.service_account) != (CONTROL_NAMESPACE, OPERATOR_ACCOUNT):
        raise Forbidden(
            f"{caller} is not an operator", hint=f"the service account is {CONTROL_NAMESPACE}/{OPERATOR_ACCOUNT}"
        )


def _await_applied(hub: Hub) -> dict[str, Any]:
    """Hold until the change that `observed` names is applied by all connected proxies, and say how long that took."""
    observed, hold = int(_number("observed", math.inf)), _number("wait", MAX_HOLD_SECONDS)
    moment = hub.applied_by_all(observed, request.args.get("kind", ""), hold)
    if moment is None or moment.applied is None:
        return {"applied": False}
    return {"applied": True, "appliedSeconds": round(moment.applied - moment.arrived, 6)}


def _number(name: str, most: float) -> float:
    text = request.args.get(name, "0")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= most or math.isinf(value):
        above = "" if math.isinf(most) else f" to {most:g}"
        raise InvalidInput(f"must be a number from 0{above}, got {text!r}", field=name)
    return value


def _status(deps: Deps) -> dict[str, Any]:
    findings = deps.feed.findings()
    proxies: list[ProxyStatus] = []
    for session in deps.sessions:
        proxies.append(of_session(session))
        findings.extend(session.compiled.findings)
    for state, found in deps.bare():
        proxies.append(state)
        findings.extend(found)
    moment = deps.hub.moment
    if moment is None:
        return status_json(0, False, proxies, findings)
    proxies.extend(missing(moment.snapshot, [proxy.key for proxy in proxies]))
    return status_json(moment.snapshot.resource_version, True, proxies, findings)


def verified_peer(environ: dict[str, Any]) -> Identity:
    """The caller's SPIFFE ID, under gunicorn with TLS."""
    identity = peer_identity(environ["gunicorn.socket"])
    if identity is None:
        raise Unauthenticated("the caller showed no certificate", hint="connect with the pod's SVID")
    return identity
