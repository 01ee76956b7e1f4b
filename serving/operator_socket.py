"""The Unix socket on which a service is asked by whoever may run a command in its container (docs/adr/0155).

Only the service's own user can open it. Standard library alone on the asking side: it starts in a moment, and takes
nothing of the memory that the service was given.
"""

from __future__ import annotations

import http.client
import os
import socket
from pathlib import Path

SOCKET = "/tmp/heddle-operator.sock"  # noqa: S108 - an emptyDir of the pod; the root file system is read-only
PATIENCE_SECONDS = 70.0


def ask(path: str, place: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of a request at the socket `place`. OSError or HTTPException when nobody answers."""
    connection = http.client.HTTPConnection("localhost", timeout=PATIENCE_SECONDS)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.sock.settimeout(PATIENCE_SECONDS)
        connection.sock.connect(place)
        connection.request(method, path, body, {} if body is None else {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def listen(place: Path) -> socket.socket:
    """A listening socket that this process's own user alone can open. Whatever was at `place` is replaced."""
    place.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(place))
    finally:
        os.umask(before)
    listener.listen()
    return listener
