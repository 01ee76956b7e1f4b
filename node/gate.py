"""`heddle-gate`: the first init container of a pod whose rules are written from outside (`istio-validation`).

It tells the node agent, which looks in from outside, which pod this is (node/claim.py), and ends when it has proven
that connections are turned round (node/proof.py), in each IP version that the pod has. It has no capability and runs
as the proxy's user. Exit 0: proven. Exit 1: not in time, or impossible; the sentence that says what is missing is
on stderr and in the container's termination message.

It waits longer than the ten minutes after which kubelet forgets its back-off, so that however long an agent was away,
the gate is never more than ten seconds from being run again; pods that are not restarted (Jobs) fail late.
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

from mesh import ports
from mesh.errors import HeddleError, MissingPrerequisite, Unavailable
from mesh.interception import Family, InterceptionSpec, parse_arguments
from netfilter.rules import ipv6_addresses, routable
from node.claim import LONGEST_LINE, PodName, claim_line, parse_reply
from node.proof import Probe, check_user, probes, what_is_missing

WAIT_SECONDS = 630.0
PROBE_SECONDS = 0.25
SAY_SECONDS = 30.0
TERMINATION_LOG = Path("/dev/termination-log")

_NOT_YET = "?"
_ARRIVAL_SECONDS = 1.0
_MOST_CONNECTIONS = 8
_ORIGINAL_DST = 80  # SO_ORIGINAL_DST, and IP6T_SO_ORIGINAL_DST: linux/netfilter_ipv4.h, netfilter_ipv6/ip6_tables.h

log = logging.getLogger("heddle-gate")


def main(arguments: list[str] | None = None) -> int:
    """The console script; the arguments are those of mesh.interception.arguments, as heddle-init has them."""
    logging.basicConfig(level=logging.INFO, format="heddle-gate: %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, _end)  # the first process of a container has no default action
    environment = os.environ
    try:
        spec = parse_arguments(sys.argv[1:] if arguments is None else arguments)
        pod = PodName(*(environment.get(name, "") for name in ("POD_NAMESPACE", "POD_NAME", "POD_UID")))
        check_user(spec, os.getuid())
        with Gate(spec, pod, environment.get("NODE_NAME", "")) as gate:
            gate.wait(WAIT_SECONDS)
    except HeddleError as error:
        log.error("%s", error)
        _leave_message(str(error))
        return 1
    return 0


@dataclass
class _Asked:
    """A connection of the node agent, which has been given the claim."""

    connection: socket.socket
    said: bytes = field(default=b"")


class Gate:
    """Listens where the agent looks and where connections must arrive. MissingPrerequisite when a port is taken."""

    def __init__(
        self, spec: InterceptionSpec, pod: PodName, node: str = "", monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._spec, self._node, self._monotonic = spec, node, monotonic
        self._line = claim_line(pod)
        self._told = _NOT_YET
        self._asked: list[_Asked] = []
        self._arrivals: dict[Family, socket.socket] = {}
        self._door = _listen(Family.V4, ("127.0.0.1", ports.GATE))

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._door, *self._arrivals.values(), *(asked.connection for asked in self._asked)):
            each.close()

    def wait(self, seconds: float) -> None:
        """Return when interception is proven; Unavailable, which says what is missing, after `seconds`."""
        began = said = self._monotonic()
        missing = self.prove()
        if missing:
            log.info("waiting for heddle-node to write the interception rules of this pod")
        while missing:
            now = self._monotonic()
            if now - began >= seconds:
                raise Unavailable(f"the pod does not start after {seconds:.0f} s, it is {missing}")
            if now - said >= SAY_SECONDS:
                log.info("still waiting, the pod is %s", missing)
                said = now
            self._serve(PROBE_SECONDS)
            missing = self.prove()

    def prove(self) -> str:
        """Try every probe now; "" when all hold, otherwise what is missing."""
        tried = probes(self._spec, routable(ipv6_addresses()))
        outcomes = {probe.family: self._try(probe) for probe in tried}
        if any(outcomes.values()):
            return what_is_missing(outcomes, self._told, self._node)
        log.info("connections of this pod go through the proxy: %s", ", ".join(f"IPv{f.version}" for f in outcomes))
        return ""

    def _try(self, probe: Probe) -> str:
        """ "" when the connection arrives where it must, byte for byte; otherwise why not."""
        if probe.family not in self._arrivals:
            self._arrivals[probe.family] = _listen(probe.family, probe.arrives)
        listener = self._arrivals[probe.family]
        proof = secrets.token_bytes(16)
        with socket.socket(listener.family, socket.SOCK_STREAM) as sent:
            sent.settimeout(_ARRIVAL_SECONDS)
            # Closed by a reset: nothing of the proof lingers on the proxy's port.
            sent.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            try:
                sent.connect(probe.target)
                sent.sendall(proof)
                return _arrived(listener, sent.getsockname()[:2], probe.target, proof)
            except OSError as error:
                return f"a connection to {probe.target[0]} is not turned round: {error.strerror or error}"

    def _serve(self, seconds: float) -> None:
        """Give the claim to agents that come and take in what they say, until one did or `seconds` are over."""
        waiting: dict[socket.socket, _Asked] = {asked.connection: asked for asked in self._asked}
        ready, _, _ = select.select([self._door, *waiting], [], [], seconds)
        for one in ready:
            if one is self._door:
                self._greet()
            else:
                self._hear(waiting[one])

    def _greet(self) -> None:
        try:
            connection, _ = self._door.accept()
        except OSError:
            return
        if len(self._asked) >= _MOST_CONNECTIONS:
            self._drop(self._asked[0])
        asked = _Asked(connection)
        self._asked.append(asked)
        try:
            connection.settimeout(_ARRIVAL_SECONDS)
            connection.sendall(self._line)
        except OSError:
            self._drop(asked)

    def _hear(self, asked: _Asked) -> None:
        try:
            part = asked.connection.recv(LONGEST_LINE)
        except OSError:
            part = b""
        asked.said += part
        if part and b"\n" not in asked.said and len(asked.said) <= LONGEST_LINE:
            return
        self._drop(asked)
        if b"\n" in asked.said:
            try:
                told = parse_reply(asked.said)
            except HeddleError as error:
                told = str(error)
            if told and told != self._told:
                log.warning("heddle-node says: %s", told)
            self._told = told

    def _drop(self, asked: _Asked) -> None:
        self._asked.remove(asked)
        asked.connection.close()


def _arrived(listener: socket.socket, source: tuple[str, int], target: tuple[str, int], proof: bytes) -> str:
    """Whether the connection from `source` is among those that `listener` gets; others are closed."""
    while select.select([listener], [], [], _ARRIVAL_SECONDS)[0]:
        connection, peer = listener.accept()
        with connection:
            if peer[:2] != source:
                continue
            meant = original_destination(connection)
            if meant != target:
                return f"it arrived as a connection to {meant}, not as one to {target}"
            connection.settimeout(_ARRIVAL_SECONDS)
            return (
                "" if connection.recv(len(proof), socket.MSG_WAITALL) == proof else "other bytes arrived than were sent"
            )
    return f"a connection to {target[0]} is answered by something else"


def original_destination(connection: socket.socket) -> tuple[str, int] | None:
    """Where an accepted connection was going before iptables turned it round; None when it was not."""
    try:
        if connection.family == socket.AF_INET6:
            raw = connection.getsockopt(socket.IPPROTO_IPV6, _ORIGINAL_DST, 28)
            return socket.inet_ntop(socket.AF_INET6, raw[8:24]), int.from_bytes(raw[2:4], "big")
        raw = connection.getsockopt(socket.IPPROTO_IP, _ORIGINAL_DST, 16)
        return socket.inet_ntop(socket.AF_INET, raw[4:8]), int.from_bytes(raw[2:4], "big")
    except OSError:
        return None


def _listen(family: Family, address: tuple[str, int]) -> socket.socket:
    kind = socket.AF_INET6 if family is Family.V6 else socket.AF_INET
    try:
        return socket.create_server(address, family=kind)
    except OSError as error:
        raise MissingPrerequisite(
            f"{address[0]} port {address[1]} is not free for the gate: {error.strerror or error}",
            hint="it must be the first init container, before anything that listens there",
        ) from None


def _leave_message(sentence: str) -> None:
    try:
        TERMINATION_LOG.write_text(sentence)
    except OSError:
        log.debug("no termination message", exc_info=True)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(143)


if __name__ == "__main__":
    sys.exit(main())
