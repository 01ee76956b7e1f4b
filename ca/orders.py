"""`POST /v1/certificates`: from the bytes of an order to the bytes of its answer.

`Orders.place` is the whole way, whoever brings the order: Flask, in a thread that may wait for the API server; or, for
what can be told at once, `Door`, in the thread that read it (docs/adr/0244).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from ca.authority import Authority
from ca.callers import Callers, Credentials, PodRefused
from ca.issue import Issuance, Issued, issued_json, rfc3339
from ca.limits import Limits
from ca.metrics import Metrics
from ca.policy import Caller, check_ttl
from ca.request import parse_request
from ca.settings import CaSettings
from mesh.errors import HeddleError, InvalidInput, TooLarge, Unauthenticated
from serving.http1 import Answer, Handler, Request, error_answer, json_answer
from serving.json_http import parse_json, refusal
from svid.material import PodRef

PATH = "/v1/certificates"
CHALLENGE = "Bearer"
LONGEST_NAME = 32
MAX_BODY = 96 * 1024  # a request of 64 KiB, and JSON round it

Authenticate = Callable[[Credentials, float], Caller | None]

log = structlog.get_logger("ca")


@dataclass(frozen=True, slots=True)
class Orders:
    """Issues, counts and logs. `refused` is told of each refusal of a pod that is certain to be the one that asked; it
    must neither block nor raise."""

    issuance: Issuance
    limits: Limits
    metrics: Metrics
    now: Callable[[], float]
    refused: Callable[[PodRef, HeddleError], None]

    def place(
        self, read: Callable[[], object], credentials: Credentials, address: str, who: Authenticate
    ) -> Issued | None:
        """The certificate that the JSON of `read` asks for. None, and nothing has happened, when `who` says None.

        Raises HeddleError."""
        started = time.perf_counter()
        try:
            csr, ttl = _order_of(read())
            issued = self._issued(csr, ttl, credentials, address, who)
        except HeddleError as error:
            self.metrics.asked()
            self.metrics.certificate_refused(error)
            raise
        if issued is None:
            return None
        caller = issued.caller
        self.metrics.asked()
        self.metrics.issued(caller.kind, time.perf_counter() - started)
        log.info(
            "certificate issued",
            identity=str(caller.identity),
            serial=issued.serial,
            caller=caller.kind,
            pod=caller.pod_name and f"{caller.pod_namespace}/{caller.pod_name}",
            not_after=rfc3339(issued.not_after),
        )
        return issued

    def _issued(
        self, csr: str, ttl: int | None, credentials: Credentials, address: str, who: Authenticate
    ) -> Issued | None:
        shown = credentials.authorization.encode() or credentials.certificate
        self.limits.before(shown, address, time.monotonic())
        try:
            caller = who(credentials, self.now())
        except Unauthenticated:
            self.limits.failed(address, time.monotonic())
            raise
        except PodRefused as error:
            self.refused(error.pod, error)
            raise
        if caller is None:
            return None
        pod = f"pod {caller.pod_namespace}/{caller.pod_name} ({caller.pod_uid})" if caller.pod_name else ""
        self.limits.known(pod or str(caller.identity), shown, time.monotonic())
        try:
            return self.issuance.issue(caller, parse_request(csr), ttl)
        except HeddleError as error:
            if caller.pod_name and error.status < 500:  # what is our own failure says nothing about the pod
                self.refused(PodRef(caller.pod_namespace, caller.pod_name, caller.pod_uid), error)
            raise


@dataclass(frozen=True, slots=True)
class Door:
    """The ca's HTTPS port, a `serving.gthread.Service`: orders that nobody has to be asked about at once, all else by
    `others`. `authority` has the intermediate that signs."""

    orders: Orders
    callers: Callers
    authority: Authority
    settings: CaSettings
    others: Handler

    def at_once(self, request: Request) -> Answer | None:
        """The answer to an order, unless the API server or another signer has to be waited for."""
        if request.target != PATH or request.method != "POST" or not self.authority.is_ready(self.settings.max_ttl):
            return None
        credentials = Credentials(
            request.header("authorization"), request.header("x-heddle-pod"), request.peer.certificate()
        )
        read = partial(_json_of, request)
        try:
            issued = self.orders.place(read, credentials, request.peer.address, self.callers.at_once)
        except HeddleError as error:
            self.orders.metrics.refused(error.code)
            log.warning("refused", method=request.method, path=PATH, error=str(error), status=error.status)
            return refusal(error, CHALLENGE)
        except Exception:
            self.orders.metrics.refused("internal")
            log.exception("failed", method=request.method, path=PATH)
            return error_answer(500, "internal", "the ca failed; its log says why")
        return None if issued is None else json_answer(201, issued_json(issued))

    def __call__(self, request: Request) -> Answer:
        return self.others(request)


def _json_of(request: Request) -> object:
    if len(request.body) > MAX_BODY:
        raise TooLarge(f"a body is at most {MAX_BODY} bytes long")
    return parse_json(request.header("content-type"), request.body)


def _order_of(body: object) -> tuple[str, int | None]:
    """The request (PEM) and the life that is asked for, in seconds."""
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
