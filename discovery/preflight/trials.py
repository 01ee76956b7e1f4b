"""What is to be tried: the resources that a change makes anew, one set for each shape of proxy. Pure.

Proxies that are alike (same namespace, labels, ports, role) get the same configuration but for their own address, so
that one of them stands for all; shapes whose changed resources are the same are one trial.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from discovery.envoy.render import render
from discovery.plan.memo import Scopes
from discovery.plan.model import Plan, VirtualHost
from discovery.plan.origins import Origin
from discovery.plan.plan import plan, proxy_of
from discovery.plan.workloads import container_ports, is_gateway
from mesh.kinds import find_kind, parse_istio
from mesh.objects import Key, Pod
from mesh.snapshot import Snapshot
from mesh.wire import ResourceType, virtual_host_name

Json = dict[str, Any]
TRIED = (ResourceType.CLUSTERS, ResourceType.LISTENERS, ResourceType.VIRTUAL_HOSTS)


@dataclass(frozen=True)
class Element:
    """One changed resource, or one route of a changed virtual host. `origins`: the fields that it comes from."""

    kind: ResourceType
    name: str
    config: Json
    origins: tuple[Origin, ...]


@dataclass(frozen=True)
class Trial:
    """`proxies`: how many this is for; `example` is one of them."""

    elements: tuple[Element, ...]
    example: Key
    proxies: int


def with_object(snapshot: Snapshot, raw: Mapping[str, Any]) -> Snapshot:
    """The snapshot as it will be with the object, one of Istio's kinds; ObjectErrors when it is wrong."""
    thing = parse_istio(raw)
    entry = find_kind(str(raw["apiVersion"]), thing.kind)
    if entry is None or entry.planned:
        return snapshot
    objects = {**snapshot.of(thing.kind), Key(thing.namespace, thing.name): thing}
    return snapshot.replacing(istio={**snapshot.istio, thing.kind: objects})


def trials(old: Snapshot, new: Snapshot, scopes: Scopes, pause: Callable[[], None] = lambda: None) -> tuple[Trial, ...]:
    """Largest first. `pause` is called between proxies, so that whoever else is at work gets their turn."""
    found: dict[frozenset[tuple[str, str, str]], Trial] = {}
    shapes = list(_shapes(new))
    # All of the old first: parts that do not change are then the very objects of before.
    before = {key: plan(old, proxy_of(old, key), scopes) for key, _ in shapes if key in old.pods}
    for key, alike in shapes:
        pause()
        after = plan(new, proxy_of(new, key), scopes)
        changed = _changed(before.get(key), after)
        if not changed:
            continue
        signature = frozenset((str(kind), name, version) for kind, name, version, _ in changed)
        known = found.get(signature)
        if known is None:
            found[signature] = Trial(tuple(_elements(after, changed)), key, alike)
        else:
            found[signature] = Trial(known.elements, known.example, known.proxies + alike)
    return tuple(sorted(found.values(), key=lambda trial: (-trial.proxies, trial.example)))


def _shapes(snapshot: Snapshot) -> Iterator[tuple[Key, int]]:
    """One proxy of each shape, and how many there are of it."""
    shapes: dict[object, list[Key]] = {}
    for key, pod in snapshot.pods.items():
        if pod.ip and not pod.finished and (pod.has_sidecar or is_gateway(pod)):
            shapes.setdefault(_shape(pod), []).append(key)
    for alike in shapes.values():
        yield min(alike), len(alike)


def _shape(pod: Pod) -> object:
    labels = frozenset((name, text) for name, text in pod.meta.labels.items() if name != "pod-template-hash")
    return pod.meta.namespace, pod.service_account, is_gateway(pod), labels, container_ports(pod), pod.node


_Changed = tuple[ResourceType, str, str, bytes]


def _changed(before: Plan | None, after: Plan) -> list[_Changed]:
    was = render(before) if before is not None else {}
    now = render(after)
    found: list[_Changed] = []
    for kind in TRIED:
        known = was.get(kind, {})
        for name, (version, text) in now[kind].items():
            if name not in known or known[name][0] != version:
                found.append((kind, name, version, text))
    return found


def _elements(of: Plan, changed: Iterable[_Changed]) -> Iterator[Element]:
    origins = _origins(of)
    hosts = {
        virtual_host_name(table.name, host.name): host for table in of.route_tables for host in table.virtual_hosts
    }
    for kind, name, _, text in changed:
        config = json.loads(text)
        if kind is ResourceType.VIRTUAL_HOSTS and name in hosts:
            yield from _routes(name, config, hosts[name])
        else:
            yield Element(kind, name, config, origins.get((kind, name), ()))


def _routes(name: str, config: Json, host: VirtualHost) -> Iterator[Element]:
    """Each route by itself in its virtual host, so that what is refused can be told apart."""
    routes = config["routes"]
    if len(routes) != len(host.routes) or not routes:
        yield Element(ResourceType.VIRTUAL_HOSTS, name, config, host.origins)
        return
    for rendered, route in zip(routes, host.routes, strict=True):
        origins = (route.origin,) if route.origin is not None else host.origins
        yield Element(ResourceType.VIRTUAL_HOSTS, name, {**config, "routes": [rendered]}, origins)


def _origins(of: Plan) -> Mapping[tuple[ResourceType, str], tuple[Origin, ...]]:
    found = {(ResourceType.CLUSTERS, each.name): each.origins for each in of.destinations}
    found |= {(ResourceType.LISTENERS, each.name): each.origins for each in of.outbound}
    found |= {
        (ResourceType.LISTENERS, each.name): tuple(origin for server in each.servers for origin in server.origins)
        for each in of.gateways
    }
    return found
