"""PeerAuthentication: whether workloads take mutual TLS only, plain text too, or plain text only.

Source: https://istio.io/latest/docs/reference/config/security/peer_authentication/
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from mesh.istio.base import EMPTY, Map, Model, problem
from mesh.istio.schema import Cel, Schema
from mesh.istio.selectors import WorkloadSelector
from mesh.problems import FieldProblem

Rules = Iterator[FieldProblem]


class MutualTLSMode(StrEnum):
    """UNSET: that of the next wider policy."""

    UNSET = "UNSET"
    DISABLE = "DISABLE"
    PERMISSIVE = "PERMISSIVE"
    STRICT = "STRICT"


class MutualTLS(Model):
    mode: MutualTLSMode = MutualTLSMode.UNSET
    """STRICT, PERMISSIVE, DISABLE, or UNSET: that of the next wider policy."""


class PeerAuthentication(Model):
    """The spec. Ports are those of the workload (the container's), not of its services."""

    cel = (
        Cel(
            "!has(self.portLevelMtls) || self.portLevelMtls.size() == 0 || "
            "(has(self.selector) && has(self.selector.matchLabels) && self.selector.matchLabels.size() > 0)",
            "ports are set for a workload, and no workload is selected: add selector.matchLabels",
        ),
    )

    selector: WorkloadSelector | None = None
    """The workloads that it is for; all of the namespace (of the mesh, in the root namespace) without it."""
    mtls: MutualTLS | None = None
    """Mode for all ports."""
    port_level_mtls: Annotated[
        Map[MutualTLS],
        Schema(
            Cel(
                "self.all(port, port.matches('^[0-9]{1,5}$') && int(port) >= 1 && int(port) <= 65535)",
                "a port number is 1 to 65535",
            ),
            maxProperties=1024,
        ),
    ] = EMPTY
    """Mode by port number of the workload, for ports that differ."""

    @property
    def port_modes(self) -> dict[int, MutualTLSMode]:
        """Mode by port number, without those that leave it UNSET."""
        return {
            int(port): mtls.mode for port, mtls in self.port_level_mtls.items() if mtls.mode is not MutualTLSMode.UNSET
        }

    def rules(self) -> Rules:
        if self.port_level_mtls and (self.selector is None or not self.selector.match_labels):
            yield problem(
                "portLevelMtls",
                says="ports are set for a workload, and no workload is selected",
                hint="add selector.matchLabels, or remove portLevelMtls",
            )
        for port in self.port_level_mtls:
            if not port.isdecimal() or not 1 <= int(port) <= 65535:
                yield problem("portLevelMtls", port, says=f"{port!r} is not a port number", hint="use 1 to 65535")
