"""The ca's HTTP: `POST /v1/certificates` (`ca.orders`), `GET /v1/certificates`, `GET /v1/bundle`, and what
`ca.rotation.api` adds.

docs/architecture.md has the wire.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from flask import Flask, Response, request

from ca.authority import Authority
from ca.callers import Authentication, Credentials
from ca.intermediate_api import add_intermediate
from ca.issue import Issuance, issued_json, rfc3339
from ca.ledger import Ledger, Record
from ca.limits import Limits
from ca.metrics import Metrics
from ca.orders import CHALLENGE, MAX_BODY, PATH, Asked, Orders
from ca.policy import component_of, may_read_ledger
from ca.revocation_api import add_revocations
from ca.revoking import Revoking
from ca.rotation.acknowledgements import Acknowledgements
from ca.rotation.api import RotationDeps, add_rotation
from ca.rotation.desk import Desk
from ca.rotation.observe import Observer
from ca.settings import CaSettings
from mesh.errors import Forbidden, HeddleError
from serving.json_http import handle_errors, json_response, read_json
from serving.wsgi import peer_of
from svid.material import PodRef
from svid.schedule import RENEW_FROM
from svid.spiffe_bundle import spiffe_bundle_json
from svid.trust import News, news_json


@dataclass(frozen=True, slots=True)
class Deps:
    """Everything that the app works with; nothing is read or opened by it."""

    settings: CaSettings
    callers: Authentication
    authority: Authority
    issuance: Issuance
    ledger: Ledger
    news: Callable[[], News]
    desk: Desk
    revoking: Revoking
    observer: Observer
    acknowledgements: Acknowledgements
    metrics: Metrics
    limits: Limits
    now: Callable[[], float]
    replica: str = ""  # the own pod's name; "" where there is one ca
    # Told of each refusal of a pod that is certain to be the one that asked; must neither block nor raise.
    refused: Callable[[PodRef, HeddleError], None] = lambda _pod, _error: None


def create_app(deps: Deps) -> Flask:
    """The Flask application."""
    app = Flask("ca", static_folder=None)
    orders = orders_of(deps)

    def operator() -> str:
        caller = deps.callers.operator(_credentials(), deps.now())
        if not may_read_ledger(caller, deps.settings):
            raise Forbidden(f"{caller.identity} is not an operator", hint=f"that is {deps.settings.operator}")
        return str(caller.identity)

    def check_operator() -> None:
        operator()

    @app.post(PATH)
    def issue() -> Response:
        read, address = partial(read_json, MAX_BODY), request.remote_addr or ""
        (outcome,) = orders.place([Asked(read, _credentials(), address)], deps.callers.authenticate)
        if isinstance(outcome, Exception):
            raise outcome
        assert outcome is not None  # `authenticate` always knows
        return json_response(issued_json(outcome), 201)

    @app.get(PATH)
    def ledger() -> Response:
        check_operator()
        now = deps.now()
        records = deps.ledger.list(valid_at=None if "all" in request.args else now)
        # Of this replica alone: what all of them issued is in the WorkloadCertificates (docs/adr/0121).
        replica = {"replica": deps.replica} if deps.replica else {}
        return json_response({**replica, "certificates": [record_json(record, now) for record in records]}, 200)

    @app.get("/v1/bundle")
    def bundle() -> Response:
        return json_response(news_json(deps.news()), 200)

    @app.get("/v1/spiffe-bundle")
    def spiffe_bundle() -> Response:
        return json_response(spiffe_bundle_json(deps.news().bundle, deps.settings.refresh_hint), 200)

    add_revocations(app, deps.revoking, operator, deps.settings.trust_domain)
    add_intermediate(app, deps.authority, check_operator)

    def check_peer() -> None:
        identity = deps.callers.operator(_credentials(), deps.now()).identity
        if identity != deps.settings.ca:
            check_operator()

    add_rotation(
        app,
        RotationDeps(
            desk=deps.desk,
            observer=deps.observer,
            acknowledgements=deps.acknowledgements,
            operator=check_operator,
            component=lambda: component_of(deps.callers.authenticate(_credentials(), deps.now()), deps.settings),
            peer=check_peer,
            news=deps.news,
            now=deps.now,
        ),
    )
    handle_errors(app, "the ca", count=deps.metrics.refused, challenge=CHALLENGE)
    return app


def orders_of(deps: Deps) -> Orders:
    """How certificates are issued."""
    return Orders(deps.issuance, deps.limits, deps.metrics, deps.now, deps.refused)


def _credentials() -> Credentials:
    environ = request.environ
    peer = peer_of(environ)  # of the operators' socket, or of a test client, there is none
    certificate = peer.certificate() if peer is not None else b""
    return Credentials(environ.get("HTTP_AUTHORIZATION", ""), environ.get("HTTP_X_HEDDLE_POD", ""), certificate)


def record_json(record: Record, now: float) -> dict[str, object]:
    """One ledger entry for people and tools; `secondsToRenewal` counts to the earliest that it is renewed."""
    start = max(record.not_before, int(record.prepared_at))
    renewal = start + RENEW_FROM * (record.not_after - start)
    return {
        "serial": record.serial,
        "identity": record.identity,
        "caller": record.caller,
        "proof": record.proof,
        "pod": {"namespace": record.pod_namespace, "name": record.pod_name, "uid": record.pod_uid},
        "node": record.node,
        "key": {"kind": record.key_kind, "sha256": record.key_fingerprint},
        "issuer": record.issuer,
        "root": record.root,
        "issuedAt": rfc3339(int(record.prepared_at)),
        "notBefore": rfc3339(record.not_before),
        "notAfter": rfc3339(record.not_after),
        "state": record.state,
        "secondsToRenewal": max(0, int(renewal - now)),
        "secondsToExpiry": max(0, int(record.not_after - now)),
    }
