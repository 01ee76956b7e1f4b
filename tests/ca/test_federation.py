"""Other trust domains: what the mesh's settings arrange, what endpoints may change, and what stays as it was."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from ca.authority import Authority
from ca.bundle_endpoint import fetch_foreign
from ca.federation import Federation, Relationship, arranged, federation_json, federation_of, relationships, taken
from ca.federation_keeper import FederationKeeper
from ca.issue import Issuance
from ca.ledger import Ledger
from ca.own_certificate import own_certificate
from ca.settings import CaSettings
from ca.store import DirectoryStore
from mesh.errors import Conflict, HeddleError, InvalidInput, MissingPrerequisite
from mesh.settings import parse_mesh_settings
from svid.material import ForeignRoots
from svid.spiffe_bundle import SpiffeBundle, spiffe_bundle_json
from tests.support.certificates import Authority as AnyAuthority

NOW = 1_800_000_000.0
THEIRS, OTHERS = AnyAuthority("theirs").root_pem, AnyAuthority("others").root_pem
CA = "spiffe://partner.example/ns/istio-system/sa/heddle-ca"


def settings_with(*entries: dict[str, Any], aliases: tuple[str, ...] = ()) -> str:
    return json.dumps({"caCertificates": entries, "trustDomainAliases": aliases})


def static(domain: str, pem: str = THEIRS) -> dict[str, Any]:
    return {"trustDomains": [domain], "pem": pem}


def wanted(text: str, known: Federation = Federation()) -> Federation:  # noqa: B008  # it is frozen
    return arranged(known, parse_mesh_settings(text), "cluster.local")


def test_static_roots() -> None:
    federation = wanted(settings_with(static("a.example"), static("b.example", OTHERS), static("b.example")))
    assert federation.roots == (ForeignRoots("a.example", (THEIRS,)), ForeignRoots("b.example", (OTHERS, THEIRS)))
    assert federation.number == 1
    assert wanted(settings_with(static("b.example")), federation).number == 2
    assert wanted("", federation).roots == ()


def test_aliases_are_named_beside_others_alone() -> None:
    assert wanted(settings_with(aliases=("old.example",))).roots == ()
    both = wanted(settings_with(static("a.example"), aliases=("old.example", "cluster.local")))
    assert both.roots == (ForeignRoots("old.example"), ForeignRoots("a.example", (THEIRS,)))


def test_an_alias_with_roots_of_its_own_has_no_others() -> None:
    federation = wanted(settings_with(static("old.example"), aliases=("old.example",)))
    assert federation.roots == (ForeignRoots("old.example", (THEIRS,)),)


def test_nobody_else_says_what_the_own_roots_are() -> None:
    with pytest.raises(InvalidInput, match="are the ca's, and no others"):
        arranged(
            Federation(),
            parse_mesh_settings('{"trustDomain": "x", ' + settings_with(static("cluster.local"))[1:]),
            "cluster.local",
        )


@pytest.mark.parametrize("pem", ["hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_roots_that_cannot_be_read(pem: str) -> None:
    with pytest.raises(InvalidInput, match=r"caCertificates\[0\]\.pem: there is no certificate"):
        relationships(parse_mesh_settings(settings_with(static("a.example", pem))))


def fetched(sequence: int | None, root: str = OTHERS) -> SpiffeBundle:
    return SpiffeBundle("a.example", (root,), sequence, 60)


ENDPOINT = {"trustDomains": ["a.example"], "spiffeBundleUrl": "https://a.example/bundle"}


def test_before_its_first_bundle_there_is_nothing_to_trust() -> None:
    federation = wanted(settings_with(ENDPOINT))
    assert (federation.roots, federation.number, federation.domains["a.example"].refresh) == ((), 0, 300)
    after = taken(federation, fetched(5))
    assert (after.roots, after.number) == ((ForeignRoots("a.example", (OTHERS,)),), 1)
    assert after.domains["a.example"].refresh == 60


def test_an_older_bundle_is_not_taken() -> None:
    known = taken(wanted(settings_with(ENDPOINT)), fetched(5))
    with pytest.raises(Conflict, match="sequence 4, and 5 is known"):
        taken(known, fetched(4, THEIRS))
    assert taken(known, fetched(5)) == known
    assert taken(known, fetched(6, THEIRS)).roots == (ForeignRoots("a.example", (THEIRS,)),)
    assert taken(known, fetched(None, THEIRS)).roots == (ForeignRoots("a.example", (THEIRS,)),)


def test_what_was_fetched_stays_while_the_settings_do() -> None:
    known = taken(wanted(settings_with(ENDPOINT)), fetched(5))
    assert (
        wanted(settings_with(ENDPOINT, static("b.example")), known).domains["a.example"] == known.domains["a.example"]
    )
    moved = wanted(settings_with({**ENDPOINT, "spiffeBundleUrl": "https://b.example"}), known)
    assert moved.roots == ()


def test_a_domain_that_was_removed_meanwhile_is_not_put_back() -> None:
    assert taken(Federation(), fetched(5)) == Federation()


def test_the_document() -> None:
    federation = taken(wanted(settings_with(ENDPOINT, static("b.example"), aliases=("old.example",))), fetched(5))
    assert federation_of({"federation.json": federation_json(federation)}) == federation
    assert federation_of({}) == Federation()
    with pytest.raises(MissingPrerequisite, match=r"federation\.json"):
        federation_of({"federation.json": "{}"})


class Partner:
    """Another trust domain's ca, whose bundle endpoint a test may let say anything."""

    def __init__(self, directory: Path, trust_domain: str = "partner.example") -> None:
        settings = CaSettings(trust_domain=trust_domain)
        self.authority = Authority(DirectoryStore(directory), lambda: b"x" * 32, settings, time.time)
        issuance = Issuance(self.authority, Ledger(None), settings, time.time)
        self.svid = own_certificate(issuance, settings, lambda _: None, None)
        self.svid.obtain_now()
        self.answer: tuple[int, dict[str, str], bytes] = (200, {}, self.bundle(1))
        self.asked = 0

    @property
    def root(self) -> str:
        return self.authority.bundle.roots[0]

    def bundle(self, sequence: int) -> bytes:
        body = spiffe_bundle_json(self.authority.bundle, 60)
        return json.dumps({**body, "spiffe_sequence": sequence}).encode()

    @contextmanager
    def serving(self, context: ssl.SSLContext | None = None) -> Iterator[str]:
        partner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                partner.asked += 1
                status, headers, body = partner.answer
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None: ...

        server = HTTPServer(("127.0.0.1", 0), Handler)
        context = context or self.svid.context()
        context.sslsocket_class = ssl.SSLSocket  # this server waits, and the ca's sockets never do
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_arguments: None  # type: ignore[method-assign]
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}/bundle"
        finally:
            server.shutdown()
            server.server_close()


@pytest.fixture
def partner(tmp_path: Path) -> Partner:
    return Partner(tmp_path / "partner")


def test_https_spiffe(partner: Partner) -> None:
    with partner.serving() as url:
        bundle = fetch_foreign(Relationship("partner.example", (), url, CA), (partner.root,))
        assert (bundle.roots, bundle.sequence) == ((partner.root,), 1)


@pytest.mark.parametrize(
    ("server", "roots", "says"),
    [
        (CA.replace("heddle-ca", "somebody"), None, "the server is .*heddle-ca, and not .*somebody"),
        (CA, (THEIRS,), "does not verify"),
        (CA, (), "no roots are known"),
    ],
)
def test_https_spiffe_of_somebody_else(partner: Partner, server: str, roots: tuple[str, ...] | None, says: str) -> None:
    with partner.serving() as url, pytest.raises(HeddleError, match=says):
        fetch_foreign(Relationship("partner.example", (), url, server), (partner.root,) if roots is None else roots)
    assert partner.asked == 0


def test_https_web(partner: Partner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the system's roots and the host's name; an X509-SVID is nobody there."""
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    make += ["-subj", "/CN=web", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "web.pem"]
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "web.pem", tmp_path / "key.pem")
    with partner.serving(context) as url:
        with pytest.raises(HeddleError, match="does not verify"):
            fetch_foreign(Relationship("partner.example", (), url), ())
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "web.pem"))
        assert fetch_foreign(Relationship("partner.example", (), url), ()).sequence == 1
        with pytest.raises(HeddleError, match="does not verify"):
            fetch_foreign(Relationship("partner.example", (), url.replace("127.0.0.1", "localhost")), ())
    with partner.serving() as url, pytest.raises(HeddleError, match="does not verify"):
        fetch_foreign(Relationship("partner.example", (), url), ())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((404, {}, b""), "answered 404"),
        ((302, {}, b""), "answered 302"),
        ((302, {"Location": "http://127.0.0.1/"}, b""), "no bundle endpoint may have"),
        ((302, {"Location": "https://me@127.0.0.1/"}, b""), "no bundle endpoint may have"),
        ((302, {"Location": "/bundle"}, b""), "more than 3 times"),
        ((200, {}, b"x" * ((1 << 20) + 1)), "more than 1048576 bytes"),
        ((200, {}, b"hello"), "not JSON"),
    ],
)
def test_answers_that_are_no_bundle(partner: Partner, answer: tuple[int, dict[str, str], bytes], says: str) -> None:
    partner.answer = answer
    with partner.serving() as url, pytest.raises(HeddleError, match=says):
        fetch_foreign(Relationship("partner.example", (), url, CA), (partner.root,))


class Clock:
    time = NOW

    def __call__(self) -> float:
        return self.time


def test_the_keeper(partner: Partner, tmp_path: Path) -> None:
    """From the settings to what agents are told, through refreshes, a replica beside it, failures and the end."""
    clock, file, store = Clock(), tmp_path / "mesh", DirectoryStore(tmp_path / "ours")
    ours, replica = (Authority(store, lambda: b"x" * 32, CaSettings(), clock) for _ in range(2))
    keeper = FederationKeeper(ours, store, file, "cluster.local", clock)
    keeper.step()
    assert ours.bundle.federated == ()
    told: list[Any] = []
    ours.on_bundle(told.append)
    with partner.serving() as url:
        entry = {
            "trustDomains": ["partner.example"],
            "pem": partner.root,
            "spiffeBundleUrl": url,
            "endpointSpiffeId": CA,
        }
        file.write_text(settings_with(entry, aliases=("old.example",)))
        keeper.step()
        expected = (ForeignRoots("old.example"), ForeignRoots("partner.example", (partner.root,)))
        assert ours.bundle.federated == expected
        assert [bundle.revision for bundle in told] == [1]
        assert ours.bundle.sequence == 1
        keeper.step()
        assert partner.asked == 1  # it is not due
        replica.refresh()
        assert replica.bundle == ours.bundle

        other = Partner(tmp_path / "other", "partner.example")
        both = spiffe_bundle_json(partner.authority.bundle, 60)
        both["keys"] += spiffe_bundle_json(other.authority.bundle, 60)["keys"]
        partner.answer = (200, {}, json.dumps({**both, "spiffe_sequence": 9}).encode())
        clock.time += 100
        keeper.step()
        assert ours.bundle.federated[1].roots == (partner.root, other.root)
        partner.answer = (200, {}, partner.bundle(8))
        clock.time += 100
        keeper.step()
        assert ours.bundle.federated[1].roots == (partner.root, other.root)
    clock.time += 100
    keeper.step()  # it does not answer any more
    assert ours.bundle.federated[1].roots == (partner.root, other.root)
    file.write_text("caCertificates: 7")
    keeper.step()
    assert ours.bundle.federated[1].roots == (partner.root, other.root)
    file.unlink()
    keeper.step()
    assert ours.bundle.federated == ()
    replica.refresh()
    assert replica.bundle == ours.bundle
    assert [bundle.revision for bundle in told] == [1, 2, 3]
