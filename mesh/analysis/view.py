"""What checks look at: a Snapshot, with the indexes that they ask for. Each is made when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from mesh.annotations import NAMESPACE_INJECTION, OVERRIDES, REVISION
from mesh.istio.base import IstioObject, age
from mesh.istio.rules import host_covers
from mesh.objects import Key, Pod, Service
from mesh.settings import CLUSTER_DOMAIN
from mesh.snapshot import Snapshot

_AT_HOME = frozenset({"Sidecar", "Telemetry", "ProxyConfig"})
_IMAGES = frozenset(("sidecar.istio.io/proxyImage", "sidecar.istio.io/proxyImageType"))


class Workload(NamedTuple):
    """Something that selectors choose: a pod, or what makes pods."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    has_sidecar: bool

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether it has all these labels, with these values."""
        return all(self.labels.get(key) == value for key, value in labels.items())


Workloads = Mapping[str, tuple[Workload, ...]]
"""By namespace."""


def workload_of(pod: Pod) -> Workload:
    return Workload(pod.meta.namespace, pod.meta.name, pod.meta.labels, pod.has_sidecar)


def workloads_of(pods: Iterable[Pod]) -> Workloads:
    """The pods that run or will run."""
    return by_namespace(workload_of(pod) for pod in pods if not pod.finished)


def by_namespace(workloads: Iterable[Workload]) -> Workloads:
    found: dict[str, list[Workload]] = {}
    for each in workloads:
        found.setdefault(each.namespace, []).append(each)
    return {namespace: tuple(those) for namespace, those in found.items()}


def full_host(host: str, namespace: str, domain: str = CLUSTER_DOMAIN) -> str:
    """A host as Istio reads it in an object of `namespace`: names without a dot are Services of that namespace."""
    # Every address has a dot or a colon.
    return host if "." in host or ":" in host or host == "*" else f"{host}.{namespace}.svc.{domain}"


class View:
    """`complete`: what is not here does not exist, as in a cluster. Among files it may exist elsewhere, so that a
    reference is looked at only where the files could hold what it names.

    `workloads` are those of the snapshot's pods unless they are given, as from the Deployments of some files.
    `now`: what certificates are judged by; they are not without it.
    `plain_text`: how much each pod has taken in plain text, where its proxy was asked.
    `before`: a view of an earlier snapshot, whose indexes serve where what they are made from is the same.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        complete: bool = True,
        workloads: Workloads | None = None,
        domain: str = CLUSTER_DOMAIN,
        before: View | None = None,
        now: datetime | None = None,
        plain_text: Mapping[Key, int] | None = None,
    ) -> None:
        self.snapshot, self.complete, self.domain = snapshot, complete, domain
        self.now = now
        self.plain_text: Mapping[Key, int] = plain_text or {}
        self._workloads = workloads
        if before is not None:
            sources, then = _sources(snapshot), _sources(before.snapshot)
            made = dict(before.__dict__)  # at once: others may be using it
            self.__dict__.update({name: made[name] for name in sources.keys() & made if sources[name] is then[name]})

    def indexed(self) -> View:
        """Itself, with every index made, so that later views have them from here."""
        for name in _sources(self.snapshot):
            getattr(self, name)
        return self

    @property
    def among(self) -> str:
        """Where something is missing, for messages."""
        return "" if self.complete else " among these files"

    def full(self, host: str, namespace: str) -> str:
        return full_host(host, namespace, self.domain)

    @property
    def workloads(self) -> Workloads:
        return self._pods if self._workloads is None else self._workloads

    @cached_property
    def _pods(self) -> Workloads:
        return workloads_of(self.snapshot.pods.values())

    def reaches_all(self, thing: IstioObject[Any]) -> bool:
        """Whether what it selects may be in any namespace: where it is in the root one, and not of a kind that selects
        at home alone."""
        return thing.namespace == self.snapshot.settings.root_namespace and thing.kind not in _AT_HOME

    def chosen_from(self, thing: IstioObject[Any]) -> Iterator[Workload]:
        """The workloads that it can select."""
        if self.reaches_all(thing):
            for those in self.workloads.values():
                yield from those
        else:
            yield from self.workloads.get(thing.namespace, ())

    def in_mesh(self, namespace: str) -> bool:
        """Whether pods of the namespace get sidecars, as far as its labels and its pods tell."""
        found = self.snapshot.namespaces.get(namespace)
        labels = found.meta.labels if found else {}
        if labels.get(NAMESPACE_INJECTION) == "enabled" or REVISION in labels:
            return True
        return any(each.has_sidecar for each in self.workloads.get(namespace, ()))

    @cached_property
    def service_hosts(self) -> Mapping[str, Service]:
        return {service.hostname(self.domain): service for service in self.snapshot.services.values()}

    @cached_property
    def _beside(self) -> Mapping[Key, Mapping[Key, Service]]:
        selecting: dict[tuple[str, str, str], list[Service]] = {}
        for service in self.snapshot.services.values():
            for label, value in sorted(service.selector.items())[:1]:
                selecting.setdefault((service.meta.namespace, label, value), []).append(service)
        found: dict[Key, dict[Key, Service]] = {}
        for pod in (each for those in self.workloads.values() for each in those):
            candidates = [one for pair in pod.labels.items() for one in selecting.get((pod.namespace, *pair), ())]
            behind = [one for one in candidates if pod.matches(one.selector)] if len(candidates) > 1 else []
            for one in behind:
                others = {other.meta.key: other for other in behind if other is not one}
                found.setdefault(one.meta.key, {}).update(others)
        return found

    def services_beside(self, service: Service) -> Iterable[Service]:
        """The others that select some pod of this one."""
        return self._beside.get(service.meta.key, {}).values()

    @cached_property
    def service_namespaces(self) -> frozenset[str]:
        return frozenset(key.namespace for key in self.snapshot.services)

    @cached_property
    def _entry_hosts(self) -> tuple[str, ...]:
        entries = self.snapshot.of("ServiceEntry").values()
        return tuple(dict.fromkeys(self.full(host, each.namespace) for each in entries for host in each.spec.hosts))

    def is_entry(self, host: str) -> bool:
        """Whether some ServiceEntry has the full name `host`."""
        return any(host_covers(entry, host) for entry in self._entry_hosts)

    @cached_property
    def _rules(self) -> tuple[Mapping[str, list[IstioObject[Any]]], tuple[tuple[str, IstioObject[Any]], ...]]:
        exact: dict[str, list[IstioObject[Any]]] = {}
        wildcards: list[tuple[str, IstioObject[Any]]] = []
        for rule in self.snapshot.of("DestinationRule").values():
            host = self.full(rule.spec.host, rule.namespace)
            if host.startswith("*"):
                wildcards.append((host, rule))
            else:
                exact.setdefault(host, []).append(rule)
        return exact, tuple(wildcards)

    def rules_for(self, host: str) -> list[IstioObject[Any]]:
        """The DestinationRules whose host covers the full name `host`, wherever they are."""
        exact, wildcards = self._rules
        return [*exact.get(host, ()), *(rule for pattern, rule in wildcards if host_covers(pattern, host))]

    @cached_property
    def mesh_routes(self) -> Mapping[str, tuple[IstioObject[Any], ...]]:
        """The VirtualServices for sidecars by full host, the oldest first, which is the one that counts."""
        found: dict[str, list[IstioObject[Any]]] = {}
        everything = self.snapshot.of("VirtualService").values()
        for each in sorted((each for each in everything if each.spec.applies_to_mesh), key=age):
            for host in dict.fromkeys(self.full(host, each.namespace) for host in each.spec.hosts):
                found.setdefault(host, []).append(each)
        return {host: tuple(those) for host, those in found.items()}

    @cached_property
    def _newest_sidecars(self) -> Mapping[str, Pod]:
        found: dict[str, Pod] = {}
        for pod in self.snapshot.pods.values():
            if self._has_the_usual_image(pod):
                other = found.setdefault(_revision(pod), pod)
                found[_revision(pod)] = max(other, pod, key=lambda each: (each.meta.created, each.meta.key))
        return found

    def newest_sidecar(self, pod: Pod) -> Pod | None:
        """Of the pods that the same revision has injected, with the image that it gives to most, the last one; None for
        a pod that has asked for another."""
        return self._newest_sidecars.get(_revision(pod)) if self._has_the_usual_image(pod) else None

    def _has_the_usual_image(self, pod: Pod) -> bool:
        annotations = pod.meta.annotations
        own = bool(_IMAGES & annotations.keys()) or '"image":' in annotations.get(OVERRIDES, "")
        if own or not pod.has_sidecar or not pod.proxy_image or pod.finished:
            return False
        return self._variants.isdisjoint((pod.meta.namespace, self.snapshot.settings.root_namespace))

    @cached_property
    def _variants(self) -> frozenset[str]:
        """Namespaces with a ProxyConfig that chooses an image for some pods."""
        return frozenset(each.namespace for each in self.snapshot.of("ProxyConfig").values() if each.spec.image)

    def gateway(self, name: str, namespace: str) -> tuple[Key, IstioObject[Any] | None]:
        """The Gateway that an object of `namespace` calls `name` (`edge`, `infra/edge`), None where there is none."""
        home, _, short = name.rpartition("/")
        key = Key(home or namespace, short)
        return key, self.snapshot.of("Gateway").get(key)


def _revision(pod: Pod) -> str:
    return pod.meta.annotations.get(REVISION, "")


def _sources(snapshot: Snapshot) -> Mapping[str, object]:
    """What each index of a View is made from."""
    return {
        "_pods": snapshot.pods,
        "service_hosts": snapshot.services,
        "service_namespaces": snapshot.services,
        "_entry_hosts": snapshot.of("ServiceEntry"),
        "_rules": snapshot.of("DestinationRule"),
        "mesh_routes": snapshot.of("VirtualService"),
    }
