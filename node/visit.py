"""One look into a pod's network namespace: does a gate wait there, is it one, and write the rules of its pod.

What is believed, and why (docs/adr/0130):
* Whose listener it is, the kernel says: the user whose connections the rules exempt.
* Which pod it is, the gate says; the pod must be known by that uid, which only those who can read it know, and the
  namespace must have the pod's address as soon as the API server knows one.
* What is to be intercepted, the API server's pod says. Rules that are there are never changed.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mesh import ports
from mesh.errors import Busy, Forbidden, HeddleError, InvalidInput, NotFound, Unavailable
from mesh.interception import InterceptionSpec
from node.claim import LONGEST_LINE, PodName, parse_claim, reply_line
from node.enter import inside, is_local
from node.pods import Gated
from node.schedule import Visit

DOOR = ("127.0.0.1", ports.GATE)
CONNECT_SECONDS = 0.2
CLAIM_SECONDS = 1.0

_MOST_ROWS = 4096  # of /proc/net/tcp, in which listeners come first
_LISTENING = "0A"
_USER_RANGE = 65536  # a pod with a user namespace has its users at a multiple of this: kubelet's allocation
_SOCKETS = Path("/proc/thread-self/net/tcp")

Find = Callable[[PodName], Gated]
Write = Callable[[InterceptionSpec], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`pod` is the one whose gate waits there, None when none is known to; `error` is "" unless `visit` is FAILED.

    `passing`: it may well be right the next time, and nobody has to be told.
    """

    visit: Visit
    pod: PodName | None = None
    error: str = ""
    passing: bool = False


def look(namespace: Path, host_address: str, find: Find, write: Write) -> Outcome:
    """Enter `namespace`. `find` gives the pod that a gate says it is; `write` puts rules in force where it is called,
    or raises HeddleError."""
    try:
        with inside(namespace, host_address):
            return _serve(find, write)
    except NotFound:
        return Outcome(Visit.NOBODY)
    except HeddleError as error:
        return Outcome(Visit.FAILED, None, str(error), isinstance(error, Busy))


def _serve(find: Find, write: Write) -> Outcome:
    try:
        connection = socket.create_connection(DOOR, timeout=CONNECT_SECONDS)
    except OSError:
        return Outcome(Visit.NOBODY)
    known: PodName | None = None
    with connection:
        try:
            pod = find(parse_claim(_line(connection)))
            _check_address(pod)
            try:
                spec = pod.spec()
            except InvalidInput:
                known = pod.pod
                raise
            with _SOCKETS.open(encoding="ascii") as rows:
                check_owner(rows, spec.proxy_uid)
            known = pod.pod
            write(spec)
        except NotFound:
            return Outcome(Visit.NOBODY)
        except HeddleError as error:
            _reply(connection, str(error))
            return Outcome(Visit.FAILED, known, str(error), isinstance(error, Unavailable | Busy))
        _reply(connection, "")
    return Outcome(Visit.WRITTEN, known)


def _check_address(pod: Gated) -> None:
    """Unavailable when this cannot be the network namespace of `pod`, or only of its former sandbox."""
    if pod.addresses and not any(map(is_local, pod.addresses)):
        raise Unavailable(f"this is not the network namespace of pod {pod.pod}, whose address is {pod.addresses[0]}")


def check_owner(rows: Iterable[str], uid: int) -> None:
    """Forbidden unless the listener at the gate's door is that of user `uid`, by the rows of /proc/net/tcp.

    Source: the kernel's documentation, proc_net_tcp (local address, state in column 4, user in column 8).
    """
    door = f"{int.from_bytes(ipaddress.IPv4Address(DOOR[0]).packed, sys.byteorder):08X}:{DOOR[1]:04X}"
    for number, row in enumerate(rows):
        words = row.split()
        if number > _MOST_ROWS:
            break
        if len(words) > 7 and words[1] == door and words[3] == _LISTENING:
            if int(words[7]) % _USER_RANGE == uid:
                return
            raise Forbidden(f"user {words[7]} listens where the gate should, which runs as {uid}")
    raise Forbidden("what listens where the gate should listens on other addresses too, which a gate does not")


def _line(connection: socket.socket) -> bytes:
    """What the gate sends at once; Unavailable when it does not, NotFound when it hangs up without a word: it ends."""
    until = time.monotonic() + CLAIM_SECONDS
    line = b""
    try:
        while b"\n" not in line:
            connection.settimeout(max(until - time.monotonic(), 0.001))
            part = connection.recv(LONGEST_LINE - len(line))
            if not part and not line:
                raise NotFound("the gate hung up")
            if not part:
                raise Unavailable("the gate hung up in the middle, or says more than a gate does")
            line += part
    except ConnectionResetError:
        raise NotFound("the gate hung up") from None
    except OSError as error:
        raise Unavailable(f"the gate says nothing: {error}") from None
    return line


def _reply(connection: socket.socket, error: str) -> None:
    """The gate may be gone by now; it looks for itself anyway."""
    try:
        connection.settimeout(CLAIM_SECONDS)
        connection.sendall(reply_line(error))
    except OSError:
        return
