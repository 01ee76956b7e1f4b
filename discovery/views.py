"""What sessions look like from outside: the entries of `GET /v1/status`, and a plan as JSON."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from discovery.findings import Finding
from discovery.sessions import Session
from discovery.status import ProxyStatus, type_status
from discovery.tally import Member


def of_session(session: Session) -> ProxyStatus:
    """One agent's session."""
    compiled, ledger = session.compiled, session.ledger
    wanted = {str(kind): entries for kind, entries in compiled.resources.items()}
    return ProxyStatus(
        key=session.key,
        kind="agent",
        ip=session.proxy.ip,
        identity=str(session.identity),
        role=str(compiled.plan.proxy.role) if compiled.plan else "",
        envoy_version=session.proxy.envoy_version,
        agent_version=session.proxy.agent_version,
        connected=session.connected,
        since=session.since,
        last_seen=session.last_seen_text,
        sequence=ledger.sequence,
        failed=compiled.failed,
        types=type_status(compiled.set_versions, wanted, ledger.in_force, ledger.lagging(), ledger.applied),
    )


def member_of(session: Session) -> tuple[Member, tuple[Finding, ...]] | None:
    """What a connected session counts as in the status of objects; None where it does not count."""
    plan = session.compiled.plan
    if plan is None or not session.connected:
        return None
    ledger = session.ledger
    return Member(str(session.key), plan, ledger.generation, ledger.applied), session.compiled.findings


def plan_json(value: object) -> Any:
    """A plan (or a part of one) as JSON values; what is empty, false or None is left out."""
    if is_dataclass(value):
        found = {field.name: plan_json(getattr(value, field.name)) for field in fields(value) if field.compare}
        return {name: part for name, part in found.items() if part not in (None, "", [], {}, False)}
    if isinstance(value, tuple | list):
        return [plan_json(part) for part in value]
    return value
