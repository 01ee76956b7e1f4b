"""Services as proxies see them: host, ports with protocols, who may see them, which pods they select."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from discovery.plan.hosts import is_visible
from discovery.plan.memo import Memo
from discovery.plan.model import Protocol
from discovery.plan.origins import Origin
from discovery.plan.protocol import protocol_of
from mesh.objects import Key, Namespace, Pod, Service

EXPORT_ANNOTATION = "networking.istio.io/exportTo"
DISTRIBUTION_ANNOTATION = "networking.istio.io/traffic-distribution"


class Near(StrEnum):
    """Which endpoints a client prefers (`spec.trafficDistribution`)."""

    ANY = ""
    ZONE = "zone"
    NODE = "node"


_NEAR = {"PreferClose": Near.ZONE, "PreferSameZone": Near.ZONE, "PreferSameNode": Near.NODE}


@dataclass(frozen=True, slots=True, eq=False)
class Port:
    """`name` is the service port's (endpoint slices refer to it); `target` a container's port number or name."""

    number: int
    name: str
    protocol: Protocol
    target: int | str


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One service. `ports` leaves out what is not TCP. `export_to` is empty where everyone may see it."""

    service: Service
    key: Key
    host: str
    ports: tuple[Port, ...]
    export_to: tuple[str, ...]
    origin: Origin
    near: Near = Near.ANY

    @property
    def namespace(self) -> str:
        return self.key.namespace

    @property
    def is_external(self) -> bool:
        return self.service.type == "ExternalName"

    def port(self, number: int) -> Port | None:
        return next((port for port in self.ports if port.number == number), None)

    def is_visible(self, namespace: str) -> bool:
        return is_visible(self.export_to, self.key.namespace, namespace)


def entry_of(service: Service, domain: str, distribution: str = "") -> Entry:
    """`distribution`: the namespace's wish, for services that say nothing.

    Source: https://istio.io/latest/docs/ambient/usage/traffic-distribution/ (precedence)
    """
    exported = service.meta.annotations.get(EXPORT_ANNOTATION, "")
    ports = []
    for port in service.ports:
        protocol = protocol_of(port)
        if protocol is not None:
            ports.append(Port(port.port, port.name, protocol, port.target or port.port))
    return Entry(
        service=service,
        key=service.meta.key,
        host=service.hostname(domain).lower(),
        ports=tuple(ports),
        export_to=tuple(part.strip() for part in exported.split(",") if part.strip()),
        origin=Origin("Service", service.meta.namespace, service.meta.name),
        near=_near(
            service.traffic_distribution or service.meta.annotations.get(DISTRIBUTION_ANNOTATION, "") or distribution
        ),
    )


def _near(distribution: str) -> Near:
    return _NEAR.get(distribution, Near.ANY)


@dataclass(frozen=True, slots=True, eq=False)
class Services:
    """`entries`: oldest first, then by name. `selecting`: namespace and one label -> services whose selector has it."""

    entries: tuple[Entry, ...]
    by_host: Mapping[str, Entry]
    selecting: Mapping[tuple[str, str, str], tuple[Entry, ...]]
    near: frozenset[Near]
    """All preferences that there are."""

    def of_pod(self, pod: Pod) -> tuple[Entry, ...]:
        """The services that select `pod`, oldest first."""
        labels = pod.meta.labels
        candidates: list[Entry] = []
        for label, value in labels.items():
            candidates.extend(self.selecting.get((pod.meta.namespace, label, value), ()))
        found = [entry for entry in candidates if entry.service.selector.items() <= labels.items()]
        return tuple(sorted(found, key=_age))


Wishes = tuple[tuple[str, str], ...]
"""Namespaces that say how traffic to their services is distributed, and what they say."""


def wishes_of(namespaces: Mapping[str, Namespace]) -> Wishes:
    said = ((name, one.meta.annotations.get(DISTRIBUTION_ANNOTATION, "")) for name, one in namespaces.items())
    return tuple(sorted((name, wish) for name, wish in said if wish))


def services_of(memo: Memo, services: Mapping[Key, Service], wishes: Wishes, domain: str) -> Services:
    wished = dict(wishes)
    found = (memo(entry_of, one, domain, wished.get(one.meta.namespace, "")) for one in services.values())
    entries = tuple(sorted(found, key=_age))
    selecting: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        if entry.service.selector:
            label, value = min(entry.service.selector.items())
            selecting.setdefault((entry.key.namespace, label, value), []).append(entry)
    return Services(
        entries=entries,
        by_host={entry.host: entry for entry in entries},
        selecting={label: tuple(found) for label, found in selecting.items()},
        near=frozenset(entry.near for entry in entries),
    )


def visible(entries: Iterable[Entry], namespace: str) -> tuple[Entry, ...]:
    return tuple(entry for entry in entries if not entry.export_to or entry.is_visible(namespace))


def _age(entry: Entry) -> tuple[str, str, str]:
    return (entry.service.meta.created, entry.key.name, entry.key.namespace)
