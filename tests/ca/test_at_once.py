"""Orders that are answered in the thread that read them: which they are, and that they are judged as all others."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ca.audit import AuditLog
from ca.authority import Authority
from ca.callers import Callers, Credentials
from ca.issue import Issuance
from ca.ledger import Ledger
from ca.limits import Limits
from ca.metrics import Metrics
from ca.orders import MAX_BODY, PATH, Door, Orders
from ca.pods import STALE, PodWatch
from ca.request import SignableKey, parse_request
from ca.serials import RANDOM_BYTES, leaf_serial
from ca.settings import CaSettings, Rate
from ca.store import DirectoryStore
from kube.source import Changed, Listed
from kube.tokens import KeysVerifier, ReviewVerifier
from mesh.errors import Forbidden, HeddleError, Unauthenticated
from serving.http1 import Answer, Peer, Request
from svid.client import Token, fetch
from svid.material import PodRef
from svid.request import new_key_request
from tests.ca.harness import ISSUER, CaProcess, TokenMint
from tests.support.chains import DER, Chain

POD = PodRef("default", "reviews-1", "uid-1")


def manifest(**change: Any) -> dict[str, Any]:
    metadata = {"namespace": POD.namespace, "name": POD.name, "uid": POD.uid, **change}
    return {"metadata": metadata, "spec": {"serviceAccountName": "reviews", "nodeName": "node-1"}, "status": {}}


class Place:
    """Callers as the ca has them, with a watch that is fed by hand and nobody to ask."""

    def __init__(self, mint: TokenMint) -> None:
        self.clock, self.asked, self.now = 0.0, 0, time.time()
        self.pods = PodWatch(self._ask, lambda: self.clock)
        self.pods.take(Listed("Pod", (manifest(),), 1))
        self.keys = KeysVerifier(lambda: json.dumps(mint.jwks()), issuer=ISSUER, audience="istio-ca")
        self.callers = Callers(CaSettings(), self.keys, self.pods, self.pods.known)

    def _ask(self, *_pod: str) -> None:
        self.asked += 1


@pytest.fixture
def place(mint: TokenMint) -> Place:
    made = Place(mint)
    made.keys.verify(mint.token("default", "reviews", POD), made.now)  # its keys are read
    return made


def bearer(mint: TokenMint, pod: PodRef | None = POD, **change: Any) -> Credentials:
    return Credentials(f"Bearer {mint.token('default', 'reviews', pod, **change)}")


def test_who_is_known_here_is_told_at_once(place: Place, mint: TokenMint) -> None:
    serial = leaf_serial(POD.uid, b"r" * RANDOM_BYTES)
    leaf = Chain().odd_leaf(ec.generate_private_key(ec.SECP256R1()), {"serial": serial}).public_bytes(DER)
    for credentials in (bearer(mint), Credentials(pod="default/reviews-1/uid-1", certificate=leaf)):
        found = place.callers.at_once(credentials, place.now)
        assert found is not None
        assert found == place.callers.authenticate(credentials, place.now)
    assert place.asked == 0


def test_who_would_have_to_be_asked_about_is_not(place: Place, mint: TokenMint) -> None:
    assert Place(mint).callers.at_once(bearer(mint), place.now) is None, "no keys have been read"
    assert place.callers.at_once(bearer(mint), place.now + 1000) is None, "keys are old"
    assert place.callers.at_once(bearer(TokenMint("RS256")), place.now) is None, "another key"
    assert place.callers.at_once(bearer(mint, replace(POD, name="other")), place.now) is None
    assert place.callers.at_once(bearer(mint, replace(POD, uid="other")), place.now) is None
    place.clock = STALE
    assert place.callers.at_once(bearer(mint), place.now) is None, "the watch is silent"
    review = ReviewVerifier(nobody_asks, audience="istio-ca")
    assert Callers(CaSettings(), review, place.pods, place.pods.known).at_once(bearer(mint), place.now) is None
    assert Callers(CaSettings(), place.keys, place.pods).at_once(bearer(mint), place.now) is None


def nobody_asks(*_question: object) -> None:
    raise AssertionError("somebody was asked")


def test_refusals_are_the_same(place: Place, mint: TokenMint) -> None:
    place.pods.take(Changed("Pod", manifest(deletionTimestamp="now"), False, 2))
    wrong: list[tuple[Credentials, type[HeddleError]]] = [
        (Credentials(), Unauthenticated),
        (Credentials("Basic x"), Unauthenticated),
        (Credentials("Bearer x.y.z"), Unauthenticated),
        (Credentials(bearer(mint).authorization[:-4] + "AAAA"), Unauthenticated),
        (bearer(mint, aud=["other"]), Unauthenticated),
        (bearer(mint, exp=int(place.now) - 100), Unauthenticated),
        (bearer(mint, None), Forbidden),
        (bearer(mint), Forbidden),  # its pod is being deleted
    ]
    for credentials, kind in wrong:
        for judge in (place.callers.at_once, place.callers.authenticate):
            with pytest.raises(kind):
                judge(credentials, place.now)
    assert place.asked == 0


@pytest.mark.parametrize("change", [{"target": PATH + "?x"}, {"target": "/v1/bundle"}, {"method": "GET"}])
def test_what_is_no_order_is_left_to_the_others(change: dict[str, str]) -> None:
    class Ready:
        def is_ready(self, _ttl: int) -> bool:
            return True

    other = Answer(200, b"other")
    door = Door(None, None, Ready(), CaSettings(), lambda _: other)  # type: ignore[arg-type]
    request = replace(Request("POST", PATH, (), b"", Peer(None), False), **change)  # type: ignore[arg-type]
    assert door.at_once([request]) == [None]
    assert door(request) is other


def test_orders_that_came_together_are_answered_each_for_itself(
    place: Place, mint: TokenMint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, refused = CaSettings(), []
    ledger = Ledger(tmp_path / "ledger", AuditLog(tmp_path, time.time))
    authority = Authority(DirectoryStore(tmp_path), lambda: b"x" * 32, settings, time.time)
    metrics = Metrics()
    orders = Orders(
        Issuance(authority, ledger, settings, time.time),
        Limits(Rate(0.001, 2), Rate(0, 0), Rate(0, 0)),  # two for each
        metrics,
        lambda: place.now,
        lambda pod, error: refused.append((pod, error.code)),
    )
    door = Door(orders, place.callers, authority, settings, nobody_asks)
    other, third = (replace(POD, name=f"reviews-{n}", uid=f"uid-{n}") for n in (2, 3))
    for each in (other, third):
        place.pods.take(Changed("Pod", manifest(name=each.name, uid=each.uid), False, 2))

    def odd(text: str) -> SignableKey:
        if text == "a bug":
            raise ZeroDivisionError
        return parse_request(text)

    monkeypatch.setattr("ca.orders.parse_request", odd)
    good = new_key_request().csr_pem
    stranger = replace(POD, name="stranger")
    requests = [
        order(bearer(mint), good),
        order(bearer(mint, aud=["other"]), good),
        order(bearer(mint, stranger), good),
        order(bearer(mint, other), "a bug"),
        order(bearer(mint), "no request"),
        replace(order(bearer(mint), good), target="/v1/bundle"),
        order(bearer(mint), good),
        order(bearer(mint, other), new_key_request("P-384").csr_pem),
    ]
    answers = door.at_once(requests)
    assert [each and each.status for each in answers] == [201, 401, None, 500, 400, None, 429, 201]
    assert refused == [(POD, "invalid")]
    recorded = {record.serial: (record.pod_name, record.state) for record in ledger.list()}
    issued = {json.loads(each.body)["serial"]: pod for each, pod in ((answers[0], POD), (answers[7], other)) if each}
    assert recorded == {serial: (pod.name, "issued") for serial, pod in issued.items()}
    assert 'heddle_ca_certificates_issued_total{caller="token"} 2.0' in metrics.text().decode()
    ledger.close()
    answers = door.at_once([order(bearer(mint, third), new_key_request().csr_pem) for _ in range(2)])
    assert [each and each.status for each in answers] == [503, 503], "what cannot be recorded is not signed"


def order(credentials: Credentials, csr: str) -> Request:
    headers = (("content-type", "application/json"), ("authorization", credentials.authorization))
    return Request("POST", PATH, headers, json.dumps({"csr": csr}).encode(), Peer(Nobody()), False)


class Nobody:
    """The other end of a connection, without a certificate."""

    def getpeercert(self, _binary: bool = False) -> None: ...


def test_the_service_answers_both_ways_alike(ca: CaProcess, mint: TokenMint, pod: PodRef) -> None:
    """A query string takes an order the other way."""
    known = Token(mint.token("default", "reviews", pod))
    fetch(ca.address, ca.roots, new_key_request(), known)  # now the keys have been read
    good = json.dumps({"csr": new_key_request().csr_pem}).encode()
    token = f"Bearer {mint.token('default', 'reviews', pod)}"
    orders = [
        (good, {}),
        (good, {"Authorization": ""}),
        (good, {"Authorization": token[:-4] + "AAAA"}),
        (good, {"Content-Type": "text/plain"}),
        (b"[]", {}),
        (b'{"csr": "x"}', {}),
        (b'{"csr": "x", "ttl": 1}', {}),
        (b'{"csr": "%s"}' % (b"x" * MAX_BODY), {}),
    ]
    for body, change in orders:
        headers = {"Content-Type": "application/json", "Authorization": token, **change}
        headers = {name: value for name, value in headers.items() if value}
        at_once, otherwise = (ca.request("POST", path, body, headers) for path in (PATH, PATH + "?x"))
        assert at_once[0] == otherwise[0], (body[:50], change)
        if at_once[0] == 201:
            assert at_once[1].keys() == otherwise[1].keys()
        else:
            assert at_once[1] == otherwise[1]
        assert at_once[2].get("WWW-Authenticate") == otherwise[2].get("WWW-Authenticate")
        assert ("WWW-Authenticate" in at_once[2]) == (at_once[0] == 401)
