"""From a destination as a route names it to the name of a destination of the plan.

A destination that does not exist becomes one that answers 503, and a problem that says what there is instead: the rest
of the route keeps working, as in Istio, where such a cluster is simply missing.
Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/#Destination
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

from discovery.plan.hosts import destination_name, qualify
from discovery.plan.model import HashBy
from discovery.plan.rules import Rule, policy_for
from discovery.plan.services import Entry, Port
from mesh.istio.destination import Destination


class Resolved(NamedTuple):
    """`name` of the destination; where it does not exist, `field` within the destination, and why and what to do."""

    name: str
    hash_by: HashBy | None = None
    field: str = ""
    missing: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """What one client can name: services by full host, and the rule of each."""

    by_host: Mapping[str, Entry]
    rule: Callable[[Entry], Rule | None]
    domain: str

    def default(self, entry: Entry, port: Port) -> Resolved:
        """Where requests to a service's own port go."""
        alias = self.aliased(entry)
        if alias is not None and alias.port(port.number) is not None:
            entry = alias
        rule = self.rule(entry)
        hash_by = policy_for(rule, port.number, "", sticky=entry.service.session_affinity).hash_by
        return Resolved(destination_name(port.number, "", entry.host), hash_by)

    def aliased(self, entry: Entry) -> Entry | None:
        """The service that an ExternalName service is another name of; names of names are left to DNS."""
        if not entry.is_external:
            return None
        other = self.by_host.get(entry.service.external_name.lower().rstrip("."))
        return other if other is not None and not other.is_external else None

    def resolve(self, wanted: Destination, namespace: str, listener_port: int) -> Resolved:
        """`wanted` as written in an object of `namespace`, for requests that came in on `listener_port`."""
        host = qualify(wanted.host, namespace, self.domain)
        number = wanted.port.number if wanted.port else 0
        entry = self.by_host.get(host)
        if entry is None:
            name = destination_name(number or listener_port, wanted.subset, host)
            return Resolved(name, None, "host", f"there is no service {host}", self._nearest(host))
        if not number:
            number = entry.ports[0].number if len(entry.ports) == 1 else listener_port
        alias = self.aliased(entry)
        if alias is not None and alias.port(number) is not None:
            entry = alias
        name = destination_name(number, wanted.subset, entry.host)
        if entry.port(number) is None:
            return Resolved(
                name,
                None,
                "port.number",
                f"service {entry.host} has no port {number}",
                f"set port.number to one of {_listed(str(port.number) for port in entry.ports)}",
            )
        rule = self.rule(entry)
        if wanted.subset and (rule is None or wanted.subset not in rule.subsets):
            return Resolved(name, None, "subset", *_no_subset(wanted.subset, entry, rule))
        return Resolved(name, policy_for(rule, number, wanted.subset, sticky=entry.service.session_affinity).hash_by)

    def _nearest(self, host: str) -> str:
        head = host.partition(".")[0]
        full = f"{host}.svc.{self.domain}"
        if full in self.by_host:
            return f"write {full}: only a name without dots is completed"
        elsewhere = [other for other in self.by_host if other.partition(".")[0] == head]
        found = sorted(elsewhere)[:3] or get_close_matches(host, self.by_host, 1, 0.8)
        if found:
            return f"did you mean {_listed(found)}?"
        return "create the service, or correct the host (short names are of the VirtualService's namespace)"


def _no_subset(subset: str, entry: Entry, rule: Rule | None) -> tuple[str, str]:
    if rule is None:
        says = f"no DestinationRule defines subset {subset!r} of {entry.host}"
        return says, f"create a DestinationRule for host {entry.host} with subsets, or remove the subset"
    name = rule.origins[0].name
    if not rule.subsets:
        return f"DestinationRule {name} of {entry.host} defines no subsets", f"add {subset!r} to its spec.subsets"
    says = f"DestinationRule {name} of {entry.host} has no subset {subset!r}"
    return says, f"use one of {_listed(sorted(rule.subsets))}, or add it there"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "(none)"
