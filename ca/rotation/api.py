"""A rotation over HTTP: `GET` and `POST /v1/rotation` for operators, and what those ask each other who take part.

docs/architecture.md has the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response

from ca.issue import rfc3339
from ca.rotation.acknowledgements import Acknowledgements
from ca.rotation.decide import NAMED, Member, count_leaves, sentence, waiting
from ca.rotation.desk import Desk, Wish
from ca.rotation.documents import STANDBY, root_facts
from ca.rotation.observe import Observer
from ca.rotation.state import LONGEST_WINDOW, Phase, Rotation
from ca.trust import Trust
from mesh.errors import InvalidInput
from mesh.wire import TrustReport
from serving.json_http import json_response, read_json
from svid.trust import News, news_json

MAX_BODY = 64 * 1024
DOES = ("start", "pause", "resume", "rollback", "finish", "exclude", "include")
_FIELDS = frozenset({"do", "pods", "windowSeconds", "dryRun", "root"})


@dataclass(frozen=True, slots=True)
class RotationDeps:
    """`operator` raises unless the current request is an operator's, `peer` unless it is another replica's;
    `component` is the title of the component that asks, "" for an operator, and raises for everybody else."""

    desk: Desk
    observer: Observer
    acknowledgements: Acknowledgements
    operator: Callable[[], None]
    component: Callable[[], str]
    peer: Callable[[], None]
    news: Callable[[], News]
    now: Callable[[], float]


def add_rotation(app: Flask, deps: RotationDeps) -> None:
    """Add the routes."""

    @app.post("/v1/bundle/acknowledgements")
    def acknowledge() -> Response:
        title = deps.component()
        report = TrustReport.parse(read_json(MAX_BODY), "")
        if title:
            deps.acknowledgements.say(title, report)
        news = deps.news()
        if news.version == report.version:
            return Response(status=204)
        return json_response(news_json(news), 200)

    @app.get("/v1/trust")
    def trust() -> Response:
        deps.peer()
        return json_response(deps.observer.told(), 200)

    @app.get("/v1/rotation")
    def rotation() -> Response:
        deps.operator()
        return json_response(current_json(deps.desk, deps.observer, deps.now()), 200)

    @app.post("/v1/rotation")
    def ask() -> Response:
        deps.operator()
        wish = wish_from(read_json(MAX_BODY))
        trust, before = deps.desk.current()
        members = deps.observer.members(before)
        further: dict[str, Any] = {}
        if wish.do == "start":
            further["preflight"] = preflight(before, members, deps.observer.lasting(before))
        if wish.do == "exclude":
            further["warnings"] = what_breaks(before, wish.pods, members)
        if wish.dry_run:
            would = deps.desk.tried(wish, len(members))
            state = before
            further["would"] = {"phase": would.phase, "direction": _direction(would.back), "sequence": would.sequence}
        else:
            trust, state = deps.desk.carry_out(wish, len(members))
        return json_response(rotation_json(trust, state, members, deps.now()) | further, 200)


def current_json(desk: Desk, observer: Observer, now: float) -> dict[str, Any]:
    """The body as it is now."""
    trust, state = desk.current()
    return rotation_json(trust, state, observer.members(state), now)


def wish_from(body: object) -> Wish:
    """The wish in a request's body; InvalidInput names the field that is wrong."""
    if not isinstance(body, dict):
        raise InvalidInput("the body is not a JSON object", hint='send {"do": "start"}')
    unknown = sorted(body.keys() - _FIELDS)
    if unknown:
        raise InvalidInput(
            f"{unknown[0]!r} is not a field", field=unknown[0], hint=f"there are {', '.join(sorted(_FIELDS))}"
        )
    do, pods, window = body.get("do"), body.get("pods", []), body.get("windowSeconds")
    dry_run = body.get("dryRun", False)
    if do not in DOES:
        raise InvalidInput(f"{do!r} is nothing that can be done", field="do", hint=f"there are {', '.join(DOES)}")
    if not isinstance(pods, list) or not all(isinstance(name, str) and name.count("/") == 1 for name in pods):
        raise InvalidInput("must be a list of names", field="pods", hint='such as ["default/reviews-1"]')
    if window is not None and (
        isinstance(window, bool) or not isinstance(window, int | float) or not 1 <= window <= LONGEST_WINDOW
    ):
        raise InvalidInput(f"must be a number from 1 to {LONGEST_WINDOW:g}, got {window!r}", field="windowSeconds")
    if not isinstance(dry_run, bool):
        raise InvalidInput("must be true or false", field="dryRun")
    root = body.get("root", "")
    if not isinstance(root, str) or (root and do != "start"):
        raise InvalidInput("must be the fingerprint of a root to start with", field="root")
    return Wish(do, tuple(pods), None if window is None else float(window), dry_run, root)


def rotation_json(trust: Trust, state: Rotation, members: tuple[Member, ...], now: float) -> dict[str, Any]:
    """The body of both answers."""
    found = waiting(state, members)
    leaving, staying = count_leaves(state, members)
    old, new = (staying, leaving) if state.back or not state.running else (leaving, staying)
    order = state.order
    in_window = state.phase in (Phase.RENEW, Phase.DRAIN)
    return {
        "phase": state.phase,
        "direction": _direction(state.back),
        "paused": state.paused,
        "since": _moment(state.since),
        "startedAt": _moment(state.started_at),
        "sequence": state.sequence,
        "roots": roots_json(trust, state),
        "acknowledged": {
            "have": found.have,
            "of": found.of,
            "missing": found.names,
            "excluded": list(state.excluded),
        },
        "leaves": {"old": old, "new": new},
        "window": {"from": _moment(order.begin), "until": _moment(order.until)} if in_window else None,
        "estimateSeconds": max(0, round(order.until - now)) if state.phase is Phase.RENEW else None,
        "waitingFor": sentence(state, found),
        "history": [
            {"phase": step.phase, "direction": _direction(step.back), "at": _moment(step.at)} for step in state.history
        ],
    }


def roots_json(trust: Trust, state: Rotation) -> list[dict[str, Any]]:
    """The roots in the bundle, and the one on standby."""
    pems = dict.fromkeys((*trust.bundle.roots, trust.others.get(STANDBY, "")))
    facts = {each.fingerprint: each for each in (root_facts(pem) for pem in pems if pem)}
    return [
        {
            "fingerprint": each.fingerprint,
            "serial": each.serial,
            "notBefore": rfc3339(each.not_before),
            "notAfter": rfc3339(each.not_after),
            "role": _role(each.fingerprint, state),
        }
        for each in facts.values()
    ]


def _role(fingerprint: str, state: Rotation) -> str:
    if fingerprint == state.signs:
        return "active"
    return "incoming" if fingerprint == state.stays else "outgoing"


def preflight(state: Rotation, members: tuple[Member, ...], lasting: tuple[Member, ...]) -> dict[str, Any]:
    """Whether everyone who would be waited for answers and has the bundle as it is, and why not; and who has a
    certificate that can only be waited for."""
    missing = waiting(state, members).missing
    return {
        "ready": not missing,
        "missing": [{"name": each.name, "why": each.trouble or _behind(each)} for each in missing[:NAMED]],
        "count": len(missing),
        "lasting": [{"name": each.name, "why": each.trouble} for each in lasting[:NAMED]],
    }


def _behind(member: Member) -> str:
    if member.sequence is None:
        return "it says nothing"
    return f"it has taken bundle {member.sequence} only"


def what_breaks(state: Rotation, names: Sequence[str], members: tuple[Member, ...]) -> list[str]:
    """What it means to go on without each."""
    known = {member.name: member for member in members}
    return [f"{name}: {_consequence(state, known.get(name))}" for name in names]


def _consequence(state: Rotation, member: Member | None) -> str:
    if member is None:
        return "nobody of this name is waited for now; if somebody is later, it goes on without"
    if member.carrier:
        return (
            "whoever starts with the roots in it as it is will not trust the ca, and will get no certificate, once the "
            "root that leaves is no longer used"
        )
    if member.sequence is not None and member.sequence >= state.sequence:
        return (
            "if it still has a certificate of the root that leaves when that goes, everyone refuses it, until it has "
            "another"
        )
    return (
        "if it still runs, it will refuse everyone who has renewed, as soon as the root that stays signs; when the "
        "root that leaves goes, everyone refuses it too. It takes no part in the mesh from then on, until its "
        "agent reaches discovery and the ca again, or it is restarted"
    )


def _direction(back: bool) -> str:
    return "back" if back else "forward"


def _moment(at: float) -> str | None:
    return rfc3339(int(at)) if at else None
