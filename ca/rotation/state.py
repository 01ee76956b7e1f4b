"""Where a rotation stands, as a value: `rotation.json` beside the root and the bundle. Pure.

Two roots take part: the one that `leaves` the trust domain and the one that `stays`. Going forward the old one leaves;
a rollback exchanges the two and goes the same way back. What is signed with and what everyone is told to trust follow
from the phase alone, so that a change of phase, of bundle and of signing key is one write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from mesh.errors import Conflict, InvalidInput
from svid.trust import NO_ORDER, Order

LONGEST_HISTORY = 64
LONGEST_WINDOW = 7 * 86400.0


class Phase(StrEnum):
    """What is being waited for; each phase is stored before anything of it happens."""

    IDLE = "idle"
    DISTRIBUTE = "distribute"  # both roots are in the bundle: everyone must have taken it
    SIGN = "sign"  # every ca replica must sign with the root that stays
    RENEW = "renew"  # leaves of the root that leaves are renewed, spread over a window
    DRAIN = "drain"  # until nobody has a leaf of it
    RETIRE = "retire"  # it is no longer in the bundle: everyone must have taken that
    DESTROY = "destroy"  # its key is removed next; there is no way back


@dataclass(frozen=True, slots=True)
class Step:
    """A phase that was entered at `at` (Unix seconds)."""

    phase: Phase
    at: float
    back: bool = False


@dataclass(frozen=True, slots=True)
class Rotation:
    """`stays` and `leaves`: fingerprints of the roots (SHA-256 of the certificate, hexadecimal).

    `sequence`: the bundle's, as of this phase. `order`: what holders of certificates are told about renewing early; its
    number grows with every change. `window`: seconds over which renewals are spread. Times are Unix seconds.
    """

    phase: Phase = Phase.IDLE
    back: bool = False
    paused: bool = False
    since: float = 0.0
    started_at: float = 0.0
    sequence: int = 1
    stays: str = ""
    leaves: str = ""
    order: Order = NO_ORDER
    window: float = 3600.0
    excluded: tuple[str, ...] = ()
    history: tuple[Step, ...] = field(default=())

    @property
    def running(self) -> bool:
        return self.phase is not Phase.IDLE

    @property
    def signs(self) -> str:
        """The root that signs intermediates now."""
        return self.leaves if self.phase is Phase.DISTRIBUTE else self.stays

    @property
    def trusted(self) -> tuple[str, ...]:
        """The roots in the bundle, the one that signs first."""
        if self.phase in (Phase.IDLE, Phase.RETIRE, Phase.DESTROY):
            return (self.stays,)
        return (self.signs, self.leaves if self.signs == self.stays else self.stays)


# ---- what happens by itself


def entered(state: Rotation, phase: Phase, now: float) -> Rotation:
    """`state`, at the beginning of `phase`."""
    sequence = state.sequence + (set(replace(state, phase=phase).trusted) != set(state.trusted))
    order = _order(state, phase, now)
    step = Step(phase, now, state.back)
    history = (*state.history, step)[-LONGEST_HISTORY:]
    if phase is Phase.IDLE:
        idle = replace(state, leaves="", excluded=(), back=False, paused=False)
        return replace(idle, phase=phase, since=now, sequence=sequence, order=order, history=history)
    return replace(state, phase=phase, since=now, sequence=sequence, order=order, history=history)


def _order(state: Rotation, phase: Phase, now: float) -> Order:
    number = state.order.number + 1
    if phase is Phase.RENEW:
        return Order(number, state.leaves, now, now + state.window)
    if phase is Phase.DRAIN or not state.order.root:
        return state.order
    return Order(number)


# ---- what an operator asks for


def started(state: Rotation, new_root: str, window: float, now: float) -> Rotation:
    """A rotation to `new_root` begins. Conflict while one is running."""
    if state.running:
        raise Conflict(
            f"a rotation is running (phase {state.phase})",
            hint="wait for its end, or roll it back; `heddle rotate status` says where it stands",
        )
    begun = replace(state, leaves=state.stays, stays=new_root, window=window, started_at=now)
    begun = replace(begun, back=False, paused=False, excluded=(), history=())
    # In the idle phase only the old root was trusted; `entered` compares with that.
    step = Step(Phase.DISTRIBUTE, now)
    return replace(begun, phase=Phase.DISTRIBUTE, since=now, sequence=state.sequence + 1, history=(step,))


def rolled_back(state: Rotation, now: float) -> Rotation:
    """The same way back: the root that was to leave stays. Conflict where there is nothing to go back to."""
    _check_running(state)
    if state.back:
        raise Conflict("the rotation is being rolled back already", hint="start another one when it is idle")
    if state.phase is Phase.DESTROY:
        raise Conflict("the old root has left every bundle and its key is being destroyed", hint="start a new rotation")
    first = {Phase.DISTRIBUTE: Phase.RETIRE, Phase.RETIRE: Phase.DISTRIBUTE}.get(state.phase, Phase.SIGN)
    swapped = replace(state, stays=state.leaves, leaves=state.stays, back=True, paused=False)
    back = entered(swapped, first, now)
    changed = set(back.trusted) != set(state.trusted)
    return replace(back, sequence=state.sequence + changed)


def paused(state: Rotation, *, paused: bool) -> Rotation:
    """No next phase is entered until it is resumed. What was ordered goes on: renewals do not stop."""
    _check_running(state)
    return replace(state, paused=paused)


def finished(state: Rotation, least: float, now: float) -> Rotation:
    """The leaves are renewed within `least` seconds, instead of the rest of the window."""
    _check_running(state)
    if state.phase not in (Phase.RENEW, Phase.DRAIN):
        raise Conflict(
            f"there is no window to cut short in phase {state.phase}",
            hint="that belongs to phases renew and drain; `heddle rotate start --window` sets the window beforehand",
        )
    return replace(state, order=Order(state.order.number + 1, state.leaves, now, now + least))


def excluding(state: Rotation, names: tuple[str, ...], *, excluded: bool) -> Rotation:
    """`names` (`namespace/pod`) are not waited for, or are again."""
    _check_running(state)
    if not names:
        raise InvalidInput("no pod is named", field="pods", hint='such as "pods": ["default/reviews-1"]')
    left = tuple(name for name in state.excluded if name not in names)
    return replace(state, excluded=tuple(sorted((*left, *names))) if excluded else left)


def _check_running(state: Rotation) -> None:
    if not state.running:
        raise Conflict("no rotation is running", hint="`heddle rotate start` begins one")


# ---- as a document


def rotation_json(state: Rotation) -> str:
    """The text of rotation.json."""
    order = state.order
    body = {
        "phase": state.phase,
        "back": state.back,
        "paused": state.paused,
        "since": state.since,
        "startedAt": state.started_at,
        "sequence": state.sequence,
        "stays": state.stays,
        "leaves": state.leaves,
        "order": {"number": order.number, "root": order.root, "from": order.begin, "until": order.until},
        "windowSeconds": state.window,
        "excluded": list(state.excluded),
        "history": [{"phase": step.phase, "at": step.at, "back": step.back} for step in state.history],
    }
    return json.dumps(body, indent=1) + "\n"


def rotation_from(raw: Mapping[str, Any]) -> Rotation:
    """The state in such a document; ValueError, KeyError or TypeError when it is something else."""
    order = raw["order"]
    return Rotation(
        phase=Phase(raw["phase"]),
        back=bool(raw["back"]),
        paused=bool(raw["paused"]),
        since=float(raw["since"]),
        started_at=float(raw["startedAt"]),
        sequence=int(raw["sequence"]),
        stays=str(raw["stays"]),
        leaves=str(raw["leaves"]),
        order=Order(int(order["number"]), str(order["root"]), float(order["from"]), float(order["until"])),
        window=float(raw["windowSeconds"]),
        excluded=tuple(map(str, raw["excluded"])),
        history=tuple(Step(Phase(one["phase"]), float(one["at"]), bool(one["back"])) for one in raw["history"]),
    )
