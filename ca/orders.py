"""`POST /v1/certificates`: from the bytes of an order to the bytes of its answer.

`Orders.place` is the whole way, whoever brings the orders: Flask, one in a thread that may wait for the API server; or,
for what can be told at once, `Door`, as many as have come, in the thread that read them (docs/adr/0244, 0246).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from ca.authority import Authority
from ca.callers import Callers, Credentials, PodRefused
from ca.issue import Begun, Issuance, Issued, issued_json, rfc3339
from ca.limits import Limits
from ca.metrics import Metrics
from ca.policy import Caller, check_ttl
from ca.request import SignableKey, parse_request
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
class Asked:
    """What came: how to read the JSON of its body (HeddleError when there is none), who sent it, and from where."""

    read: Callable[[], object]
    credentials: Credentials
    address: str


@dataclass(slots=True)
class _Order:
    """One that is on its way. `caller`, once it has been let in."""

    asked: Asked
    csr: str = ""
    ttl: int | None = None
    caller: Caller | None = None
    key: SignableKey | None = None
    begun: Begun | None = None
    outcome: Issued | Exception | None = None


@dataclass(frozen=True, slots=True)
class Orders:
    """Issues, counts and logs. `refused` is told of each refusal of a pod that is certain to be the one that asked; it
    must neither block nor raise."""

    issuance: Issuance
    limits: Limits
    metrics: Metrics
    now: Callable[[], float]
    refused: Callable[[PodRef, HeddleError], None]

    def place(self, asked: Sequence[Asked], who: Authenticate) -> list[Issued | Exception | None]:
        """What becomes of each: the certificate; or why there is none, a HeddleError unless the fault is ours; or None,
        and nothing has happened, where `who` says None.

        All take each step together, and are recorded in one piece: so it is the same few pages of code for all of them
        that the processor has at hand, and the same pages of the ledger (docs/adr/0246).
        """
        started = time.perf_counter()
        orders = [_Order(each) for each in asked]
        left = _each(orders, _read)
        left = _each(left, partial(self._admit, who))
        left = _each(left, _parse)
        left = _each(left, self._begin)
        if left:
            self._finish(left)
        seconds = time.perf_counter() - started
        for order in orders:
            self._tell(order, seconds)
        return [order.outcome for order in orders]

    def _admit(self, who: Authenticate, order: _Order) -> bool:
        """Who asks, and whether as often as that is allowed."""
        credentials, address = order.asked.credentials, order.asked.address
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
            return False
        pod = f"pod {caller.pod_namespace}/{caller.pod_name} ({caller.pod_uid})" if caller.pod_name else ""
        self.limits.known(pod or str(caller.identity), shown, time.monotonic())
        order.caller = caller
        return True

    def _begin(self, order: _Order) -> bool:
        assert order.caller is not None
        assert order.key is not None
        order.begun = self.issuance.begin(order.caller, order.key, order.ttl)
        return True

    def _finish(self, orders: Sequence[_Order]) -> None:
        outcomes: Sequence[Issued | Exception]
        try:
            outcomes = self.issuance.finish([order.begun for order in orders if order.begun is not None])
        except Exception as error:
            outcomes = [error] * len(orders)
        for order, outcome in zip(orders, outcomes, strict=True):
            order.outcome = outcome

    def _tell(self, order: _Order, seconds: float) -> None:
        """Those who want to know: the metrics, the log, and whoever asks for the pod."""
        caller, outcome = order.caller, order.outcome
        if outcome is not None:
            self.metrics.asked()
        if isinstance(outcome, HeddleError):
            self.metrics.certificate_refused(outcome)
            if caller is not None and caller.pod_name and outcome.status < 500:  # our own failure tells nothing of it
                self.refused(PodRef(caller.pod_namespace, caller.pod_name, caller.pod_uid), outcome)
        elif isinstance(outcome, Issued):
            caller = outcome.caller
            self.metrics.issued(caller.kind, seconds)
            log.info(
                "certificate issued",
                identity=str(caller.identity),
                serial=outcome.serial,
                caller=caller.kind,
                pod=caller.pod_name and f"{caller.pod_namespace}/{caller.pod_name}",
                not_after=rfc3339(outcome.not_after),
            )


def _each(orders: Sequence[_Order], step: Callable[[_Order], bool]) -> list[_Order]:
    """Those that `step` lets go on. What it raises becomes of one, also if it is a bug, and nothing of the others."""
    left = []
    for order in orders:
        try:
            if step(order):
                left.append(order)
        except Exception as error:
            order.outcome = error
    return left


def _read(order: _Order) -> bool:
    order.csr, order.ttl = _order_of(order.asked.read())
    return True


def _parse(order: _Order) -> bool:
    order.key = parse_request(order.csr)
    return True


@dataclass(frozen=True, slots=True)
class Door:
    """The ca's HTTPS port, a `serving.gthread.Service`: orders that nobody has to be asked about at once, all else by
    `others`. `authority` has the intermediate that signs."""

    orders: Orders
    callers: Callers
    authority: Authority
    settings: CaSettings
    others: Handler

    def at_once(self, requests: Sequence[Request]) -> Sequence[Answer | None]:
        """The answers to orders, unless the API server or another signer has to be waited for."""
        asked = [_asked(each) if each.target == PATH and each.method == "POST" else None for each in requests]
        orders = [each for each in asked if each is not None]
        if not orders or not self.authority.is_ready(self.settings.max_ttl):
            return [None] * len(requests)
        outcomes = iter(self.orders.place(orders, self.callers.at_once))
        return [None if each is None else self._answer(next(outcomes)) for each in asked]

    def __call__(self, request: Request) -> Answer:
        return self.others(request)

    def _answer(self, outcome: Issued | Exception | None) -> Answer | None:
        if isinstance(outcome, Issued):
            return json_answer(201, issued_json(outcome))
        if isinstance(outcome, HeddleError):
            self.orders.metrics.refused(outcome.code)
            log.warning("refused", method="POST", path=PATH, error=str(outcome), status=outcome.status)
            return refusal(outcome, CHALLENGE)
        if outcome is not None:
            self.orders.metrics.refused("internal")
            log.error("failed", method="POST", path=PATH, exc_info=outcome)
            return error_answer(500, "internal", "the ca failed; its log says why")
        return None


def _asked(request: Request) -> Asked:
    credentials = Credentials(
        request.header("authorization"), request.header("x-heddle-pod"), request.peer.certificate()
    )
    return Asked(partial(_json_of, request), credentials, request.peer.address)


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
