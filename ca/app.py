"""The ca's HTTP: `POST /v1/certificates`, `GET /v1/certificates`, `GET /v1/bundle`, and what `ca.rotation.api` adds.

docs/architecture.md has the wire.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from flask import Flask, Response, request

from ca.authority import Authority
from ca.callers import Authentication, Credentials, PodRefused
from ca.intermediate_api import add_intermediate
from ca.issue import Issuance, Issued, issued_json, rfc3339
from ca.ledger import Ledger, Record
from ca.limits import Limits
from ca.metrics import Metrics
from ca.policy import check_ttl, component_of, may_read_ledger
from ca.request import parse_request
from ca.revocation_api import add_revocations
from ca.revoking import Revoking
from ca.rotation.acknowledgements import Acknowledgements
from ca.rotation.api import RotationDeps, add_rotation
from ca.rotation.desk import Desk
from ca.rotation.observe import Observer
from ca.settings import CaSettings
from mesh.errors import Forbidden, HeddleError, InvalidInput, Unauthenticated
from serving.json_http import handle_errors, json_response, read_json
from svid.material import PodRef
from svid.schedule import RENEW_FROM
from svid.spiffe_bundle import spiffe_bundle_json
from svid.trust import News, news_json

LONGEST_NAME = 32
MAX_BODY = 96 * 1024  # a request of 64 KiB, and JSON round it

log = structlog.get_logger("ca")


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

    def operator() -> str:
        caller = deps.callers.operator(_credentials(), deps.now())
        if not may_read_ledger(caller, deps.settings):
            raise Forbidden(f"{caller.identity} is not an operator", hint=f"that is {deps.settings.operator}")
        return str(caller.identity)

    def check_operator() -> None:
        operator()

    @app.post("/v1/certificates")
    def issue() -> Response:
        started = time.perf_counter()
        deps.metrics.asked()
        try:
            csr, ttl = _read_order()
            issued = _issue(deps, csr, ttl)
        except HeddleError as error:
            deps.metrics.certificate_refused(error)
            raise
        deps.metrics.issued(issued.caller.kind, time.perf_counter() - started)
        log.info(
            "certificate issued",
            identity=str(issued.caller.identity),
            serial=issued.serial,
            caller=issued.caller.kind,
            pod=issued.caller.pod_name and f"{issued.caller.pod_namespace}/{issued.caller.pod_name}",
            not_after=rfc3339(issued.not_after),
        )
        return json_response(issued_json(issued), 201)

    @app.get("/v1/certificates")
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

    @app.after_request
    def challenge(response: Response) -> Response:
        if response.status_code == 401:
            response.headers["WWW-Authenticate"] = "Bearer"  # RFC 9110 section 11.6.1
        return response

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
    handle_errors(app, "the ca", count=deps.metrics.refused)
    return app


def _issue(deps: Deps, csr: str, ttl: int | None) -> Issued:
    credentials, address = _credentials(), request.remote_addr or ""
    shown = credentials.authorization.encode() or credentials.certificate
    deps.limits.before(shown, address, time.monotonic())
    try:
        caller = deps.callers.authenticate(credentials, deps.now())
    except Unauthenticated:
        deps.limits.failed(address, time.monotonic())
        raise
    except PodRefused as error:
        deps.refused(error.pod, error)
        raise
    pod = f"pod {caller.pod_namespace}/{caller.pod_name} ({caller.pod_uid})" if caller.pod_name else ""
    deps.limits.known(pod or str(caller.identity), shown, time.monotonic())
    try:
        return deps.issuance.issue(caller, parse_request(csr), ttl)
    except HeddleError as error:
        if caller.pod_name and error.status < 500:  # what is our own failure says nothing about the pod
            deps.refused(PodRef(caller.pod_namespace, caller.pod_name, caller.pod_uid), error)
        raise


def _read_order() -> tuple[str, int | None]:
    body = read_json(MAX_BODY)
    if not isinstance(body, dict):
        raise InvalidInput("the body is not a JSON object", hint='send {"csr": "<PEM>"}')
    unknown = sorted(body.keys() - {"csr", "ttlSeconds"})
    if unknown:
        name = unknown[0][:LONGEST_NAME]  # it is logged: a token that somebody puts here by mistake must not be
        raise InvalidInput(f"{name!r} is not a field", field=name, hint="there are csr and ttlSeconds")
    csr = body.get("csr")
    if not isinstance(csr, str):
        raise InvalidInput("there is no certificate signing request", field="csr", hint="send it as PEM")
    return csr, check_ttl(body.get("ttlSeconds"))


def _credentials() -> Credentials:
    environ = request.environ
    peer = environ.get("gunicorn.socket")
    # What getpeercert returns has been verified against our roots. Without TLS (a test client) there is none.
    certificate = peer.getpeercert(True) if isinstance(peer, ssl.SSLSocket) else None
    return Credentials(environ.get("HTTP_AUTHORIZATION", ""), environ.get("HTTP_X_HEDDLE_POD", ""), certificate or b"")


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
