"""A connection of the threaded worker: its handshake, what it asks and what it is told, in steps that never wait.

conn = Connection(...)
conn.shake()    until it returns None; otherwise it says what to wait for
conn.receive()  the same, for each request; then it is in `conn.requests.whole`
conn.say()      an answer, as far as the peer takes it: the rest is `conn.unsent`
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from gunicorn.sock import ssl_wrap_socket

from serving.http1 import CONTINUE, Answer, Peer, Requests, head_of
from serving.impatient import ImpatientSocket

CHUNK = 64 << 10
MOST_STEPS = 16
"""Reads in a row, each of a TLS record: then it is another connection's turn."""
MOST_DRAINED = 64 << 10
"""Bytes that are still taken from a peer to which we have nothing more to say."""


class Wait(IntEnum):
    """What a descriptor is waited for to be."""

    READABLE = selectors.EVENT_READ
    WRITABLE = selectors.EVENT_WRITE


class Connection:
    """Over `sock`, which has not shaken hands. OSError from any step: the connection is of no use any more."""

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, max_body: int) -> None:
        sock.setblocking(False)
        self.sock: Any = sock
        self.requests: Requests
        self.last = False
        """What is being answered is the last request."""
        # The worker's own: what it waits for, what it then calls, and the bytes that it has counted as held here.
        self.watched: Wait | None = None
        self.then: Callable[[Connection], None]
        self.counted = 0
        self._cfg, self._max_body = cfg, max_body
        self._address = client[0] if isinstance(client, tuple) else ""
        self._drained = 0

    @property
    def shaken(self) -> bool:
        """Hands have been shaken."""
        return hasattr(self, "requests")

    @property
    def begun(self) -> bool:
        """Some of a request is here."""
        return self.shaken and self.requests.begun

    @property
    def unsent(self) -> int:
        """Bytes of answers that the peer does not take yet."""
        return len(self.sock.unsent) if self.shaken else 0

    @property
    def held(self) -> int:
        """Bytes kept for or from the peer."""
        return self.unsent + self.requests.held if self.shaken else 0

    @property
    def patience(self) -> float:
        """Seconds."""
        return float(self.sock.patience)

    def shake(self) -> Wait | None:
        """Go on with the handshake."""
        if not isinstance(self.sock, ImpatientSocket):
            self.sock = ssl_wrap_socket(self.sock, self._cfg)
        try:
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            return Wait.READABLE
        except ssl.SSLWantWriteError:
            return Wait.WRITABLE
        self.requests = Requests(Peer(self.sock, self._address), self._max_body)
        return None

    def receive(self) -> Wait | None:
        """Read until a request is there. EOFError when the peer has no more; Refused when it can be none."""
        for _ in range(MOST_STEPS):
            try:
                data = self.sock.recv(CHUNK)
            except ssl.SSLWantReadError:
                return Wait.READABLE
            except ssl.SSLWantWriteError:
                return Wait.WRITABLE
            if not data:
                raise EOFError
            if self.requests.feed(data):
                self.sock.sendall(CONTINUE)
            if self.requests.whole:
                return None
        return Wait.READABLE

    def has_more(self) -> bool:
        """Something has been read already of which the poller does not know."""
        return bool(self.sock.pending())

    def say(self, method: str, answer: Answer) -> None:
        """In one write, unless it is large: putting head and body together would hold both twice."""
        try:
            head, body = head_of(answer, last=self.last), b"" if method == "HEAD" else answer.body
            if len(body) <= CHUNK:
                self.sock.sendall(head + body)
            else:
                self.sock.sendall(head)
                self.sock.sendall(body)
        finally:
            if answer.sent is not None:
                answer.sent()

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

    def close(self) -> None:
        """At once."""
        with contextlib.suppress(OSError):
            self.sock.close()
