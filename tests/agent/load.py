"""Requests one after another over a keep-alive connection, in a thread, counted by answer."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections import Counter


class Load:
    """`with Load(port) as load: ...`; afterwards `answers` and `failures` say what happened."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None, path: str = "/") -> None:
        self._port, self._tls, self._path = port, tls, path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answers: Counter[bytes] = Counter()
        self.failures: list[str] = []
        self.connections = 0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def total(self) -> int:
        return sum(self.answers.values())

    def _connect(self) -> http.client.HTTPConnection:
        self.connections += 1
        if self._tls is not None:
            return http.client.HTTPSConnection("127.0.0.1", self._port, timeout=10, context=self._tls)
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)

    def _run(self) -> None:
        connection = self._connect()
        while not self._stop.is_set():
            try:
                connection.request("GET", self._path)
                response = connection.getresponse()
                body = response.read()
                if response.status == 200:
                    self.answers[body] += 1
                else:
                    self.failures.append(f"{response.status} {body.decode(errors='replace')}")
                if response.will_close:
                    connection.close()
                    connection = self._connect()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                connection = self._connect()
            self._stop.wait(0.002)
        connection.close()
