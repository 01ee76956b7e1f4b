"""Discovery's HTTP for operators: status and plans (docs/architecture.md has the wire). polls.py is that for agents."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, request

from discovery import proxy_configs
from discovery.feed import Feed
from discovery.findings import Finding
from discovery.hub import Hub
from discovery.peers import ACCOUNT as DISCOVERY_ACCOUNT
from discovery.peers import PATH as TALLY_PATH
from discovery.peers import tally_json
from discovery.polls import ORDINARY
from discovery.preflight.desk import ACCOUNT as WEBHOOK_ACCOUNT
from discovery.preflight.desk import MAX_BODY as PREFLIGHT_BODY
from discovery.preflight.desk import PATH as PREFLIGHT_PATH
from discovery.preflight.desk import PreflightDesk
from discovery.sessions import Sessions
from discovery.status import ProxyStatus, missing, status_json
from discovery.status_writer import Tallies
from discovery.trust import trust_json
from discovery.views import of_session, plan_json
from mesh.errors import Forbidden, InvalidInput, NotFound
from mesh.identity import CONTROL_NAMESPACE, Identity
from mesh.objects import Key
from mesh.wire import MAX_HOLD_SECONDS
from serving.json_http import handle_errors, json_response, read_json
from serving.wsgi import Environ

OPERATOR_ACCOUNT, CA_ACCOUNT = "heddle-operator", "heddle-ca"
TRUST_PATH = "/v1/trust"


@dataclass(frozen=True, slots=True)
class Deps:
    """Everything that the app works with; nothing is read or opened by it.

    `bare` gives the status of proxies without an agent, with what is wrong in their plans.
    """

    hub: Hub
    sessions: Sessions
    feed: Feed
    peer: Callable[[Environ], Identity]
    bare: Callable[[], Iterable[tuple[ProxyStatus, tuple[Finding, ...]]]]
    tallies: Tallies
    control_namespace: str = CONTROL_NAMESPACE
    preflight: PreflightDesk | None = None


def create_app(deps: Deps) -> Flask:
    """The Flask application of the HTTPS port."""
    app = Flask("discovery", static_folder=None)

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

    @app.get(TALLY_PATH)
    def tally() -> Response:
        caller = deps.peer(request.environ)
        if (caller.namespace, caller.service_account) != (deps.control_namespace, DISCOVERY_ACCOUNT):
            raise Forbidden(f"{caller} is not a replica of discovery")
        return json_response(tally_json(deps.tallies.now()[0]), 200)

    @app.post(PREFLIGHT_PATH)
    def preflight() -> Response:
        _check_webhook(deps)
        if deps.preflight is None:
            raise NotFound("nothing is tried here")
        return json_response(deps.preflight.answer(read_json(PREFLIGHT_BODY)), 200)

    @app.get(TRUST_PATH)
    def trust() -> Response:
        caller = deps.peer(request.environ)
        if (caller.namespace, caller.service_account) != (deps.control_namespace, CA_ACCOUNT):
            _check_operator(deps)
        return json_response(trust_json(deps.sessions), 200)

    handle_errors(app, "discovery", ordinary=ORDINARY)
    return app


def _check_operator(deps: Deps) -> None:
    caller = deps.peer(request.environ)
    if (caller.namespace, caller.service_account) != (deps.control_namespace, OPERATOR_ACCOUNT):
        raise Forbidden(
            f"{caller} is not an operator", hint=f"the service account is {deps.control_namespace}/{OPERATOR_ACCOUNT}"
        )


def _check_webhook(deps: Deps) -> None:
    """The webhook, of whatever revision."""
    caller = deps.peer(request.environ)
    account = caller.service_account
    if caller.namespace != deps.control_namespace or not (
        account == WEBHOOK_ACCOUNT or account.startswith(f"{WEBHOOK_ACCOUNT}-")
    ):
        raise Forbidden(f"{caller} is not the webhook")


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
    findings.extend(proxy_configs.findings(moment.snapshot))
    proxies.extend(missing(moment.snapshot, [proxy.key for proxy in proxies]))
    return status_json(moment.snapshot.resource_version, True, proxies, findings)
