"""A certificate authority and a discovery of our own, over real mutual TLS, that speak the wire of mesh/wire.py.

They do as little as the agent needs, so that a test can make them say anything, go away and come back.
"""

from __future__ import annotations

import datetime
import json
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.identity import Identity
from svid.material import SvidMaterial, TrustBundle
from svid.tls import peer_identity, server_context

TRUST_DOMAIN = "cluster.local"


class Authority:
    """One root that signs leaves itself; good enough for a peer that checks chains by the book."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test root")])
        now = datetime.datetime.now(datetime.UTC)
        self.root = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signing=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.root_pem = self.root.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, identity: Identity, public_key: Any, seconds: float) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(seconds=5))
            .not_valid_after(now + datetime.timedelta(seconds=seconds))
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signing=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def material(self, identity: Identity, seconds: float = 3600) -> SvidMaterial:
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = self.issue(identity, key.public_key(), seconds)
        return SvidMaterial(
            identity=identity,
            serial=f"{leaf.serial_number:x}",
            not_before=leaf.not_valid_before_utc.timestamp(),
            not_after=leaf.not_valid_after_utc.timestamp(),
            key_pem=key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            chain_pem=leaf.public_bytes(serialization.Encoding.PEM),
            bundle=TrustBundle(TRUST_DOMAIN, 1, (self.root_pem,)),
        )


def _usage(*, signing: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signing, key_cert_sign=signing, crl_sign=signing, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


class HttpsService:
    """A threaded HTTPS server that can be stopped and started on the same port."""

    def __init__(self, authority: Authority, account: str, client_certificate: ssl.VerifyMode) -> None:
        identity = Identity(TRUST_DOMAIN, "istio-system", account)
        self._context = server_context(authority.material(identity), client_certificate=client_certificate)
        self._server: ThreadingHTTPServer | None = None
        self.credentials: list[str] = []
        """Of each request: "token", or the identity in the client's certificate."""
        self.port = 0
        self.start()

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        raise NotImplementedError

    def start(self) -> None:
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                service.credentials.append(_credential(self))
                status, answer = service.answer(self.path, body)
                raw = json.dumps(answer).encode() if answer is not None else b""
                self.send_response(status)
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                pass

        self._server = _QuietServer(("127.0.0.1", self.port), Handler)
        self._server.context = self._context
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Gone, with all its connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.break_connections()
            self._server = None


def _credential(asked: BaseHTTPRequestHandler) -> str:
    connection = asked.connection
    assert isinstance(connection, ssl.SSLSocket)
    return "token" if asked.headers["authorization"] else str(peer_identity(connection) or "")


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128
    context: ssl.SSLContext

    def __init__(self, *args: Any) -> None:
        self._open: set[Any] = set()
        super().__init__(*args)

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self.context.wrap_socket(request, server_side=True) as connection:
            self._open.add(connection)
            super().finish_request(connection, client_address)
            self._open.discard(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that break off are what these tests are about

    def break_connections(self) -> None:
        for connection in tuple(self._open):
            try:
                connection.shutdown(2)
            except OSError:
                continue


class CaService(HttpsService):
    """Signs whatever CSR comes, for `identity`."""

    def __init__(self, authority: Authority, identity: Identity, seconds: float = 3600) -> None:
        self._authority, self._identity, self.seconds = authority, identity, seconds
        self.issued: list[str] = []
        super().__init__(authority, "heddle-ca", ssl.CERT_OPTIONAL)

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        csr = x509.load_pem_x509_csr(body["csr"].encode())
        leaf = self._authority.issue(self._identity, csr.public_key(), self.seconds)
        self.issued.append(f"{leaf.serial_number:x}")
        return 201, {
            "chain": [leaf.public_bytes(serialization.Encoding.PEM).decode()],
            "bundle": {"trustDomain": TRUST_DOMAIN, "sequence": 1, "roots": [self._authority.root_pem]},
            "serial": self.issued[-1],
            "notBefore": leaf.not_valid_before_utc.isoformat(),
            "notAfter": leaf.not_valid_after_utc.isoformat(),
        }


class DiscoveryService(HttpsService):
    """Holds one set of resources for one agent. Versions count up; `put` and `drop` make one change each."""

    def __init__(self, authority: Authority) -> None:
        self._changed = threading.Condition()
        self._sequence = 0
        self._session = "s1"
        self._now: dict[str, dict[str, tuple[str, Any]]] = {}
        self._told: dict[str, dict[str, str]] = {}
        self._count = 0
        self.requests: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []
        self.applied: dict[str, Any] = {}
        self.unknown = False
        self.astray = 0
        """How many of the next reports get to another replica, which does not know the session."""
        super().__init__(authority, "heddle-discovery", ssl.CERT_REQUIRED)

    def put(self, *resources: tuple[str, str, Any]) -> None:
        """(type, name, resource) of everything that changes at once; resource None removes."""
        with self._changed:
            for kind, name, resource in resources:
                self._count += 1
                if resource is None:
                    self._now.get(kind, {}).pop(name, None)
                else:
                    self._now.setdefault(kind, {})[name] = (f"v{self._count}", resource)
            self._changed.notify_all()

    def forget_session(self) -> None:
        """As after a restart: the session is unknown from now on."""
        with self._changed:
            self._session += "x"
            self._changed.notify_all()

    @property
    def sequence(self) -> int:
        return self._sequence

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        if path == "/v1/report" and self.astray:
            self.astray -= 1
            return 410, {"error": {"code": "gone", "message": "unknown session"}}
        if path == "/v1/report":
            self.reports.append(body)
            self._heard(body)
            return 204, None
        self.requests.append(body)
        if self.unknown:
            return 404, {"error": {"code": "not-found", "message": "the pod is not known"}}
        until = time.monotonic() + body["holdSeconds"]
        with self._changed:
            if body["session"] and body["session"] != self._session:
                return 410, {"error": {"code": "gone", "message": "unknown session"}}
            if not body["session"]:
                self._told = body["versions"]
            self._heard(body)
            session = self._session
            while True:
                if session != self._session:
                    return 410, {"error": {"code": "gone", "message": "unknown session"}}
                answer = self._difference()
                if answer["changed"] or answer["removed"] or not body["session"]:
                    self._sequence += 1
                    self._told = {k: {n: v for n, (v, _) in names.items()} for k, names in self._now.items()}
                    return 200, {"session": self._session, "sequence": self._sequence, **answer}
                left = until - time.monotonic()
                if left <= 0 or self._server is None:
                    return 204, None
                self._changed.wait(min(left, 0.5))

    def _difference(self) -> dict[str, Any]:
        changed = {
            kind: {
                name: {"version": version, "resource": resource}
                for name, (version, resource) in names.items()
                if self._told.get(kind, {}).get(name) != version
            }
            for kind, names in self._now.items()
        }
        removed = {
            kind: [name for name in names if name not in self._now.get(kind, {})] for kind, names in self._told.items()
        }
        return {
            "changed": {kind: names for kind, names in changed.items() if names},
            "removed": {kind: names for kind, names in removed.items() if names},
        }

    def _heard(self, body: Any) -> None:
        self.applied = body["applied"]

    def await_applied(self, *kinds: str, timeout: float = 60.0) -> None:
        """Until the agent says that Envoy has taken the newest sequence of each of `kinds`."""

        def done() -> bool:
            return all(self.applied.get(kind, {}).get("sequence") == self._sequence for kind in kinds)

        eventually(lambda: self._difference() == {"changed": {}, "removed": {}} and done(), timeout=timeout)


def eventually(condition: Callable[[], Any], *, timeout: float = 60.0) -> Any:
    """The first true value of `condition`; AssertionError after `timeout` seconds, or its own last exception."""
    until = time.monotonic() + timeout
    while True:
        try:
            if found := condition():
                return found
            failure: Exception | None = None
        except Exception as error:
            failure = error
        if time.monotonic() > until:
            raise failure or AssertionError(f"not true within {timeout} s")
        time.sleep(0.01)
