"""To which address an app connects when it dials a name: what the cluster's DNS would answer it.

Source: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/ (names are looked for in the pod's own
namespace first, then among those of all namespaces; a headless service has the addresses of its endpoints).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from discovery.plan.index import Index
from discovery.plan.model import Endpoint
from discovery.plan.services import Entry, Port
from mesh.objects import Key, Pod
from mesh.settings import CLUSTER_DOMAIN
from mesh.snapshot import Snapshot

MOST_ALIASES = 8
_CLUSTER_ENDS = (f".{CLUSTER_DOMAIN}", ".svc")


@dataclass(frozen=True, slots=True)
class Dialled:
    """`address` is empty where it is not known (a name outside the cluster). `entry`: the service behind it; `pod`:
    the pod, where its own address is dialled. `missing`: why there is no such name, and `hint` what to do."""

    name: str
    address: str = ""
    entry: Entry | None = None
    pod: Pod | None = None
    missing: str = ""
    hint: str = ""


def dialled(snapshot: Snapshot, index: Index, host: str, port: int, namespace: str) -> Dialled:
    """What `host` is for an app of `namespace` that connects to `port` there."""
    host = host.lower().rstrip(".")
    if is_address(host):
        return _of_address(snapshot, index, host)
    by_host = index.services.by_host
    for _ in range(MOST_ALIASES):
        entry = next((by_host[name] for name in _searched(host, namespace) if name in by_host), None)
        if entry is not None and entry.is_external:
            host = entry.service.external_name.lower().rstrip(".")
            continue
        if entry is not None:
            return _of_service(index, entry, port)
        if (member := _member(snapshot, index, host, namespace)) is not None:
            return member
        break
    if "." in host and not host.endswith(_CLUSTER_ENDS) and not _of_a_namespace(snapshot, host):
        return Dialled(host)
    return Dialled(host, missing=f"there is no service {host}", hint=nearest(by_host, host))


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def nearest(hosts: Iterable[str], host: str) -> str:
    """A question with the services that may be meant."""
    known = list(hosts)
    head = host.partition(".")[0]
    found = [other for other in known if other.partition(".")[0] == head]
    if not found:
        heads = {other.partition(".")[0]: other for other in reversed(known)}
        found = [heads[name] for name in get_close_matches(head, heads, 3, 0.6)]
    if found:
        return f"did you mean {' or '.join(sorted(found)[:3])}?"
    return "create the service, or correct the name (short names are of the client's namespace)"


def endpoints_of(index: Index, entry: Entry, port: Port | None) -> tuple[Endpoint, ...]:
    """The ready endpoints of a service's port; of any port, without one."""
    found = index.backends.of.get(entry.key)
    if found is None:
        return ()
    if port is not None:
        return found.endpoints.get(port.name, ())
    return tuple(dict.fromkeys(endpoint for some in found.endpoints.values() for endpoint in some))


def _searched(host: str, namespace: str) -> tuple[str, ...]:
    return (
        f"{host}.{namespace}.svc.{CLUSTER_DOMAIN}",
        f"{host}.svc.{CLUSTER_DOMAIN}",
        f"{host}.{CLUSTER_DOMAIN}",
        host,
    )


def _of_a_namespace(snapshot: Snapshot, host: str) -> bool:
    """`reviews.prod`, with a namespace that is there: no name of the world outside."""
    namespaces = {key.namespace for key in (*snapshot.services, *snapshot.pods)} | set(snapshot.namespaces)
    return host.partition(".")[2] in namespaces


def _of_service(index: Index, entry: Entry, port: int) -> Dialled:
    if not entry.service.headless:
        return Dialled(entry.host, entry.service.cluster_ip, entry)
    endpoints = endpoints_of(index, entry, entry.port(port)) or endpoints_of(index, entry, None)
    if endpoints:
        return Dialled(entry.host, endpoints[0].address, entry)
    return Dialled(
        entry.host,
        entry=entry,
        missing=f"{entry.host} is headless and none of its pods is ready: the name has no address",
        hint=f"look at the pods of Service {entry.key}",
    )


def _member(snapshot: Snapshot, index: Index, host: str, namespace: str) -> Dialled | None:
    """A pod of a headless service by its own name: `<pod>.<service>...`."""
    name, _, rest = host.partition(".")
    for searched in _searched(rest, namespace) if rest else ():
        entry = index.services.by_host.get(searched)
        if entry is not None and entry.service.headless:
            pod = snapshot.pods.get(Key(entry.namespace, name))
            if pod is not None and any(pod.ip == each.address for each in endpoints_of(index, entry, None)):
                return Dialled(host, pod.ip, entry, pod)
    return None


def _of_address(snapshot: Snapshot, index: Index, address: str) -> Dialled:
    for entry in index.services.entries:
        if address in entry.service.cluster_ips:
            return Dialled(address, address, entry)
    pod = next((pod for pod in snapshot.pods.values() if address in pod.ips and not pod.finished), None)
    return Dialled(address, address, pod=pod)
