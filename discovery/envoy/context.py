"""What renderings depend on beside the element that they render."""

from __future__ import annotations

from dataclasses import dataclass

from discovery.envoy.values import WILDCARD, Json, socket_address
from discovery.plan.reporting import NOTHING, Reporting


@dataclass(frozen=True, slots=True)
class Context:
    """`trust_domains`: whose workloads are let in, the own first. `ipv6`: the pod has an address of that version.
    `reporting`: what the proxy reports; the same object for most, so that what is rendered with it is shared."""

    trust_domains: tuple[str, ...]
    ipv6: bool = False
    reporting: Reporting = NOTHING

    def address(self, address: str, port: int) -> Json:
        """What a listener says of its address; one for every address has those of both IP versions."""
        said: Json = {"address": socket_address(address, port)}
        if address == WILDCARD and self.ipv6:
            said["additional_addresses"] = [{"address": socket_address("::", port)}]
        return said
