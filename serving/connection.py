"""A connection of the threaded worker: its handshake and what it sends, in steps that never wait.

conn = Connection(...)
conn.shake()    until it returns None; otherwise it says what to wait for
conn.receive()  the same, for each request; then `conn.parser` has it, whole
"""

from __future__ import annotations

import selectors
import socket
import ssl
from typing import Any, NamedTuple

from gunicorn.http import get_parser
from gunicorn.sock import ssl_wrap_socket
from gunicorn.workers.gthread import TConn

from serving.arriving import Arriving, Received
from serving.impatient import ImpatientSocket

CHUNK = 64 << 10
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
MOST_STEPS = 64
"""Reads in a row, each of a TLS record: then it is another connection's turn."""
MOST_DRAINED = 64 << 10
"""Bytes that are still taken from a peer to which we have nothing more to say."""


class Wait(NamedTuple):
    """For a descriptor to be readable or writable (`selectors`' events)."""

    events: int


READABLE, WRITABLE = Wait(selectors.EVENT_READ), Wait(selectors.EVENT_WRITE)


class Connection(TConn):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's, which never blocks. OSError from any step: the connection is of no use any more."""

    sock: Any

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any, max_body: int) -> None:
        super().__init__(cfg, sock, client, server)
        self.counted = 0
        """Bytes that the worker has counted as held here."""
        self.waiting = False
        """At the poller, in the middle of something."""
        self.keep = False
        """There may be another request."""
        self._max_body = max_body
        self._received = Received()
        self._arriving: Arriving | None = None
        self._drained = 0

    @property
    def held(self) -> int:
        """Bytes kept for or from the peer."""
        return len(self._received) + len(getattr(self.sock, "unsent", b""))

    @property
    def patience(self) -> float:
        """Seconds."""
        return float(self.sock.patience)

    @property
    def begun(self) -> bool:
        """A request has begun to arrive."""
        return self._arriving is not None

    def shake(self) -> Wait | None:
        """Go on with the handshake."""
        if not isinstance(self.sock, ImpatientSocket):
            self.sock = ssl_wrap_socket(self.sock, self.cfg)
        try:
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            return READABLE
        except ssl.SSLWantWriteError:
            return WRITABLE
        self.parser = get_parser(self.cfg, self.sock, self.client)
        self.parser.unreader = self._received
        self.initialized = True
        return None

    def receive(self) -> Wait | None:
        """Read until a request is there. EOFError when the peer has no more."""
        arriving = self._arriving
        if arriving is None:
            arriving = self._arriving = Arriving(self._max_body)
            if self._received:
                arriving.feed(self._received.all())
        for _ in range(MOST_STEPS):
            if arriving.ready:
                self._received.long_head = arriving.long_head
                self._arriving = None
                return None
            if arriving.expects:
                arriving.expects = False
                self.sock.sendall(CONTINUE)
            try:
                data = self.sock.recv(CHUNK)
            except ssl.SSLWantReadError:
                return READABLE
            except ssl.SSLWantWriteError:
                return WRITABLE
            if not data:
                raise EOFError
            self._received.add(data)
            arriving.feed(data)
        return READABLE

    def has_more(self) -> bool:
        """Something of the next request has been read already."""
        return bool(self._received) or self.sock.pending() > 0

    def half_close(self) -> bool:
        """Say that nothing more is said; whether the peer may have to be waited for (RFC 9112 section 9.6)."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        return True

    def drain(self) -> bool:
        """Take what the peer still sends, so that the answer is not lost by a reset; whether more may come."""
        try:
            while self._drained < MOST_DRAINED:
                data = self.sock.recv(CHUNK)
                if not data:
                    return False
                self._drained += len(data)
        except (ssl.SSLWantReadError, BlockingIOError):
            return True
        except OSError:
            pass
        return False
