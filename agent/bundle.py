"""What one subscription of Envoy's gets: the parts it is made of, what Envoy took of them, and what it refused.

A subscription is all clusters, all listeners, one endpoint set, one route configuration or one secret. Its parts are
the resources as discovery names them; a route configuration has itself and its virtual hosts as parts.

What Envoy 1.40 does over REST (seen, and in `http_subscription_impl.cc`): the next poll carries the version of the last
answer taken whole. A refusal shows only as a poll with an older version, and the reason only in Envoy's log. Clusters
and listeners that it could build are in force even so, and the message names the others; when a single one breaks a
constraint of its message type, nothing of the answer is in force and nobody is named. So a refused answer is offered
again without the parts that are named, or else in halves until it is known who is to blame.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import orjson

from mesh.wire import ResourceType
from mesh.xds import TYPE_URLS, assemble_routes

_LIST_OF_ERRORS = re.compile(r"Error adding/updating (?:cluster|listener)\(s\) ")
_NAMED = re.compile(r"(?:\A|, |\n)(\S+): ")  # clusters are listed with commas, listeners with line ends
MAX_MESSAGE = 2048


class Part(NamedTuple):
    """A resource as discovery sent it: its version, and its JSON."""

    version: str
    data: bytes


Parts = Mapping[str, Part]


def part(version: str, resource: object) -> Part:
    """The part that `resource` (JSON values) is. A copy: orjson keeps kilobytes of spare room with each text."""
    return Part(version, bytes(memoryview(orjson.dumps(resource))))


class Refusal(NamedTuple):
    """Why Envoy did not take a part, in Envoy's words."""

    version: str
    message: str
    since: str


class Bundle:
    """`target` is what should be in force. `offer` is what Envoy is told now, as version `number`."""

    __slots__ = (
        "_next", "_trial", "_untried", "accepted", "answered", "kind", "name", "number", "offer", "refused", "stuck",
        "taken", "target",
    )  # fmt: skip

    def __init__(self, kind: ResourceType, name: str, next_number: Callable[[], int]) -> None:
        """`next_number` never gives the same number twice, not even to another bundle."""
        self.kind, self.name = kind, name
        self._next = next_number
        self.number = next_number()
        self.answered = False
        self.accepted = False
        self.stuck = False
        """Envoy refuses the offer, and there is nothing else to offer: its polls are held."""
        self.target: Parts = {}
        self.offer: Parts = {}
        self.taken: Parts = {}
        self.refused: dict[str, Refusal] = {}
        self._trial: list[str] = []
        self._untried: list[list[str]] = []

    @property
    def settled(self) -> bool:
        """Nothing more is to be expected of Envoy for this offer."""
        return self.accepted or self.stuck

    @property
    def version(self) -> str:
        return str(self.number)

    def want(self, target: Parts) -> bool:
        """Make `target` what should be in force. True when Envoy has to be told something new."""
        if target == self.target:
            return False
        self.target = target
        if self.refused:
            self.refused = {
                name: refusal
                for name, refusal in self.refused.items()
                if name in target and target[name].version == refusal.version
            }
        self._trial, self._untried = [], []
        return self._offer()

    def restart(self) -> None:
        """A new Envoy knows nothing yet. What its predecessor refused it would refuse too."""
        self.answered = self.accepted = self.stuck = False
        self._trial, self._untried = [], []
        self.number = self._next()
        self._offer()

    def body(self) -> bytes:
        """The DiscoveryResponse for `offer`."""
        self.answered = True
        head = b'{"version_info":"%d","type_url":"%s","resources":[' % (self.number, TYPE_URLS[self.kind].encode())
        return head + self._resources() + b"]}"

    def _resources(self) -> bytes:
        if self.kind is not ResourceType.ROUTES:
            return b",".join([part.data for part in self.offer.values()])
        route = self.offer.get(self.name)
        if route is None:
            return b""
        hosts = sorted(name for name in self.offer if name != self.name)
        return assemble_routes(route.data, [self.offer[name].data for name in hosts])

    def take(self) -> bool:
        """Envoy polled with the current version. True when it is asked to try more right away."""
        if self.accepted:
            return False
        self.accepted = True
        self.taken = self.offer
        if not self._untried:
            self._trial = []
            return False
        self._trial = self._untried.pop(0)
        return self._offer()

    def refuse(self, message: str, now: str) -> bool:
        """Envoy polled with an older version after it had been answered. True when there is something else to offer."""
        named = blamed(message, self.offer)
        if named:
            for name, text in named.items():
                self._blame(name, text, now)
        else:
            suspects = self._trial or [name for name, part in self.offer.items() if self.taken.get(name) != part]
            suspects = suspects or list(self.offer)
            if len(suspects) > 1:
                middle = len(suspects) // 2
                self._untried[:0] = [suspects[:middle], suspects[middle:]]
            elif suspects:
                self._blame(suspects[0], message, now)
            self._trial = self._untried.pop(0) if self._untried else []
        self.stuck = not self._offer()
        return not self.stuck

    def _blame(self, name: str, message: str, now: str) -> None:
        part = self.offer[name]
        wanted = self.target.get(name)
        if wanted is not None and wanted == part:
            self.refused[name] = Refusal(part.version, message[:MAX_MESSAGE], now)
        # An older part that was good once and is not any more has nothing to fall back to.
        if self.taken.get(name) == part:
            self.taken = {other: kept for other, kept in self.taken.items() if other != name}

    def _offer(self) -> bool:
        withheld = {name for group in self._untried for name in group} | self.refused.keys()
        if not withheld:
            offer = self.target
        else:
            offer = {}
            for name, part in self.target.items():
                chosen = part if name not in withheld else self.taken.get(name)
                if chosen is not None:
                    offer[name] = chosen
        if offer == self.offer:
            self.offer = offer
            return False
        self.offer = offer
        self.number = self._next()
        self.answered = self.accepted = self.stuck = False
        return True


def blamed(message: str, names: Parts) -> dict[str, str]:
    """The parts that Envoy's message names, with what it says of each; empty when it names none."""
    start = _LIST_OF_ERRORS.match(message)
    if start is None:
        return {}
    text = message[start.end() :]
    marks = [mark for mark in _NAMED.finditer(text) if mark[1] in names]
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return {mark[1]: text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)}
