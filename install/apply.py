"""Bringing a cluster to what was rendered: in stages, each waited for, by server-side apply; then the rest is pruned.

Nothing here decides what is applied (render.py), what is owned (inventory.py) or what is ready (readiness.py).
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from install.inventory import BEGUN, COMPLETE, Inventory, no_longer_owned, write_inventory
from install.lock import Lock
from install.preflight import Findings
from install.readiness import STARTING, Reason, State, state_of
from install.render import ADOPTED, OWNER_LABEL, Part, Rendered
from install.resources import (
    CONFIG_MAP,
    CRD,
    DAEMON_SET,
    DEPLOYMENT,
    NAMESPACE,
    POD,
    SECRET,
    VALIDATING,
    Reference,
    reference_of,
)
from kube.client import Client
from mesh.errors import HeddleError, NotFound, Unavailable

PASSPHRASE_SECRET = "heddle-ca-passphrase"  # noqa: S105 (a name)
ROOTS = "istio-ca-root-cert"
STAGES: tuple[tuple[str, ...], ...] = (("crds", "base"), ("ca",), ("discovery", "webhook", "node"))
"""Parts that are ready before the next stage begins; what is not named comes last. Discovery and webhook mount the
roots that the ca writes: a kubelet that looks for them in vain looks again only after a minute."""
_WAITED_FOR = (DEPLOYMENT.kind, DAEMON_SET.kind, CRD.kind)
POLL_SECONDS = 0.5
NO_ROOTS = "it is not written yet"
USUAL = frozenset((*STARTING, NO_ROOTS))
QUIET_SECONDS = 15.0
"""How long nothing is said of what is usual at a start."""

Raw = dict[str, Any]


class NotReady(HeddleError):
    """Something did not become ready in time; the message has the cluster's reasons."""

    status = 503
    code = "not-ready"


@dataclass(frozen=True, slots=True)
class Tools:
    """`tell` prints a line. `patience`: seconds that a stage may take."""

    client: Client
    tell: Callable[[str], None]
    patience: float = 300.0
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass(slots=True)
class Counts:
    created: int = 0
    changed: int = 0
    unchanged: int = 0

    def __str__(self) -> str:
        said = ((self.created, "created"), (self.changed, "changed"), (self.unchanged, "unchanged"))
        return ", ".join(f"{number} {word}" for number, word in said if number) or "nothing to do"


def install(tools: Tools, rendered: Rendered, findings: Findings, operator: str, holder: str, *, wait: bool) -> None:
    """Apply all of `rendered`; `operator` is what was asked for, kept for upgrades. NotReady, Conflict, Unavailable."""
    client = tools.client
    _ensure_namespace(client, rendered)
    with Lock(client, rendered.namespace, holder, tools.now) as lock:
        parts = _without(rendered.parts, findings.left_alone, findings.adopted)
        now = frozenset(reference_of(raw) for part in parts for raw in part.objects)
        former = findings.former.objects if findings.former else frozenset()
        whole = Inventory(
            rendered.namespace, rendered.revision, rendered.version, BEGUN, now | former,
            frozenset(findings.adopted), operator,
        )  # fmt: skip
        write_inventory(client, whole)
        make_passphrase(client, rendered.namespace, tools.tell)
        for stage in _stages(parts):
            _apply_stage(tools, rendered.namespace, stage, lock, wait=wait)
        _prune(tools, findings, now)
        write_inventory(client, replace(whole, state=COMPLETE, objects=now))


def _stages(parts: Sequence[Part]) -> list[list[Part]]:
    named = {name for stage in STAGES for name in stage}
    stages = [[part for part in parts if part.name in stage] for stage in STAGES]
    return [stage for stage in (*stages, [part for part in parts if part.name not in named]) if stage]


def _apply_stage(tools: Tools, namespace: str, stage: Sequence[Part], lock: Lock, *, wait: bool) -> None:
    began = tools.monotonic()
    counts = {part.name: Counts() for part in stage}
    for part in stage:
        for raw in part.objects:
            _apply_one(tools.client, raw, counts[part.name])
        lock.renew()
        if not wait:
            tools.tell(f"✔ {part.title}: {counts[part.name]} ({tools.monotonic() - began:.1f} s)")
    if wait:
        _wait(tools, namespace, stage, counts, began, lock)


def _wait(
    tools: Tools, namespace: str, stage: Sequence[Part], counts: dict[str, Counts], began: float, lock: Lock
) -> None:
    """Until every part works; tells of each that does, and once of each reason why one does not. May raise NotReady."""
    waiting = list(stage)
    told: set[str] = set()
    while True:
        states = [(part, _state(tools.client, part, namespace)) for part in waiting]
        took = tools.monotonic() - began
        for part, state in states:
            if state.done:
                pods = f", {state.ready}/{state.wanted} pods ready" if state.wanted else ""
                tools.tell(f"✔ {part.title}: {counts[part.name]}{pods} ({took:.1f} s)")
            for reason in () if state.done else state.reasons:
                if reason.why not in told and not (took < QUIET_SECONDS and reason.why in USUAL):
                    told.add(reason.why)
                    tools.tell(f"… {part.title}: {state.ready}/{state.wanted} pods ready: {reason}")
        late = [(part, state) for part, state in states if not state.done]
        waiting = [part for part, _ in late]
        if not waiting:
            return
        if took > tools.patience:
            raise _too_long(tools.patience, late, namespace)
        lock.renew()
        tools.sleep(POLL_SECONDS)


def _apply_one(client: Client, raw: Raw, counts: Counts) -> None:
    path = reference_of(raw).path
    try:
        found = client.get(path)
        before = found["metadata"]["resourceVersion"]
    except NotFound:
        found, before = {}, ""
    after = client.apply(path, leaving_enforced(raw, found))["metadata"]["resourceVersion"]
    if not before:
        counts.created += 1
    elif before != after:
        counts.changed += 1
    else:
        counts.unchanged += 1


def leaving_enforced(raw: Raw, found: Raw) -> Raw:
    """`raw` without the `failurePolicy: Ignore` of entries that the webhook has turned to Fail in what is `found`.

    The field is the webhook's then (webhook/enforcement.py), and Fail is also what an entry has that nobody gives one.
    """
    if raw["kind"] != VALIDATING.kind:
        return raw
    enforced = {entry["name"] for entry in found.get("webhooks") or () if entry.get("failurePolicy") == "Fail"}
    entries = [
        {key: value for key, value in entry.items() if key != "failurePolicy" or entry["name"] not in enforced}
        for entry in raw["webhooks"]
    ]
    return {**raw, "webhooks": entries}


def _state(client: Client, part: Part, namespace: str) -> State:
    """All of a part's objects together; the ca is done when it has also written the roots."""
    states = [_state_of(client, raw) for raw in part.objects if raw["kind"] in _WAITED_FOR]
    if part.name == "ca" and not _there(client, CONFIG_MAP.path(namespace, ROOTS)):
        states.append(State(False, reasons=(Reason(f"ConfigMap {namespace}/{ROOTS}", NO_ROOTS),)))
    return State(
        all(state.done for state in states),
        sum(state.ready for state in states),
        sum(state.wanted for state in states),
        tuple(reason for state in states for reason in state.reasons),
    )


def _state_of(client: Client, raw: Raw) -> State:
    try:
        found = client.get(reference_of(raw).path)
        pods: Iterable[Raw] = ()
        if raw["kind"] != CRD.kind:
            labels = ",".join(f"{key}={value}" for key, value in raw["spec"]["selector"]["matchLabels"].items())
            pods = client.get(POD.path(raw["metadata"]["namespace"]), {"labelSelector": labels})["items"]
        return state_of(found, pods)
    except (NotFound, Unavailable) as error:
        return State(False, reasons=(Reason("", str(error)),))


def _there(client: Client, path: str) -> bool:
    try:
        client.get(path)
    except NotFound:
        return False
    return True


def _too_long(patience: float, late: Sequence[tuple[Part, State]], namespace: str) -> NotReady:
    lines = []
    for part, state in late:
        reasons = "; ".join(map(str, state.reasons)) or "no reason is given"
        lines.append(f"{part.title}: {state.ready}/{state.wanted} pods ready: {reasons}")
    return NotReady(
        f"not ready after {patience:.0f} s: " + " | ".join(lines),
        hint=f"see kubectl -n {namespace} get pods and logs; `heddle install` again goes on from here",
    )


def _without(parts: Sequence[Part], left_alone: set[Reference], adopted: set[Reference]) -> list[Part]:
    """The parts without what is left alone, and with what was there before marked as such."""
    kept = []
    for part in parts:
        objects = tuple(
            _marked(raw) if reference_of(raw) in adopted else raw
            for raw in part.objects
            if reference_of(raw) not in left_alone
        )
        if objects:
            kept.append(replace(part, objects=objects))
    return kept


def _marked(raw: Raw) -> Raw:
    metadata = raw["metadata"]
    return {**raw, "metadata": {**metadata, "labels": {**metadata["labels"], OWNER_LABEL: ADOPTED}}}


def _ensure_namespace(client: Client, rendered: Rendered) -> None:
    """First of all: the lock is kept in it."""
    for raw in rendered.objects:
        if raw["kind"] == NAMESPACE.kind:
            client.apply(reference_of(raw).path, raw)


def make_passphrase(client: Client, namespace: str, tell: Callable[[str], None]) -> None:
    """The passphrase of the root key, once; whoever loses it loses the root."""
    path = SECRET.path(namespace, PASSPHRASE_SECRET)
    try:
        client.get(path)
    except NotFound:
        text = base64.b64encode(secrets.token_urlsafe(32).encode()).decode()
        client.post(
            SECRET.path(namespace),
            {"metadata": {"name": PASSPHRASE_SECRET}, "type": "Opaque", "data": {"passphrase": text}},
        )
        tell(f"✔ Secret {namespace}/{PASSPHRASE_SECRET} made: keep a copy, the mesh's root cannot be read without it")


def _prune(tools: Tools, findings: Findings, now: frozenset[Reference]) -> None:
    gone = no_longer_owned(findings.former, now, findings.others)
    removed = [reference for reference in gone if remove(tools.client, reference)]
    if removed:
        tools.tell(f"✔ Removed what is no longer part of it: {', '.join(map(str, removed))}")


def remove(client: Client, reference: Reference) -> bool:
    """Whether it was there."""
    try:
        client.delete(reference.path)
    except NotFound:
        return False
    return True
