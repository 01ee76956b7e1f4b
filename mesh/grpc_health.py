"""One call of grpc.health.v1.Health/Check, as HTTP/2 frames written out: a whole gRPC library would be too much.

Bytes in, bytes out; the connection is the caller's. Sources: RFC 9113 (frames), RFC 7541 (a header block of literals
without indexing needs no table), the gRPC health checking protocol (field 1 of the answer is the status; 1 is SERVING).
"""

from __future__ import annotations

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _ACK, _PADDED = 0x1, 0x4, 0x1, 0x8
_SERVING = 1


class HealthCheck:
    """Send `opening`, then `receive` whatever comes and send what it returns, until `serving` is not None."""

    def __init__(self, authority: str, service: str) -> None:
        """`authority` is host:port; ValueError when it or the name of the service is too long."""
        self.opening = (
            _PREFACE
            + _frame(_SETTINGS, 0, 0, b"")
            + _frame(_HEADERS, _END_HEADERS, 1, _header_block(authority))
            + _frame(_DATA, _END_STREAM, 1, _message(_request(service)))
        )
        self.serving: bool | None = None
        """Whether the server says SERVING; None while it has not answered."""
        self._unread = b""
        self._body = b""

    def receive(self, data: bytes) -> bytes:
        """What to send in answer to `data`, b"" at the end of the stream. ValueError when no answer will come."""
        if not data:
            raise ValueError("the server ended the connection")
        self._unread += data
        reply = b""
        while len(self._unread) >= 9:
            end = 9 + int.from_bytes(self._unread[:3], "big")
            if len(self._unread) < end:
                break
            frame, self._unread = self._unread[:end], self._unread[end:]
            reply += self._take(frame[3], frame[4], int.from_bytes(frame[5:9], "big") & 0x7FFFFFFF, frame[9:])
        return reply

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        if kind == _SETTINGS and not flags & _ACK:
            return _frame(_SETTINGS, _ACK, 0, b"")
        if kind == _PING and not flags & _ACK:
            return _frame(_PING, _ACK, 0, payload)
        if kind == _GOAWAY or (kind == _RST_STREAM and stream == 1):
            raise ValueError("the server ended the call")
        if stream == 1 and kind == _DATA:
            self._body += payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload
        if stream == 1 and flags & _END_STREAM and kind in (_DATA, _HEADERS):
            self.serving = len(self._body) >= 5 and _status(self._body[5:]) == _SERVING
        return b""


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _header_block(authority: str) -> bytes:
    headers = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "kube-probe/heddle"),
    )
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers)


def _text(value: str) -> bytes:
    # All of these are shorter than 127 bytes, so that the length is one octet; host names are at most 253 and no probe
    # uses one that long, but say so rather than send nonsense.
    raw = value.encode()
    if len(raw) >= 127:
        raise ValueError("the address is too long for a gRPC probe")
    return bytes((len(raw),)) + raw


def _message(body: bytes) -> bytes:
    return b"\x00" + len(body).to_bytes(4, "big") + body


def _request(service: str) -> bytes:
    raw = service.encode()
    if len(raw) >= 128:
        raise ValueError("the service name is too long for a gRPC probe")
    return b"\x0a" + bytes((len(raw),)) + raw if raw else b""


def _status(message: bytes) -> int:
    return message[1] if len(message) >= 2 and message[0] == 0x08 else 0
