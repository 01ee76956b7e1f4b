"""A steady load on an address: run as a program where the address is reached, told what to do on standard input.

    python load.py http://HOST:PORT/PATH RATE [CA_FILE SERVER_NAME]

Half of the requests are made on connections that stay open, half on connections of their own. For each line read, a
line with what was counted since the last one: {"requests", "failures": {what: count}, "seconds", "slowest"}.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

WORKERS = 16
TIMEOUT = 15.0


class Load:
    """`WORKERS` threads that ask at `rate` requests a second in all."""

    def __init__(self, url: str, rate: float, tls: tuple[str, str] | None) -> None:
        self._parts = urlsplit(url)
        self._every = WORKERS / rate
        self._context = ssl.create_default_context(cafile=tls[0]) if tls else None
        self._name = tls[1] if tls else ""
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._requests, self._failures, self._slowest, self._since = 0, Counter[str](), 0.0, time.monotonic()

    def take(self) -> dict[str, Any]:
        """What was counted since the last call."""
        with self._lock:
            found = {
                "requests": self._requests,
                "failures": dict(self._failures),
                "seconds": round(time.monotonic() - self._since, 1),
                "slowest": round(self._slowest, 3),
            }
            self._reset()
        return found

    def run(self, number: int) -> None:
        kept: http.client.HTTPConnection | None = None
        due = time.monotonic() + self._every * number / WORKERS
        turn = number
        while True:
            time.sleep(max(0.0, due - time.monotonic()))
            due += self._every
            turn += 1
            own = turn % 2 == 0
            connection = self._connection() if own or kept is None else kept
            began, failure = time.monotonic(), ""
            try:
                connection.request("GET", self._parts.path, headers={"host": self._name} if self._name else {})
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    failure = f"status {answer.status}"
                closes = answer.will_close
            except (OSError, http.client.HTTPException) as error:
                # A server may close a kept connection at any time, also while a request is on its way to it: clients
                # send it again on a new one (RFC 9112 section 9.3.1), and so does this one.
                if connection is kept and isinstance(error, (http.client.RemoteDisconnected, ConnectionResetError)):
                    kept = None
                    due -= self._every
                    turn += 1
                    continue
                failure, closes = f"{type(error).__name__}: {error}", True
            if own or closes:
                connection.close()
                kept = None if connection is kept else kept
            else:
                kept = connection
            self._count(failure, time.monotonic() - began)

    def _count(self, failure: str, took: float) -> None:
        with self._lock:
            self._requests += 1
            self._slowest = max(self._slowest, took)
            if failure:
                self._failures[failure] += 1

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port or 80
        if self._context is None:
            return http.client.HTTPConnection(host, port, timeout=TIMEOUT)
        return _Named(host, port, self._name, self._context)


class _Named(http.client.HTTPSConnection):
    """To an address, by a name that it does not have in DNS."""

    def __init__(self, host: str, port: int, name: str, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=TIMEOUT, context=context)
        self._name, self._own_context = name, context

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), self.timeout)
        self.sock = self._own_context.wrap_socket(plain, server_hostname=self._name)


def main() -> None:
    url, rate, *tls = sys.argv[1:]
    load = Load(url, float(rate), (tls[0], tls[1]) if tls else None)
    for number in range(WORKERS):
        threading.Thread(target=load.run, args=(number,), daemon=True).start()
    for _ in sys.stdin:
        print(json.dumps(load.take()), flush=True)


if __name__ == "__main__":
    main()
