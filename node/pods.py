"""The pods of this node that have a gate, and what is to be intercepted in each: from the API server's objects. Pure.

The options are the arguments of the gate's container, which the injection wrote and nobody can change once the pod
exists. They are read as untrusted: whoever may create pods may have written them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kube.source import Changed, Event, Listed
from mesh.errors import InvalidInput, Unavailable
from mesh.interception import InterceptionSpec, parse_arguments
from node.claim import PodName

GATE_CONTAINER = "istio-validation"
GATE_COMMAND = "heddle-gate"
POD = "Pod"


@dataclass(frozen=True, slots=True)
class Gated:
    """A pod with a gate. `waiting`: the gate has not ended well yet; `addresses`: of its network, () before they are
    known."""

    pod: PodName
    arguments: tuple[str, ...]
    addresses: tuple[str, ...]
    waiting: bool

    def spec(self) -> InterceptionSpec:
        """InvalidInput names the argument that is wrong."""
        try:
            return parse_arguments(self.arguments)
        except InvalidInput as error:
            where = f"container {GATE_CONTAINER}, {error.field}" if error.field else f"container {GATE_CONTAINER}"
            raise InvalidInput(error.message, field=where, hint=error.hint) from None


def gated(raw: Mapping[str, Any], node: str, excluded: frozenset[str] = frozenset()) -> Gated | None:
    """What the agent of `node` has to know of `raw`, a pod; None when it has nothing to do with it.

    Never a pod on the node's own network, nor one of the namespaces `excluded`.
    """
    meta, spec, status = raw.get("metadata") or {}, raw.get("spec") or {}, raw.get("status") or {}
    if spec.get("nodeName") != node or spec.get("hostNetwork") or meta.get("namespace") in excluded:
        return None
    gate = next((c for c in spec.get("initContainers") or () if c.get("name") == GATE_CONTAINER), None)
    if gate is None or gate.get("command") != [GATE_COMMAND]:
        return None
    addresses = [entry.get("ip") for entry in status.get("podIPs") or ()] or [status.get("podIP")]
    return Gated(
        PodName(meta.get("namespace") or "", meta.get("name") or "", meta.get("uid") or ""),
        tuple(gate.get("args") or ()),
        tuple(address for address in addresses if address),
        status.get("phase") not in ("Succeeded", "Failed") and not _passed(status),
    )


def _passed(status: Mapping[str, Any]) -> bool:
    for container in status.get("initContainerStatuses") or ():
        if container.get("name") == GATE_CONTAINER:
            ended = (container.get("state") or {}).get("terminated")
            return ended is not None and ended.get("exitCode") == 0
    return False


class GatedPods:
    """Follows the pods of one node; `on_event` is a Source's listener. Read from any thread."""

    def __init__(self, node: str, excluded: frozenset[str] = frozenset()) -> None:
        self._node, self._excluded = node, excluded
        self._pods: dict[str, Gated] = {}

    def on_event(self, event: Event) -> None:
        if isinstance(event, Listed):
            found = (self._gated(raw) for raw in event.objects)
            self._pods = {each.pod.uid: each for each in found if each}
        elif isinstance(event, Changed):
            each = None if event.deleted else self._gated(event.object)
            if each:
                self._pods[each.pod.uid] = each
            else:
                self._pods.pop((event.object.get("metadata") or {}).get("uid", ""), None)

    def waiting(self) -> int:
        """How many have a gate that has not ended."""
        return sum(each.waiting for each in tuple(self._pods.values()))

    def find(self, pod: PodName) -> Gated:
        """The one that says that it is `pod`. Unavailable when there is none (yet)."""
        each = self._pods.get(pod.uid)
        if each is None or each.pod != pod:
            raise Unavailable(f"no pod {pod} with uid {pod.uid} and a gate is known to run on node {self._node} (yet)")
        return each

    def _gated(self, raw: Mapping[str, Any]) -> Gated | None:
        return gated(raw, self._node, self._excluded)
