"""Looks at who lives and what each acts upon: the shell round members.py."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ca.rotation.acknowledgements import Acknowledgements
from ca.rotation.asking import Address, Asking
from ca.rotation.books import Held, behind, holders, with_holders
from ca.rotation.decide import Member, waiting
from ca.rotation.members import DISCOVERY_ACCOUNT, AgentReport, Living, ReplicaReport, Seen, members_of
from ca.rotation.state import Phase, Rotation
from ca.settings import CA
from mesh.errors import HeddleError, InvalidInput, Unavailable
from mesh.identity import Identity
from mesh.ports import CA as CA_PORT
from mesh.ports import DISCOVERY as DISCOVERY_PORT
from mesh.wire import TrustReport


@dataclass(frozen=True, slots=True)
class Place:
    """Where this ca is. `own` is its title; `control` the control plane's namespace.

    `discovery`: where discovery listens when it has no pods, and `expected` the components that have none then.
    """

    trust_domain: str
    own: str
    control: str
    discovery: Address | None = None
    expected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """What a replica knows itself.

    `living` as Population's; `own`: what it says of itself, None before it has a certificate; `carriers` as `Seen`'s,
    None before they are known; `held` as `books.Reader`'s, by the fingerprint of a root.
    """

    living: Callable[[], tuple[Living, ...] | None]
    own: Callable[[], ReplicaReport | None]
    carriers: Callable[[], Mapping[str, int | None] | None]
    held: Callable[[str, Collection[str], int], tuple[Held, ...]]


class Observer:
    """Asks who else knows something."""

    def __init__(self, place: Place, known: Known, acknowledgements: Acknowledgements, asking: Asking) -> None:
        self._place, self._known = place, known
        self._acknowledgements, self._asking = acknowledgements, asking
        self._looking = threading.Lock()

    def members(self, state: Rotation) -> tuple[Member, ...]:
        """Everyone who counts in that state, as of now; nobody while it is not known who lives.

        Takes some seconds at worst. In `drain`, once everyone says that they are done, by the books too.
        """
        with self._looking:
            seen = self._seen()
            if seen is None:
                return ()
            found = members_of(seen)
            if state.phase is Phase.DRAIN and not waiting(state, found).missing:
                return with_holders(
                    found, behind(state, seen) or self._holders(state, state.leaves, seen, state.order.number)
                )
            return found

    def lasting(self, state: Rotation) -> tuple[Member, ...]:
        """Who holds a certificate of the root that signs now, which a rotation could only wait for."""
        with self._looking:
            seen = self._seen()
            return () if seen is None else self._holders(state, state.stays, seen)

    def _holders(self, state: Rotation, root: str, seen: Seen, order: int = 0) -> tuple[Member, ...]:
        try:
            return holders(self._known.held(root, seen.spoken_for(), order), state, root)
        except HeddleError as error:
            trouble = f"it cannot read which certificates there are: {error.message}"
            return (Member(self._place.own, state.sequence, leaf=root, trouble=trouble),)

    def told(self) -> dict[str, Any]:
        """What this replica knows itself: the body of `GET /v1/trust`. Raises Unavailable before it knows anything."""
        own = self._known.own()
        if own is None:
            raise Unavailable("this replica has no certificate yet")
        components = self._acknowledgements.current().items()
        return {
            "replica": self._place.own,
            **own.report.as_json(),
            "signs": own.signs,
            "unwritten": own.unwritten,
            "published": own.published,
            "components": [{"name": title, "age": age, **report.as_json()} for title, (report, age) in components],
        }

    def _seen(self) -> Seen | None:
        living, own, carriers = self._known.living(), self._known.own(), self._known.carriers()
        return None if living is None or own is None or carriers is None else self._look(living, own, carriers)

    def _look(self, living: tuple[Living, ...], own: ReplicaReport, carriers: Mapping[str, int | None]) -> Seen:
        place = self._place
        troubles: dict[str, str] = {}
        replicas = {place.own: own}
        said = self._acknowledgements.current()
        others = [pod for pod in living if pod.is_ca(place.control) and pod.title != place.own and pod.ip]
        for pod in others:
            body = self._asked(pod.title, (pod.ip, pod.ports.get("https", CA_PORT)), CA, troubles)
            if body is None:
                continue
            try:
                replicas[pod.title] = _replica(body)
                _unite(said, body["components"])
            except (HeddleError, KeyError, TypeError, ValueError) as error:
                troubles[pod.title] = f"its answer cannot be read: {error}"
        agents: list[AgentReport] = []
        places = self._discoveries(living)
        for title, at in places.items():
            body = self._asked(title, at, DISCOVERY_ACCOUNT, troubles)
            if body is not None:
                try:
                    agents += [_agent(one) for one in body["proxies"]]
                except (HeddleError, KeyError, TypeError, ValueError) as error:
                    troubles[title] = f"its answer cannot be read: {error}"
        if not places:
            troubles["discovery"] = "it has no pod that is ready"
        self._asking.keep_only([*places.values(), *((pod.ip, pod.ports.get("https", CA_PORT)) for pod in others)])
        components = {title: report for title, (report, _) in said.items()}
        return Seen(
            living,
            tuple(agents),
            components,
            replicas,
            place.control,
            place.expected,
            troubles,
            carriers,
        )

    def _discoveries(self, living: tuple[Living, ...]) -> dict[str, Address]:
        if self._place.discovery is not None:
            return {"discovery": self._place.discovery}
        return {
            pod.title: (pod.ip, pod.ports.get("https", DISCOVERY_PORT))
            for pod in living
            if pod.is_component(self._place.control) and pod.account == DISCOVERY_ACCOUNT and pod.ip and pod.ready
        }

    def _asked(self, title: str, at: Address, account: str, troubles: dict[str, str]) -> Any:
        try:
            return self._asking.ask(at, Identity(self._place.trust_domain, self._place.control, account))
        except HeddleError as error:
            troubles[title] = error.message
            return None


def _unite(said: dict[str, tuple[TrustReport, float]], others: list[Mapping[str, Any]]) -> None:
    """Add what another replica was told, where that is later."""
    for one in others:
        title, age = str(one["name"]), float(one["age"])
        if title not in said or age < said[title][1]:
            said[title] = TrustReport.parse(one), age


def _replica(body: Mapping[str, Any]) -> ReplicaReport:
    """A replica of an earlier version tells nothing of books."""
    published = body.get("published")
    return ReplicaReport(
        TrustReport.parse(body),
        str(body["signs"]),
        int(body.get("unwritten", 0)),
        None if published is None else int(published),
    )


def _agent(raw: Mapping[str, Any]) -> AgentReport:
    if not isinstance(raw, dict):
        raise InvalidInput("a proxy is not an object", field="proxies")
    report = None if raw.get("trust") is None else TrustReport.parse(raw["trust"])
    title = f"{raw['namespace']}/{raw['pod']}"
    return AgentReport(title, str(raw["uid"]), bool(raw["connected"]), report, str(raw.get("agentVersion", "")))
