"""Ports of the loopback address for the processes that tests start."""

from __future__ import annotations

import os
import random
import socket
from contextlib import suppress
from itertools import count

# Below what the kernel gives to connections and to whoever binds port 0 (ip(7), ip_local_port_range).
_FIRST, _LAST = 12000, 32000
_PARTS = 16
# Tests in several processes have parts of their own: between `free_port` and its use there is nobody who holds a port.
_part = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PARTS
_SIZE = (_LAST - _FIRST) // _PARTS
_own = range(_FIRST + _part * _SIZE, _FIRST + (_part + 1) * _SIZE)
_next = count(random.randrange(_SIZE))


def free_port() -> int:
    """One that nothing listens on; not given again before some hundred others."""
    while True:
        port = _own[next(_next) % _SIZE]
        with suppress(OSError), socket.create_server(("", port)):
            return port
