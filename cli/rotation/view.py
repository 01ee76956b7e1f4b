"""A rotation's state, as `GET /v1/rotation` tells it, in words, columns and bars. Pure.

The order of the phases is the ca's; going back, they are passed in the other direction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cli.output import columns, duration

IDLE = "idle"
PHASES: Mapping[str, str] = {
    "distribute": "everyone trusts the new root",
    "sign": "the new root's intermediates sign",
    "renew": "certificates are renewed",
    "drain": "no certificate of the old root is left",
    "retire": "the old root has left every bundle",
    "destroy": "the old key is destroyed",
}
"""Each phase, with what is true once it is over."""

BAR_CELLS = 30
FINGERPRINT_CHARACTERS = 16

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one phase is. `of` is 0 where there is nothing to count; `state` is "done", "now", "to come" or
    "left out"."""

    phase: str
    state: str
    have: int
    of: int
    unit: str

    @property
    def part(self) -> float:
        """Between 0 and 1."""
        if self.state == "done":
            return 1.0
        return self.have / self.of if self.of else 0.0


def is_idle(body: Body) -> bool:
    """Whether no rotation is under way."""
    return bool(body.get("phase", IDLE) == IDLE)


def is_back(body: Body) -> bool:
    """Whether it goes back to the old root."""
    return bool(body.get("direction") == "back")


def progress(body: Body) -> list[Progress]:
    """Every phase of the rotation under way, in the order in which they are passed; none when it is idle."""
    if is_idle(body):
        return []
    names = list(PHASES)
    now = names.index(body["phase"]) if body["phase"] in PHASES else 0
    passed = {entry["phase"] for entry in body.get("history") or () if _same_way(entry, body)}
    found = []
    for at, name in enumerate(names):
        # A rollback enters where it is safe to, and leaves out what is before that.
        state = "now" if at == now else "to come" if at > now else "done" if name in passed else "left out"
        have, of, unit = _counted(name, body) if state == "now" else (0, 0, "")
        found.append(Progress(name, state, have, of, unit))
    return found


def _same_way(entry: Mapping[str, Any], body: Body) -> bool:
    return (entry.get("direction") == "back") == is_back(body)


def _counted(phase: str, body: Body) -> tuple[int, int, str]:
    if phase in ("distribute", "sign", "retire"):
        acknowledged = body.get("acknowledged") or {}
        return acknowledged.get("have", 0), acknowledged.get("of", 0), "acknowledged"
    if phase in ("renew", "drain"):
        leaves = body.get("leaves") or {}
        old, new = leaves.get("old", 0), leaves.get("new", 0)
        return (old if is_back(body) else new), old + new, "certificates"
    return 0, 0, ""


def headline(body: Body) -> str:
    """One sentence: what is going on."""
    if is_idle(body):
        return "No root rotation is under way."
    number = list(PHASES).index(body["phase"]) + 1 if body["phase"] in PHASES else 0
    doing = "going back to the old root" if is_back(body) else "to the new root"
    paused = ", PAUSED" if body.get("paused") else ""
    return f"Root rotation, {doing}: phase {number} of {len(PHASES)}, {body['phase']}{paused}"


def status(body: Body, now: datetime) -> str:
    """Everything, for people: what goes on, the phases, whom it waits for, the roots."""
    lines = [headline(body)]
    if not is_idle(body):
        lines += ["", *(bar(item) for item in progress(body)), "", *notes(body, now)]
    if body.get("would"):
        would = body["would"]
        lines += [f"It would begin with phase {would['phase']} and bundle {would['sequence']}."]
    if body.get("preflight"):
        lines += ["", *preflight(body["preflight"])]
    lines += ["", roots(body)]
    if body.get("history"):
        lines += ["", columns(("since", "phase", "direction"), map(_step, body["history"]))]
    return "\n".join(lines)


def preflight(found: Mapping[str, Any]) -> Iterator[str]:
    """Who would be waited for, and why."""
    if found["ready"]:
        yield "preflight: everyone answers, and trusts the bundle as it is"
    else:
        yield f"preflight: a rotation would wait for {found['count']}:"
    for each in found["missing"]:
        yield f"  {each['name']}: {each['why']}"
    if found["count"] > len(found["missing"]):
        yield f"  and {found['count'] - len(found['missing'])} more"
    if found.get("lasting"):
        yield "nobody renews these certificates on order, so that `drain` would wait for them:"
        yield from (f"  {each['name']}: {each['why']}" for each in found["lasting"])


def ended(body: Body) -> tuple[str, str]:
    """How the last rotation ended ("forward", "back", or "" where there was none) and when (RFC 3339)."""
    last = next(reversed(body.get("history") or ()), None)
    if not last or last["phase"] != IDLE:
        return "", ""
    return last.get("direction", "forward"), last["at"]


def _step(entry: Mapping[str, Any]) -> tuple[object, ...]:
    return entry["at"], entry["phase"], entry.get("direction", "")


def bar(item: Progress, cells: int = BAR_CELLS) -> str:
    """`  renew       ###########...................   12/34 certificates`."""
    full = round(item.part * cells)
    counts = f"{item.have}/{item.of} {item.unit}" if item.of else "" if item.state == "to come" else item.state
    return f"  {item.phase:<11} {'#' * full}{'.' * (cells - full)}  {counts}".rstrip()


def notes(body: Body, now: datetime) -> Iterator[str]:
    """What it waits for, until when it renews, how long it may take, whom it leaves out."""
    if body.get("waitingFor"):
        yield f"waiting for: {body['waitingFor']}"
    acknowledged = body.get("acknowledged") or {}
    missing = acknowledged.get("missing") or []
    if missing:
        unnamed = acknowledged.get("of", 0) - acknowledged.get("have", 0) - len(missing)
        yield f"missing: {', '.join(missing)}" + (f" and {unnamed} more" if unnamed > 0 else "")
    excluded = acknowledged.get("excluded") or []
    if excluded:
        yield f"excluded, not waited for: {', '.join(excluded)}"
    window = body.get("window") or {}
    if body["phase"] == "renew" and window.get("until"):
        left = (datetime.fromisoformat(window["until"]) - now).total_seconds()
        yield f"renewals are spread until {window['until']}" + (f" ({duration(left)} left)" if left > 0 else "")
    if body.get("paused"):
        yield "paused: go on with `heddle rotate resume`, or back with `heddle rotate rollback`"
    if body.get("estimateSeconds") is not None:
        yield f"estimate: {duration(body['estimateSeconds'])} to the end, if everyone answers"


def roots(body: Body) -> str:
    """One line a root."""
    return columns(
        ("root", "serial", "fingerprint", "not before", "not after"),
        [
            (
                root["role"],
                root["serial"],
                root["fingerprint"][:FINGERPRINT_CHARACTERS],
                root.get("notBefore", ""),
                root["notAfter"],
            )
            for root in body.get("roots") or ()
        ],
    )


def line(body: Body) -> str:
    """The state as one line of a log; equal lines mean that nothing has changed."""
    if is_idle(body):
        return "idle: no root rotation is under way"
    words = [body["phase"] + (" (going back)" if is_back(body) else "") + (" (paused)" if body.get("paused") else "")]
    current = next((item for item in progress(body) if item.state == "now"), None)
    if current and current.of:
        words.append(f"{current.have}/{current.of} {current.unit}")
    if body.get("waitingFor"):
        words.append(f"waiting for {body['waitingFor']}")
    return ", ".join(words)
