"""What became of ProxyConfigs: a pod takes them when it is injected, and its annotation says which it took. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import orjson

from discovery.findings import Finding
from discovery.tally import NOBODY, Count, Thing
from mesh.objects import SIDECAR_STATUS_ANNOTATION, Key, Pod
from mesh.proxy_configs import KIND, ProxyConfigs, proxy_configs
from mesh.snapshot import Snapshot

TAKEN = "proxyConfigs"


def counts(snapshot: Snapshot, pods: Iterable[Key]) -> dict[Thing, Count]:
    """For each object how many of `pods` it is for, and how many of those were injected with what it says now."""
    known = _of(snapshot)
    found: dict[Thing, Count] = {}
    for pod in filter(None, map(snapshot.pods.get, pods)):
        chosen, taken = known.of(pod.meta.namespace, pod.meta.labels), _taken(pod)
        for each, (name, version) in zip(chosen, chosen.versions().items(), strict=True):
            thing = Thing(KIND, each.namespace, each.name)
            found[thing] = found.get(thing, NOBODY) + Count(int(taken.get(name) == version), 1)
    return found


def findings(snapshot: Snapshot) -> Iterator[Finding]:
    """Objects that another one leaves without effect."""
    for each, older in _of(snapshot).ousted:
        says = f"{older.namespace}/{older.name} is older and for the same pods: this object has no effect"
        hint = "keep one ProxyConfig without a selector for each namespace"
        yield Finding(KIND, each.namespace, each.name, "spec.selector", says, hint)


def _of(snapshot: Snapshot) -> ProxyConfigs:
    return proxy_configs(snapshot.of(KIND).values(), snapshot.settings.root_namespace)


def _taken(pod: Pod) -> Mapping[str, str]:
    try:
        status = orjson.loads(pod.meta.annotations.get(SIDECAR_STATUS_ANNOTATION, ""))
    except ValueError:
        return {}
    taken = status.get(TAKEN) if isinstance(status, dict) else None
    return taken if isinstance(taken, dict) else {}
