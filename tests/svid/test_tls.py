"""TLS between two workloads, with real handshakes."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ca.authority import Authority
from ca.issue import Issuance, issued_json
from ca.ledger import Ledger
from ca.policy import Caller
from ca.request import parse_request
from ca.revoking import Revoking, Wish
from ca.settings import CaSettings
from ca.store import DirectoryStore
from mesh.errors import Forbidden, InvalidInput, Unauthenticated
from mesh.identity import Identity
from svid.material import SvidMaterial, material_from_response
from svid.request import new_key_request
from svid.tls import check_peer, client_context, peer_identity, server_context

A, B = Identity("cluster.local", "default", "a"), Identity("cluster.local", "default", "b")


class Issuer:
    """A ca in this process."""

    def __init__(self, directory: Path) -> None:
        settings = CaSettings()
        authority = Authority(DirectoryStore(directory), lambda: b"x" * 32, settings, time.time)
        self._issuance = Issuance(authority, Ledger(directory / "ledger"), settings, time.time)

    def answer(self, identity: Identity, csr: str) -> dict[str, object]:
        return issued_json(self._issuance.issue(Caller("token", identity), parse_request(csr), None))

    def svid(self, identity: Identity) -> SvidMaterial:
        request = new_key_request()
        return material_from_response(request.key_pem, self.answer(identity, request.csr_pem))


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("ca"))


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext
) -> tuple[ssl.SSLSocket | Exception, ssl.SSLSocket | Exception]:
    """Both ends after one byte each way; what went wrong at an end instead of the end."""
    left, right = socket.socketpair()
    results: list[ssl.SSLSocket | Exception] = [RuntimeError(), RuntimeError()]

    def run(at: int, context: ssl.SSLContext, sock: socket.socket, server_side: bool) -> None:
        sock.settimeout(60)
        try:
            secure = context.wrap_socket(sock, server_side=server_side)
            secure.sendall(b"x")
            assert secure.recv(1) == b"x"
            results[at] = secure
        except (OSError, AssertionError) as error:
            results[at] = error
            sock.close()

    other = threading.Thread(target=run, args=(0, server, left, True))
    other.start()
    run(1, client, right, False)
    other.join()
    return results[0], results[1]


def test_both_ends_know_each_other(issuer: Issuer) -> None:
    a, b = issuer.svid(A), issuer.svid(B)
    server, client = handshake(server_context(a), client_context(b.bundle.pem, b))
    assert isinstance(server, ssl.SSLSocket)
    assert isinstance(client, ssl.SSLSocket)
    with server, client:
        assert server.version() == "TLSv1.3"
        assert check_peer(server, {B}) == B
        assert check_peer(client, (A, B)) == A
        with pytest.raises(Forbidden, match=r"expected spiffe://cluster\.local/ns/default/sa/b"):
            check_peer(client, {B})


def test_no_client_certificate(issuer: Issuer) -> None:
    a = issuer.svid(A)
    server, _ = handshake(server_context(a), client_context(a.bundle.pem))
    assert isinstance(server, ssl.SSLError)
    server, client = handshake(server_context(a, client_certificate=ssl.CERT_OPTIONAL), client_context(a.bundle.pem))
    assert isinstance(server, ssl.SSLSocket)
    assert isinstance(client, ssl.SSLSocket)
    with server, client:
        assert peer_identity(server) is None
        with pytest.raises(Unauthenticated, match="no certificate"):
            check_peer(server, {B})


def test_another_root_is_not_trusted(issuer: Issuer, tmp_path: Path) -> None:
    foreign = Issuer(tmp_path)
    a, b = issuer.svid(A), foreign.svid(B)
    server, _ = handshake(server_context(a), client_context(a.bundle.pem, b))
    assert isinstance(server, ssl.SSLCertVerificationError)
    _, client = handshake(server_context(b), client_context(a.bundle.pem, a))
    assert isinstance(client, ssl.SSLCertVerificationError)


def test_keys_touch_no_file(issuer: Issuer, tmp_path: Path) -> None:
    """The descriptors are closed again, and nothing is written to any directory a temporary file could be in."""
    material = issuer.svid(A)
    before = os.listdir("/proc/self/fd")
    for _ in range(20):
        server_context(material)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_repr_has_no_key(issuer: Issuer) -> None:
    assert "PRIVATE" not in repr(issuer.svid(A))
    assert "PRIVATE" not in repr(new_key_request())


def test_an_answer_for_another_key_is_refused(issuer: Issuer) -> None:
    answer = issuer.answer(A, new_key_request().csr_pem)
    with pytest.raises(InvalidInput, match="another key"):
        material_from_response(new_key_request().key_pem, answer)


@pytest.mark.parametrize(
    "answer",
    [None, [], {}, {"chain": []}, {"chain": [1], "bundle": {}}, {"chain": ["x"], "bundle": None}],
)
def test_answers_that_make_no_sense(answer: object) -> None:
    with pytest.raises(InvalidInput):
        material_from_response(new_key_request().key_pem, answer)


def test_a_chain_that_is_not_one(issuer: Issuer) -> None:
    request = new_key_request()
    answer = issuer.answer(A, request.csr_pem)
    with pytest.raises(InvalidInput, match="cannot be read"):
        material_from_response(request.key_pem, {**answer, "chain": ["hello"]})


def test_small_imports() -> None:
    """The agent lives on these modules: nothing heavy may come with them."""
    program = (
        "import sys, svid.keeper; heavy = {'pydantic', 'flask', 'kubernetes', 'gevent', 'structlog', 'yaml', "
        "'requests', 'urllib3', 'click', 'asyncio'}; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_revoked_client_is_refused_and_others_are_not(tmp_path: Path) -> None:
    directory = tmp_path
    settings, store = CaSettings(), DirectoryStore(directory)
    authority = Authority(store, lambda: b"x" * 32, settings, time.time)
    ledger = Ledger(directory / "ledger")
    issuance = Issuance(authority, ledger, settings, time.time)

    def svid(identity: Identity) -> SvidMaterial:
        request = new_key_request()
        issued = issuance.issue(Caller("token", identity), parse_request(request.csr_pem), None)
        return material_from_response(request.key_pem, issued_json(issued))

    revoked, good = svid(A), svid(A)
    Revoking(authority, store, ledger, settings, time.time).carry_out(Wish("revoke", serial=revoked.serial), "test")
    server = server_context(svid(B))
    refusal, _ = handshake(server, client_context(authority.bundle.pem, revoked))
    assert isinstance(refusal, ssl.SSLError)
    assert "certificate revoked" in str(refusal)
    accepted, _ = handshake(server, client_context(authority.bundle.pem, good))
    assert isinstance(accepted, ssl.SSLSocket)
