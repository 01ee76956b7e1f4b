"""Who lives, and what each has said: put together from the pods that there are and from what was reported. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ca.pod_certificates import BUNDLE
from ca.rotation.decide import Member
from ca.settings import CA, REVISIONED_WEBHOOK
from mesh.identity import CONTROL_NAMESPACE
from mesh.objects import PROXY_CONTAINER, SIDECAR_STATUS_ANNOTATION
from mesh.wire import TrustReport

DISCOVERY_ACCOUNT, WEBHOOK_ACCOUNT = "heddle-discovery", "heddle-webhook"
COMPONENTS = (DISCOVERY_ACCOUNT, WEBHOOK_ACCOUNT)
ROOTS_OBJECT = f"clustertrustbundle/{BUNDLE}"


@dataclass(frozen=True, slots=True)
class Living:
    """A pod that has not ended. `started`: its sidecar, or what it is for, has run at least once."""

    namespace: str
    name: str
    uid: str
    account: str
    ip: str
    sidecar: bool
    started: bool
    ready: bool
    ports: Mapping[str, int]

    @property
    def title(self) -> str:
        return f"{self.namespace}/{self.name}"

    def is_ca(self, control: str) -> bool:
        """Whether it is a replica of the ca; `control` is the control plane's namespace."""
        return self.namespace == control and self.account == CA

    def is_component(self, control: str) -> bool:
        """Whether it holds a certificate of the control plane's and says itself what it trusts."""
        named = self.account in COMPONENTS or self.account.startswith(REVISIONED_WEBHOOK)
        return self.namespace == control and named and not self.sidecar


@dataclass(frozen=True, slots=True)
class AgentReport:
    """What discovery says of one agent; `report` is None when the agent is too old to say anything of trust."""

    title: str
    uid: str
    connected: bool
    report: TrustReport | None
    version: str = ""


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """What a replica of the ca says of itself: `signs` is the root that it signs with now.

    `unwritten`: how many pods' certificates are not yet in the books that replicas share. `published`: the sequence of
    the bundle that it has put into the ClusterTrustBundle; 0 while it has put none there, None where that is not done.
    """

    report: TrustReport
    signs: str
    unwritten: int = 0
    published: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything that was reported. `replicas` and `components` by title; `troubles`: who could not be asked, and why.

    `carriers`: objects that bring the roots to those who start, by title, with the sequence of the bundle in them, None
    for one that is not there as it should be. `control`: the control plane's namespace. `expected`: titles of
    components without a pod (in `heddle local`).
    """

    living: tuple[Living, ...]
    agents: tuple[AgentReport, ...]
    components: Mapping[str, TrustReport]
    replicas: Mapping[str, ReplicaReport]
    control: str = CONTROL_NAMESPACE
    expected: tuple[str, ...] = ()
    troubles: Mapping[str, str] | None = None
    carriers: Mapping[str, int | None] = field(default_factory=dict)

    def spoken_for(self) -> frozenset[str]:
        """The uids of pods of which somebody says which certificate they use."""
        heard = {agent.uid for agent in self.agents}
        return frozenset(pod.uid for pod in self.living if pod.started or pod.uid in heard)


def members_of(seen: Seen) -> tuple[Member, ...]:
    """Everyone who counts, by name: replicas of the ca, components and what carries the roots first."""
    troubles = seen.troubles or {}
    own = {title for title in seen.replicas if title not in {pod.title for pod in seen.living}}
    replicas = [pod.title for pod in seen.living if pod.is_ca(seen.control) and pod.started]
    found = [_replica(title, seen.replicas.get(title), troubles) for title in sorted({*own, *replicas})]
    titles = {*seen.expected, *(pod.title for pod in seen.living if pod.is_component(seen.control) and pod.started)}
    found += [_component(title, seen.components.get(title)) for title in sorted(titles)]
    found += [_carrier(title, seen.carriers[title]) for title in sorted(seen.carriers)]
    published = [said.published for said in seen.replicas.values() if said.published is not None]
    if published:
        found.append(_carrier(ROOTS_OBJECT, max(published) or None))
    agents = _latest(seen.agents)
    silent = "; ".join(f"{where} cannot be asked: {why}" for where, why in troubles.items() if where not in replicas)
    sidecars = sorted((pod for pod in seen.living if pod.sidecar), key=lambda pod: pod.title)
    for pod in sidecars:
        agent = agents.get(pod.uid)
        if agent is not None or pod.started:
            found.append(_agent(pod, agent, silent))
    return tuple(found)


def _replica(title: str, said: ReplicaReport | None, troubles: Mapping[str, str]) -> Member:
    if said is None:
        return Member(title, ca=True, trouble=troubles.get(title, "it has not been asked yet"))
    report = said.report
    return Member(title, report.sequence, report.order, report.root, ca=True, signs=said.signs)


def _component(title: str, report: TrustReport | None) -> Member:
    if report is None:
        return Member(title, trouble="it does not ask for the bundle")
    return Member(title, report.sequence, report.order, report.root)


def _carrier(title: str, sequence: int | None) -> Member:
    trouble = "" if sequence is not None else "the bundle's roots are not in it"
    return Member(title, sequence, carrier=True, trouble=trouble)


def _agent(pod: Living, agent: AgentReport | None, silent: str) -> Member:
    if agent is None:
        return Member(pod.title, trouble=silent or "its agent is not connected to discovery")
    if agent.report is None:
        version = f" ({agent.version})" if agent.version else ""
        return Member(pod.title, trouble=f"its agent{version} is too old to say what it trusts: restart the pod")
    trouble = "" if agent.connected else "its agent is no longer connected to discovery"
    return Member(pod.title, agent.report.sequence, agent.report.order, agent.report.root, trouble=trouble)


def _latest(agents: Iterable[AgentReport]) -> dict[str, AgentReport]:
    """By the pod's uid. A session that an agent has left behind at another replica knows less."""
    found: dict[str, AgentReport] = {}
    for agent in agents:
        before = found.get(agent.uid)
        if before is None or _rank(agent) > _rank(before):
            found[agent.uid] = agent
    return found


def _rank(agent: AgentReport) -> tuple[bool, int, int]:
    report = agent.report
    return agent.connected, report.order if report else -1, report.sequence if report else -1


def living_of(pod: Mapping[str, Any]) -> Living | None:
    """The facts of a Pod's JSON; None for one that has ended."""
    metadata, spec, status = pod.get("metadata") or {}, pod.get("spec") or {}, pod.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed"):
        return None
    sidecar = SIDECAR_STATUS_ANNOTATION in (metadata.get("annotations") or {})
    states = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    counted = [one for one in states if one.get("name") == PROXY_CONTAINER] if sidecar else states
    conditions = {each.get("type"): each.get("status") for each in status.get("conditions") or ()}
    return Living(
        namespace=metadata.get("namespace", ""),
        name=metadata.get("name", ""),
        uid=metadata.get("uid", ""),
        account=spec.get("serviceAccountName") or "default",
        ip=status.get("podIP", ""),
        sidecar=sidecar,
        started=any(_has_run(one) for one in counted),
        ready=conditions.get("Ready") == "True",
        ports={
            port["name"]: int(port["containerPort"])
            for container in spec.get("containers") or ()
            for port in container.get("ports") or ()
            if port.get("name") and port.get("containerPort")
        },
    )


def _has_run(status: Mapping[str, Any]) -> bool:
    state = status.get("state") or {}
    return "running" in state or "terminated" in state or bool(status.get("lastState"))
