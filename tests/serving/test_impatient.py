"""Sockets that never wait."""

from __future__ import annotations

import select
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from serving.impatient import ImpatientSocket, make_impatient
from tests.support.certificates import Authority

LARGE = 20_000_000  # more than a connection takes without being read


def test_how_much_of_an_answer_was_taken_is_seen(tmp_path: Path) -> None:
    """Else a peer that takes a large one slowly would seem to take none of it."""
    authority = Authority()
    made = authority.issue(dns="service")
    (tmp_path / "tls.crt").write_text(made.chain_pem + made.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt")
    ours, theirs = socket.socketpair()
    sock = make_impatient(context, 1.0).wrap_socket(ours, server_side=True, do_handshake_on_connect=False)
    assert isinstance(sock, ImpatientSocket)
    trusting = ssl.create_default_context(cadata=authority.root_pem)
    with sock, ThreadPoolExecutor(1) as other:
        connecting = other.submit(trusting.wrap_socket, theirs, server_hostname="service")
        while not is_shaken(sock):
            select.select([sock], [], [])
        with connecting.result():
            sock.sendall(b"x" * LARGE)
            assert 0 < len(sock.unsent) < LARGE


def is_shaken(sock: ssl.SSLSocket) -> bool:
    try:
        sock.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
