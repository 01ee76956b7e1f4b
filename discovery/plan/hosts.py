"""Names of hosts: short ones made full, wildcards, the spellings of a service, and the names made from them.

Sources: https://istio.io/latest/docs/reference/config/networking/virtual-service/ (hosts, Destination),
https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/
"""

from __future__ import annotations

from collections.abc import Iterable


def qualify(host: str, namespace: str, domain: str) -> str:
    """The full name of `host` as written in an object of `namespace`.

    Only a name without dots is short, as in Istio: `reviews.prod` stays as it is.
    """
    host = host.lower()
    return host if "." in host or "*" in host else f"{host}.{namespace}.svc.{domain}"


def covers(pattern: str, host: str) -> bool:
    """Whether `pattern` (a name, `*.example.com` or `*`) stands for `host`, itself perhaps a wildcard."""
    if not pattern.startswith("*"):
        return pattern == host
    return host.removeprefix("*").endswith(pattern[1:])


def narrower(one: str, other: str) -> str | None:
    """The one of two patterns that the other covers; None when they have no host in common."""
    if covers(one, other):
        return other
    return one if covers(other, one) else None


def by_specificity(patterns: Iterable[str]) -> list[str]:
    """Names before wildcards, longer wildcards before shorter ones."""
    return sorted(patterns, key=lambda pattern: (pattern.startswith("*"), -len(pattern), pattern))


def is_visible(export_to: Iterable[str], owner: str, client: str) -> bool:
    """Whether an object of namespace `owner` is exported to `client`. Nothing said means everywhere.

    Source: `exportTo` of https://istio.io/latest/docs/reference/config/networking/virtual-service/
    """
    export_to = tuple(export_to)
    if not export_to:
        return True
    return any(to == "*" or to == client or (to == "." and owner == client) for to in export_to)


def destination_name(port: int, subset: str, host: str) -> str:
    return f"outbound|{port}|{subset}|{host}"


def default_sni(port: int, subset: str, host: str) -> str:
    """What a sidecar puts into SNI towards a service, so that an east-west gateway can route by it."""
    return f"outbound_.{port}_.{subset}_.{host}"


def bracketed(address: str) -> str:
    """An address as it stands in a Host header."""
    return f"[{address}]" if ":" in address else address


def spellings(name: str, namespace: str, domain: str, client_namespace: str) -> tuple[str, ...]:
    """All names that DNS in `client_namespace` resolves to the service, the full one first."""
    short = (f"{name}.{namespace}.svc", f"{name}.{namespace}")
    own = (name,) if namespace == client_namespace else ()
    return (f"{name}.{namespace}.svc.{domain}", *short, *own)


def with_port(names: Iterable[str], port: int) -> tuple[str, ...]:
    """Each name as it is and with the port."""
    return tuple(domain for name in names for domain in (name, f"{name}:{port}"))
