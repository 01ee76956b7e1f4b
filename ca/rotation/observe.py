"""Looks at who lives and what each acts upon: the shell round members.py."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ca.rotation.acknowledgements import Acknowledgements
from ca.rotation.asking import Address, Asking
from ca.rotation.decide import Member
from ca.rotation.members import DISCOVERY_ACCOUNT, AgentReport, Living, ReplicaReport, Seen, members_of
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


class Observer:
    """`own` is what this replica says of itself, None before it has a certificate; `living` as Population's."""

    def __init__(
        self,
        place: Place,
        living: Callable[[], tuple[Living, ...] | None],
        own: Callable[[], ReplicaReport | None],
        acknowledgements: Acknowledgements,
        asking: Asking,
    ) -> None:
        self._place, self._living, self._own = place, living, own
        self._acknowledgements, self._asking = acknowledgements, asking
        self._looking = threading.Lock()

    def members(self) -> tuple[Member, ...]:
        """Everyone who counts, as of now; nobody while it is not known who lives. Takes some seconds at worst."""
        with self._looking:
            living = self._living()
            own = self._own()
            return () if living is None or own is None else members_of(self._look(living, own))

    def told(self) -> dict[str, Any]:
        """What this replica knows itself: the body of `GET /v1/trust`. Raises Unavailable before it knows anything."""
        own = self._own()
        if own is None:
            raise Unavailable("this replica has no certificate yet")
        components = self._acknowledgements.current().items()
        return {
            "replica": self._place.own,
            **own.report.as_json(),
            "signs": own.signs,
            "components": [{"name": title, "age": age, **report.as_json()} for title, (report, age) in components],
        }

    def _look(self, living: tuple[Living, ...], own: ReplicaReport) -> Seen:
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
                replicas[pod.title] = ReplicaReport(TrustReport.parse(body), str(body["signs"]))
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
        return Seen(living, tuple(agents), components, replicas, place.control, place.expected, troubles)

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


def _agent(raw: Mapping[str, Any]) -> AgentReport:
    if not isinstance(raw, dict):
        raise InvalidInput("a proxy is not an object", field="proxies")
    report = None if raw.get("trust") is None else TrustReport.parse(raw["trust"])
    title = f"{raw['namespace']}/{raw['pod']}"
    return AgentReport(title, str(raw["uid"]), bool(raw["connected"]), report, str(raw.get("agentVersion", "")))
