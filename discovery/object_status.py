"""The `status` of one of Istio's objects: `mesh/crd_status.py` has its schema. Pure.

`Accepted`: the object could be read, and nothing that it refers to is missing. `Reconciled`: every proxy that it is for
has applied it. Messages are for people, reasons for machines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from discovery.findings import Finding, Severity
from discovery.tally import Count
from mesh.kinds import Kind
from mesh.objects import Key
from mesh.proxy_configs import KIND as PROXY_CONFIG

LONGEST_MESSAGE = 1024
MOST_SENTENCES = 5


@dataclass(frozen=True, slots=True)
class Seen:
    """An object as the API server has it: what its status is about, and what it says now. `status` may be another
    controller's."""

    kind: Kind
    key: Key
    uid: str
    generation: int
    status: Mapping[str, Any] | None

    @property
    def planned(self) -> bool:
        return self.kind.planned


def seen(kind: Kind, raw: Mapping[str, Any]) -> Seen:
    meta = raw.get("metadata") or {}
    return Seen(
        kind=kind,
        key=Key(meta.get("namespace", ""), meta.get("name", "")),
        uid=meta.get("uid", ""),
        generation=int(meta.get("generation") or 0),
        status=raw.get("status"),
    )


def status_of(found: Seen, findings: Iterable[Finding], count: Count, now: str) -> dict[str, Any] | None:
    """What the status should be; None when it is. `findings`: of this object. `now`: RFC 3339."""
    conditions = [_accepted(found, list(findings))]
    status: dict[str, Any] = {"observedGeneration": found.generation, "conditions": conditions}
    if not found.planned:
        conditions.append(_reconciled(found, count))
        status["heddle"] = {"proxies": _proxies(count)}
    for condition in conditions:
        condition["observedGeneration"] = found.generation
    before = found.status or {}
    if _told(before, status):
        return None
    for condition in conditions:
        condition["lastTransitionTime"] = _since(before, condition, now)
    return status


def _accepted(found: Seen, findings: list[Finding]) -> dict[str, Any]:
    errors = [each for each in findings if each.severity is Severity.ERROR]
    if errors:
        said = [f"{each.field}: {each.message}" if each.field else each.message for each in sorted(set(errors))]
        unread = any(each.effect for each in errors)
        return _condition("Accepted", False, "Invalid" if unread else "UnresolvedReferences", _sentences(said))
    if found.planned:
        return _condition(
            "Accepted", False, "NotActedUpon", "Heddle reads and checks this kind, and does not act upon it yet"
        )
    return _condition("Accepted", True, "Accepted", "in order")


def _reconciled(found: Seen, count: Count) -> dict[str, Any]:
    have = f"{count.applied} of {count.total} proxies have it"
    if count.refused:
        first = count.refused[0]
        return _condition("Reconciled", False, "Refused", f"{have}; Envoy of {first.pod} says: {first.message}")
    if not count.total:
        return _condition("Reconciled", True, "NoProxies", "no connected proxy is affected by it")
    done = count.applied >= count.total
    if found.kind.kind == PROXY_CONFIG and not done:
        have += "; the others take it when their pods are restarted"
    return _condition("Reconciled", done, "Reconciled" if done else "InProgress", have)


def _condition(kind: str, true: bool, reason: str, message: str) -> dict[str, Any]:
    return {"type": kind, "status": str(true), "reason": reason, "message": message[:LONGEST_MESSAGE]}


def _sentences(said: list[str]) -> str:
    rest = len(said) - MOST_SENTENCES
    return "; ".join(said[:MOST_SENTENCES]) + (f"; and {rest} more" if rest > 0 else "")


def _proxies(count: Count) -> dict[str, Any]:
    refused = [{"pod": one.pod, "resource": one.resource, "message": one.message} for one in count.refused]
    return {"applied": count.applied, "total": count.total, "refused": refused}


def _told(before: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Whether `before` says what `status` says, times aside."""
    if before.get("observedGeneration") != status["observedGeneration"]:
        return False
    if before.get("heddle") != status.get("heddle"):
        return False
    old = _by_type(before)
    return all(
        each["type"] in old and all(old[each["type"]].get(name) == value for name, value in each.items())
        for each in status["conditions"]
    )


def _since(before: Mapping[str, Any], condition: Mapping[str, Any], now: str) -> str:
    old = _by_type(before).get(condition["type"], {})
    since: str = old.get("lastTransitionTime") or now
    return since if old.get("status") == condition["status"] else now


def _by_type(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {each["type"]: each for each in status.get("conditions") or () if isinstance(each, Mapping)}
