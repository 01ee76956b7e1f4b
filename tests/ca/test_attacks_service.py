"""Attacks on the ca as it runs: lives that are none, certificates that prove nothing, peers that are slow or rude, and
an API server that is down or slow."""

from __future__ import annotations

import contextlib
import itertools
import json
import resource
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ca.callers import identity_of_certificate
from ca.passphrase import passphrase_from
from ca.serials import RANDOM_BYTES, leaf_serial
from ca.store import DirectoryStore
from mesh.errors import Unauthenticated
from svid.client import Refused, Token, Unreachable, fetch, fetch_bundle
from svid.material import PodRef, SvidMaterial
from svid.request import new_key_request
from svid.tls import client_context
from tests.ca.harness import ApiServer, CaProcess, TokenMint
from tests.support.chains import DER, PEM, REVIEWS, URI, Chain, key_pem, odd_certificate, uris, usage
from tests.support.waiting import wait_for

UNKNOWN = x509.ObjectIdentifier("1.2.3.4.5")
ROOM = 200  # descriptors for everything but the idle connections


@pytest.fixture
def token(mint: TokenMint, pod: PodRef) -> str:
    return mint.token("default", "reviews", pod)


def post(ca: CaProcess, token: str, body: bytes) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    status, answer, _ = ca.request("POST", "/v1/certificates", body, headers)
    return status, answer


@pytest.mark.parametrize(
    "ttl",
    ["0", "-1", "-86400", "1.5", "1e3", '"60"', '""', "true", "false", "[]", "{}", "1e400", "9" * 400, "-0", "0x10"],
)
def test_lives_that_are_none(ca: CaProcess, token: str, ttl: str) -> None:
    csr = json.dumps(new_key_request().csr_pem)
    status, answer = post(ca, token, f'{{"csr": {csr}, "ttlSeconds": {ttl}}}'.encode())
    assert status == 400, answer
    assert answer["error"]["field"] in ("ttlSeconds", "body")


@pytest.mark.parametrize("ttl", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_has_not(ca: CaProcess, token: str, ttl: str) -> None:
    status, answer = post(ca, token, b'{"csr": "x", "ttlSeconds": %s}' % ttl.encode())
    assert (status, answer["error"]["field"]) == (400, "body")


def test_a_life_of_a_million_years_is_a_week(ca: CaProcess, token: str) -> None:
    csr = new_key_request().csr_pem
    status, answer = post(ca, token, json.dumps({"csr": csr, "ttlSeconds": 2**62}).encode())
    assert status == 201
    ends = time.mktime(time.strptime(answer["notAfter"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
    assert ends <= time.time() + 7 * 86400


def test_one_key_twice_in_the_body_is_no_way_round(ca: CaProcess, token: str) -> None:
    csr = json.dumps(new_key_request().csr_pem)
    status, answer = post(ca, token, f'{{"csr": {csr}, "ttlSeconds": 60, "ttlSeconds": -1}}'.encode())
    assert (status, answer["error"]["field"]) == (400, "ttlSeconds")


# Renewal: the certificate must be a leaf of this trust domain, valid, and the pod one of its service account.


def stolen(ca: CaProcess) -> Chain:
    """With the ca's own root key, so that TLS verifies what it signs."""
    documents = DirectoryStore(ca.state).read()
    assert documents is not None
    pem = documents.documents["root.pem"].encode()
    passphrase = passphrase_from(ca.state / "root-passphrase", create=False)
    key: Any = serialization.load_pem_private_key(pem, passphrase)
    return Chain(root_key=key, root=x509.load_pem_x509_certificate(pem))


def holding(ca: CaProcess, chain: Chain, changes: dict[str, Any], now: int | None = None) -> SvidMaterial:
    """What a caller holds that has such a leaf."""
    key = ec.generate_private_key(ec.SECP256R1())
    changes = {"serial": leaf_serial("uid-1", secrets.token_bytes(RANDOM_BYTES))} | changes
    leaf = odd_certificate(key.public_key(), chain.intermediate, chain.key, now or chain.now, changes)
    shown = leaf.public_bytes(PEM) + chain.intermediate.public_bytes(PEM)
    return SvidMaterial(REVIEWS, "1", 0, 2**40, key_pem(key), shown, fetch_bundle(ca.address, ca.roots))


BAD_LEAVES: dict[str, dict[str, Any]] = {
    "authority": {"constraints": (x509.BasicConstraints(ca=True, path_length=None), True)},
    "may-sign": {"usage": (usage("digital_signature", "key_cert_sign"), True)},
    "no-key-usage": {"usage": None},
    "two-uris": {"names": (uris(URI, URI + "2"), True)},
    "no-path": {"names": (uris("spiffe://cluster.local"), True)},
    "another-trust-domain": {"names": (uris("spiffe://other.example/ns/default/sa/reviews"), True)},
    "another-account": {"names": (uris("spiffe://cluster.local/ns/default/sa/ratings"), True)},
    "unknown-critical-extension": {"more": [(x509.UnrecognizedExtension(UNKNOWN, b"\x05\x00"), True)]},
    "another-pods-serial": {"serial": leaf_serial("uid-2", b"r" * RANDOM_BYTES)},
    "nobodys-serial": {"serial": 0xD0 << 120},
}


def test_renewal_with_a_good_leaf_of_the_roots_own_key(ca: CaProcess, pod: PodRef) -> None:
    """What the next test changes one thing of."""
    assert fetch(ca.address, ca.roots, new_key_request(), holding(ca, stolen(ca), {}), pod=pod).identity == REVIEWS


@pytest.mark.parametrize("name", BAD_LEAVES)
def test_renewal_with_a_leaf_that_is_none(ca: CaProcess, pod: PodRef, name: str) -> None:
    """Even by the root's own key. Some of it TLS refuses, the rest we do."""
    with pytest.raises((Refused, Unreachable)) as refused:
        fetch(ca.address, ca.roots, new_key_request(), holding(ca, stolen(ca), BAD_LEAVES[name]), pod=pod)
    assert isinstance(refused.value, Unreachable) or refused.value.status in (401, 403)


def test_renewal_with_an_expired_certificate(ca: CaProcess, pod: PodRef) -> None:
    chain = stolen(ca)
    with pytest.raises(Unreachable):
        fetch(ca.address, ca.roots, new_key_request(), holding(ca, chain, {}, chain.now - 2 * 86400), pod=pod)


def test_renewal_with_a_certificate_that_expired_while_the_connection_was_kept(ca: CaProcess) -> None:
    chain = stolen(ca)
    leaf = chain.odd_leaf(ec.generate_private_key(ec.SECP256R1()), {}).public_bytes(DER)
    assert identity_of_certificate(leaf, chain.now)[0] == REVIEWS
    for moment in (chain.now - 2 * 86400, chain.now + 2 * 86400):
        with pytest.raises(Unauthenticated, match="not valid now"):
            identity_of_certificate(leaf, moment)


def test_renewal_with_one_of_a_root_that_went(ca: CaProcess, pod: PodRef) -> None:
    """A root of the same name that is no longer in the bundle."""
    with pytest.raises(Unreachable):
        fetch(ca.address, ca.roots, new_key_request(), holding(ca, Chain(), {}), pod=pod)


def test_renewal_under_the_name_of_a_sibling(ca: CaProcess, api: ApiServer, mint: TokenMint, pod: PodRef) -> None:
    """Of the same service account, on the same node, alive: whoever has stolen the key of one that is gone by now."""
    sibling = api.add_pod("default", "reviews-2", "uid-sibling", "reviews")
    gone = api.add_pod("default", "reviews-3", "uid-gone", "reviews")
    held = fetch(ca.address, ca.roots, new_key_request(), Token(mint.token("default", "reviews", gone)))
    assert fetch(ca.address, ca.roots, new_key_request(), held, pod=gone).identity == REVIEWS
    api.remove_pod("default", "reviews-3")
    for other in (sibling, pod, PodRef("default", "reviews-3", sibling.uid), PodRef("default", "reviews-2", gone.uid)):
        with pytest.raises(Refused) as refused:
            fetch(ca.address, ca.roots, new_key_request(), held, pod=other)
        assert refused.value.status == 403


def test_a_token_that_was_taken_to_another_node(ca: CaProcess, mint: TokenMint, pod: PodRef) -> None:
    private = mint.claims("default", "reviews", pod)["kubernetes.io"]

    def ask(node: str) -> SvidMaterial:
        bound = {"kubernetes.io": {**private, "node": {"name": node, "uid": "n"}}}
        return fetch(ca.address, ca.roots, new_key_request(), Token(mint.token("default", "reviews", pod, **bound)))

    assert ask("node-1").identity == REVIEWS
    with pytest.raises(Refused, match="runs on node node-1, and the token is of node node-2"):
        ask("node-2")


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("deleted", {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, "is being deleted"),
        ("succeeded", {"status": {"phase": "Succeeded"}}, "has finished"),
        ("failed", {"status": {"phase": "Failed"}}, "has finished"),
    ],
)
def test_a_pod_at_its_end(ca: CaProcess, api: ApiServer, mint: TokenMint, name: str, change: Any, said: str) -> None:
    """By its token, and by the certificate from before."""
    ending = api.add_pod("default", name, f"uid-{name}", "reviews")
    token = mint.token("default", "reviews", ending)
    held = fetch(ca.address, ca.roots, new_key_request(), Token(token))
    there = api.pods["default", name]
    there["metadata"] |= change.get("metadata", {})
    there["status"] = change.get("status", {})
    api._tell("MODIFIED", there)
    credentials: tuple[Token | SvidMaterial, ...] = (Token(token), held)
    for credential in credentials:

        def refused(credential: Token | SvidMaterial = credential) -> bool:
            try:
                fetch(ca.address, ca.roots, new_key_request(), credential, pod=ending)
            except Refused as error:
                return error.status == 403 and said in str(error)
            return False

        wait_for(refused)


def test_a_pods_certificate_of_the_control_plane_is_not_renewed_without_the_pod(
    ca: CaProcess, api: ApiServer, mint: TokenMint
) -> None:
    """Its service account may come without one, as in `heddle local`; its certificate then says so."""
    webhook = api.add_pod("istio-system", "webhook-1", "uid-webhook", "heddle-webhook")
    held = fetch(ca.address, ca.roots, new_key_request(), Token(mint.token("istio-system", "heddle-webhook", webhook)))
    with pytest.raises(Refused, match="was not issued to no pod"):
        fetch(ca.address, ca.roots, new_key_request(), held)
    free = fetch(ca.address, ca.roots, new_key_request(), Token(mint.token("istio-system", "heddle-webhook")))
    with pytest.raises(Refused, match="was not issued to pod istio-system/webhook-1"):
        fetch(ca.address, ca.roots, new_key_request(), free, pod=webhook)
    assert fetch(ca.address, ca.roots, new_key_request(), free).identity == free.identity


# Peers that are slow or rude. What each of them could take from others is a thread, or a descriptor.


def connected(ca: CaProcess) -> ssl.SSLSocket:
    return client_context(ca.roots).wrap_socket(socket.create_connection(("127.0.0.1", ca.port), timeout=30))


HEAD = b"POST /v1/certificates HTTP/1.1\r\nHost: ca\r\nContent-Type: application/json\r\n"
HALVES = {
    "half-a-line": b"POST /v1/cert",
    "half-a-head": HEAD,
    "half-a-body": HEAD + b"Content-Length: 1000\r\n\r\n{",
    "half-a-chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n{",
}


def test_half_requests_and_others_get_theirs(ca: CaProcess, token: str) -> None:
    """Far more of them, and of half handshakes, than there are threads of any kind."""
    with contextlib.ExitStack() as held:
        for half in itertools.islice(itertools.cycle(HALVES.values()), 200):
            held.enter_context(connected(ca)).sendall(half)
        for _ in range(200):
            held.enter_context(socket.create_connection(("127.0.0.1", ca.port))).sendall(b"\x16\x03\x01")
        assert fetch(ca.address, ca.roots, new_key_request(), Token(token)).identity == REVIEWS


@pytest.mark.parametrize(
    ("request_", "statuses"),
    [
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: ca\r\n\r\n", (b"400", b"414", b"431")),
        (HEAD + b"X: " + b"a" * 100_000 + b"\r\n\r\n", (b"400", b"431")),
        (HEAD + b"X: y\r\n" * 5_000 + b"\r\n", (b"400", b"431")),
        (HEAD + b"Content-Length: 100000000000\r\n\r\n", (b"413",)),
        (HEAD + b"Content-Length: -1\r\n\r\n", (b"400",)),
        (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", (b"400",)),
        (HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", (b"400",)),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", (b"400",)),
        (b"\x00" * 1000 + b"\r\n\r\n", (b"400",)),
    ],
    ids=["line", "header", "headers", "length", "negative", "two-lengths", "length-and-chunks", "chunk", "nul"],
)
def test_oversize_and_ambiguous_requests(ca: CaProcess, request_: bytes, statuses: tuple[bytes, ...]) -> None:
    with connected(ca) as connection:
        try:
            connection.sendall(request_)
            answer = connection.recv(65536)
        except OSError:  # it was closed while we were still sending
            answer = b""
    assert not answer or answer.split(b" ", 2)[1] in statuses, answer[:200]
    assert ca.plain("/healthz")[0] == 200


def test_ten_thousand_idle_connections(ca: CaProcess, token: str, record_property: Any) -> None:
    """As many as the limit of descriptors allows, here and in the ca."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    idle = []
    try:
        wanted = min(10_000, most - ROOM)
        record_property("connections", wanted)
        for _ in range(wanted):
            connection = socket.socket()
            connection.setblocking(False)
            idle.append(connection)
            connection.connect_ex(("127.0.0.1", ca.port))
        assert fetch(ca.address, ca.roots, new_key_request(), Token(token), timeout=90.0).identity == REVIEWS
    finally:
        for connection in idle:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))


# The API server is down, or slow: no certificate by token, and renewals go on.


@pytest.fixture(scope="module")
def reviewing(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaProcess]:
    with CaProcess(tmp_path_factory.mktemp("reviewing") / "state", api) as process:
        yield process


def test_token_review_down(reviewing: CaProcess, api: ApiServer, token: str, pod: PodRef) -> None:
    material = fetch(reviewing.address, reviewing.roots, new_key_request(), Token(token))
    api.broken = True
    try:
        with pytest.raises(Refused) as refused:
            fetch(reviewing.address, reviewing.roots, new_key_request(), Token(token))
        assert refused.value.status == 503
        again = fetch(reviewing.address, reviewing.roots, new_key_request(), material, pod=pod)
        assert again.identity == material.identity
    finally:
        api.broken = False


def test_token_review_slow(reviewing: CaProcess, api: ApiServer, token: str, pod: PodRef) -> None:
    """More callers by token than there are threads, of whom none is answered: a renewal is."""
    material = fetch(reviewing.address, reviewing.roots, new_key_request(), Token(token))
    api.reviews_go.clear()
    statuses: list[int] = []

    def by_token() -> None:
        try:
            fetch(reviewing.address, reviewing.roots, new_key_request(), Token(token), timeout=60.0)
            statuses.append(201)
        except Refused as error:
            statuses.append(error.status)

    callers = [threading.Thread(target=by_token) for _ in range(20)]
    try:
        for caller in callers:
            caller.start()
        for _ in range(3):
            again = fetch(reviewing.address, reviewing.roots, new_key_request(), material, pod=pod, timeout=60.0)
            assert again.identity == REVIEWS
        for caller in callers:
            caller.join()
    finally:
        api.reviews_go.set()
    assert set(statuses) <= {429, 503}, statuses
