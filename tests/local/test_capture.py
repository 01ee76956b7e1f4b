"""What captured packets say: real TLS handshakes made here, and text."""

from __future__ import annotations

import ssl
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.capture import server_hello_version, summary, tcp_payload
from tests.support.certificates import Authority


def server_bytes(version: ssl.TLSVersion, folder: Path) -> bytes:
    """What a TLS server that speaks only `version` sends first."""
    issued = Authority().issue(dns="server.test")
    (folder / "both.pem").write_text(issued.chain_pem + issued.key_pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "both.pem")
    server.minimum_version = server.maximum_version = version
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client.wrap_bio(to_client, to_server)
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (theirs, ours):
        with pytest.raises(ssl.SSLWantReadError):
            side.do_handshake()
    return to_client.read()


@pytest.mark.parametrize(
    ("version", "words"), [(ssl.TLSVersion.TLSv1_3, "TLS 1.3"), (ssl.TLSVersion.TLSv1_2, "TLS 1.2")]
)
def test_the_version_of_a_real_handshake(version: ssl.TLSVersion, words: str, tmp_path: Path) -> None:
    assert server_hello_version(server_bytes(version, tmp_path)) == words


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail(payload: bytes) -> None:
    server_hello_version(payload)
    server_hello_version(b"\x16\x03\x03\x00\x50\x02" + payload)
    tcp_payload(payload, 9080)


def frame(content: bytes, source: int, target: int) -> bytes:
    tcp = struct.pack("!HHIIBBHHH", source, target, 0, 0, 5 << 4, 0, 0, 0, 0)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40 + len(content), 0, 0, 64, 6, 0, b"\0" * 4, b"\0" * 4)
    return b"\0" * 14 + ip + tcp + content + b"padding"


def test_the_content_of_a_segment_ends_where_ip_says() -> None:
    assert tcp_payload(frame(b"GET / HTTP/1.1", 1234, 9080), 9080) == b"GET / HTTP/1.1"
    assert tcp_payload(frame(b"HTTP/1.1 200", 9080, 1234), 9080) == b"HTTP/1.1 200"
    assert tcp_payload(frame(b"x", 1, 2), 9080) == b""


def test_text_is_told_from_tls(tmp_path: Path) -> None:
    encrypted = summary([server_bytes(ssl.TLSVersion.TLSv1_3, tmp_path), b"\x17\x03\x03\x00\x20" + b"x" * 32, b""])
    assert (encrypted.packets, encrypted.tls_version, encrypted.plain_text) == (2, "TLS 1.3", False)
    assert summary([b"GET /details/0 HTTP/1.1\r\n"]).plain_text
