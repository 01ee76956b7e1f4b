"""The SVID in Envoy: renewed while requests flow, and by itself before it ends."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from mesh.identity import Identity
from mesh.sds import DEFAULT, ROOTCA, secret_config
from svid.tls import client_context
from tests.agent.control_plane import TRUST_DOMAIN, Authority, CaService, DiscoveryService, eventually
from tests.agent.load import Load
from tests.agent.sidecar import (
    ALL,
    IDENTITY,
    App,
    Sidecar,
    cluster,
    endpoints,
    listener,
    route,
    virtual_host,
)
from tests.support.ports import free_port

CLIENT = Identity(TRUST_DOMAIN, "default", "client")


def mutual_tls(port: int) -> tuple[str, str, Any]:
    kind, name, made = listener("mtls", port, "r")
    made["filter_chains"][0]["transport_socket"] = {
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": True,
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificate_sds_secret_configs": [secret_config(DEFAULT)],
                "validation_context_sds_secret_config": secret_config(ROOTCA),
            },
        },
    }
    return kind, name, made


@pytest.fixture
def app() -> Iterator[App]:
    made = App("one")
    yield made
    made.stop()


def test_a_renewal_costs_no_request_and_no_connection(tmp_path: Path, app: App) -> None:
    with _mesh(tmp_path, app, seconds=3600) as (made, ca, port, tls):
        before = _serial(port, tls)
        assert before == ca.issued[0]
        with Load(port, tls) as keeps, _Reconnecting(port, tls) as anew:
            for _ in range(5):
                old = made.status()["certificate"]["serial"]
                said = made.command("renew")
                assert said["old"] == old
                eventually(lambda new=said["new"]: _serial(port, tls) == new)
        assert keeps.failures == []
        assert anew.failures == []
        assert keeps.connections == 1
        assert anew.connections > 5
        assert keeps.total > 0
        assert len(ca.issued) == 6


def test_a_short_certificate_is_renewed_by_itself(tmp_path: Path, app: App) -> None:
    with _mesh(tmp_path, app, seconds=4) as (_made, ca, port, tls), Load(port, tls) as load:
        eventually(lambda: len(ca.issued) >= 4)
        eventually(lambda: _serial(port, tls) == ca.issued[-1])
    assert load.failures == []


def test_a_renewal_that_fails_says_why_and_harms_nothing(tmp_path: Path, app: App) -> None:
    with _mesh(tmp_path, app, seconds=3600) as (made, ca, port, tls):
        ca.stop()
        status, body = _renew(made)
        assert status == 503
        assert b"does not answer" in body
        assert _serial(port, tls) == ca.issued[0]
        assert "does not answer" in made.status()["certificateError"]
        ca.start()
        assert made.command("renew")["new"] == ca.issued[-1]
        assert made.status()["certificateError"] == ""


def _renew(made: Sidecar) -> tuple[int, bytes]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(made.directory / "data" / "agent.sock"))
        connection.sendall(b"POST /agent/renew HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(answer.split(b" ")[1]), answer


class _Reconnecting(Load):
    """One connection for each request."""

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                connection = self._connect()
                connection.request("GET", "/")
                response = connection.getresponse()
                self.answers[response.read()] += 1
                if response.status != 200:
                    self.failures.append(str(response.status))
                connection.close()
            except OSError as error:
                self.failures.append(repr(error))


def _serial(port: int, tls: ssl.SSLContext) -> str:
    with socket.create_connection(("127.0.0.1", port), 5) as plain, tls.wrap_socket(plain) as connection:
        der = connection.getpeercert(binary_form=True)
    assert der is not None
    return f"{x509.load_der_x509_certificate(der).serial_number:x}"


class _mesh:
    """A sidecar with one listener of mutual TLS, and a client's context for it."""

    def __init__(self, directory: Path, app: App, *, seconds: float) -> None:
        authority = Authority()
        self._ca, self._discovery = CaService(authority, IDENTITY, seconds), DiscoveryService(authority)
        self._made = Sidecar(directory, self._ca, self._discovery, authority.root_pem)
        self._port = free_port()
        self._tls = client_context(authority.root_pem, authority.material(CLIENT))
        self._discovery.put(
            cluster("one"),
            endpoints("one", app.port),
            mutual_tls(self._port),
            route("r"),
            virtual_host("r", "v", "one"),
        )

    def __enter__(self) -> tuple[Sidecar, CaService, int, ssl.SSLContext]:
        self._made.start()
        self._made.await_ready()
        self._discovery.await_applied(*ALL)
        return self._made, self._ca, self._port, self._tls

    def __exit__(self, *_: object) -> None:
        self._made.stop(9)
        self._ca.stop()
        self._discovery.stop()
