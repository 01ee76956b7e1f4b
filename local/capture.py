"""What really goes over a pod's network interface: enough of the packets to say which TLS it is, or plain text.

Sources: packet(7), RFC 8446 section 4.1.3 (ServerHello) and 4.2.1 (the version that is meant stands in an extension).
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

ETH_P_IP = 0x0800
ETHERNET, TCP = 14, 6
MOST_PACKETS = 20_000
VERSIONS = {0x0304: "TLS 1.3", 0x0303: "TLS 1.2", 0x0302: "TLS 1.1", 0x0301: "TLS 1.0"}
SUPPORTED_VERSIONS = 43
METHODS = (b"GET /", b"POST /", b"PUT /", b"HEAD /", b"HTTP/1.")


@dataclass(slots=True)
class Seen:
    """`packets` with content; `tls_version` of the last ServerHello; whether an HTTP message was readable."""

    packets: int = 0
    tls_version: str = ""
    plain_text: bool = False

    def add(self, payload: bytes) -> None:
        """Take in the content of one TCP segment."""
        self.packets += 1
        self.tls_version = server_hello_version(payload) or self.tls_version
        self.plain_text = self.plain_text or payload.startswith(METHODS)


def server_hello_version(payload: bytes) -> str:
    """The TLS version that a ServerHello at the start of `payload` chose; empty if there is none."""
    try:
        if payload[0] != 0x16 or payload[5] != 0x02:  # a handshake record whose message is ServerHello
            return ""
        chosen = struct.unpack_from("!H", payload, 9)[0]
        at = 11 + 32
        at += 1 + payload[at] + 2 + 1  # session id, cipher suite, compression
        end = at + 2 + struct.unpack_from("!H", payload, at)[0]
        at += 2
        while at < end:
            kind, length = struct.unpack_from("!HH", payload, at)
            if kind == SUPPORTED_VERSIONS:
                chosen = struct.unpack_from("!H", payload, at + 4)[0]
            at += 4 + length
        return VERSIONS.get(chosen, f"TLS {chosen:#06x}")
    except (IndexError, struct.error):
        return ""  # not a whole ServerHello


def tcp_payload(frame: bytes, port: int) -> bytes:
    """The content of an Ethernet frame that carries TCP over IPv4 from or to `port`; empty otherwise."""
    try:
        header = (frame[ETHERNET] & 0x0F) * 4
        if frame[ETHERNET] >> 4 != 4 or frame[ETHERNET + 9] != TCP:
            return b""
        total = struct.unpack_from("!H", frame, ETHERNET + 2)[0]
        segment = ETHERNET + header
        ports = struct.unpack_from("!HH", frame, segment)
        offset = (frame[segment + 12] >> 4) * 4
        return frame[segment + offset : ETHERNET + total] if port in ports else b""
    except (IndexError, struct.error):
        return b""


def summary(payloads: Iterable[bytes]) -> Seen:
    """What the contents, in order, show."""
    seen = Seen()
    for payload in payloads:
        if payload:
            seen.add(payload)
    return seen


@dataclass(slots=True)
class Capture:
    """Reads the packets of `interface` from or to `port` between `start` and `stop`. Needs CAP_NET_RAW."""

    interface: str
    port: int
    _frames: list[bytes] = field(default_factory=list)
    _socket: socket.socket | None = None
    _thread: threading.Thread | None = None

    def start(self) -> None:
        reader = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
        reader.bind((self.interface, 0))
        reader.settimeout(0.1)
        self._socket = reader
        self._thread = threading.Thread(target=self._read, args=(reader,), name="capture", daemon=True)
        self._thread.start()

    def stop(self) -> Seen:
        reader, self._socket = self._socket, None
        if self._thread is not None:
            self._thread.join()
        if reader is not None:
            reader.close()
        return summary(tcp_payload(frame, self.port) for frame in self._frames)

    def _read(self, reader: socket.socket) -> None:
        while len(self._frames) < MOST_PACKETS:
            try:
                self._frames.append(reader.recv(65536))
            except TimeoutError:
                if self._socket is None:
                    return  # told to stop, and everything that had come is read
