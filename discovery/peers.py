"""The other replicas of discovery: where they are, and what they say of the proxies that are connected to them.

They are asked by mutual TLS, as agents ask (docs/adr/0141-status-of-objects.md). One that does not answer is left out
of the counts until it does.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from http.client import HTTPException, HTTPSConnection
from typing import Any

import orjson
import structlog

from discovery.tally import Count, Refusal, Thing
from mesh.errors import HeddleError
from mesh.identity import Identity
from mesh.objects import Pod
from mesh.ports import DISCOVERY
from mesh.snapshot import Snapshot
from svid.material import PodRef
from svid.tls import check_peer

ACCOUNT = "heddle-discovery"
PORT_NAME = "https"
TIMEOUT_SECONDS = 3.0
PATH = "/v1/tally"

Tally = Mapping[Thing, tuple[int, Count]]
"""For each object, the generation (its own, of its metadata) that the count is about."""

log = structlog.get_logger("discovery")


def other_replicas(snapshot: Snapshot, own: PodRef) -> Iterator[tuple[str, str, int]]:
    """Name, address and port of each."""
    for pod in snapshot.pods.values():
        replica = pod.meta.namespace == own.namespace and pod.service_account == ACCOUNT
        if replica and pod.meta.name != own.name and pod.ip and pod.ready and not pod.deleting:
            yield pod.meta.name, pod.ip, _port(pod)


def _port(pod: Pod) -> int:
    return next((port.port for port in pod.ports if port.name == PORT_NAME), DISCOVERY)


class Peers:
    """Asks them. `context` gives the TLS context to connect with, as of now."""

    def __init__(self, own_pod: PodRef, context: Callable[[], ssl.SSLContext]) -> None:
        self._own_pod, self._context = own_pod, context

    def tallies(self, snapshot: Snapshot) -> list[Tally]:
        """What those that answer say."""
        expected = Identity(snapshot.settings.trust_domain, self._own_pod.namespace, ACCOUNT)
        found = []
        for name, address, port in other_replicas(snapshot, self._own_pod):
            try:
                found.append(self._ask(address, port, expected))
            except (OSError, HTTPException, HeddleError, ValueError, KeyError, TypeError) as error:
                log.warning("another replica does not say what its proxies have", replica=name, error=str(error))
        return found

    def _ask(self, address: str, port: int, expected: Identity) -> Tally:
        connection = HTTPSConnection(address, port, timeout=TIMEOUT_SECONDS)
        with closing(connection):
            plain = socket.create_connection((address, port), TIMEOUT_SECONDS)
            connection.sock = self._context().wrap_socket(plain)
            check_peer(connection.sock, {expected})
            connection.request("GET", PATH)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise ValueError(f"it answered {answer.status}")
            return tally_from(orjson.loads(body))


def tally_json(tally: Tally) -> dict[str, Any]:
    """The body of `GET /v1/tally`."""
    return {
        "objects": [
            [
                *thing,
                generation,
                count.applied,
                count.total,
                [[one.pod, one.resource, one.message] for one in count.refused],
            ]
            for thing, (generation, count) in tally.items()
        ]
    }


def tally_from(raw: Mapping[str, Any]) -> Tally:
    """The tally in such a body."""
    found: dict[Thing, tuple[int, Count]] = {}
    for kind, namespace, name, generation, applied, total, refused in raw["objects"]:
        refusals = tuple(Refusal(*map(str, one)) for one in refused)
        found[Thing(kind, namespace, name)] = (int(generation), Count(int(applied), int(total), refusals))
    return found


def united(own: Tally, others: list[Tally], thing: Thing, generation: int) -> Count:
    """The counts of all replicas. One that has another version of the object has proxies, and none with this one."""
    count = Count()
    for tally in (own, *others):
        about, counted = tally.get(thing, (generation, Count()))
        count += counted if about == generation else Count(0, counted.total)
    return count
