"""What a rotation does next: pure, from the state that is stored and from what everyone was seen to have.

A phase ends when everyone who counts has said so. There is no time after which it ends otherwise: who is missing is
named, and only an operator can decide to go on without (`exclude`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ca.issue import rfc3339
from ca.rotation.state import Phase, Rotation, entered

NAMED = 20


@dataclass(frozen=True, slots=True)
class Member:
    """Someone who lives: a pod with a sidecar, a component of the control plane, a replica of the ca; or an object that
    carries the roots to those who start.

    `name`: `namespace/name`. `sequence` and `order`: what it has said it acts upon, None when it has said nothing.
    `leaf`: fingerprint of the root of the leaf that it uses, as of that order; empty when it is not known. `signs`:
    of a replica of the ca, the root that it signs with, as of now. `carrier`: it has roots and no leaf. `trouble`: why
    it says nothing, or what else is in its way, for people.
    """

    name: str
    sequence: int | None = None
    order: int = 0
    leaf: str = ""
    ca: bool = False
    signs: str = ""
    carrier: bool = False
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Who is waited for in this phase. `of` counts everyone, `excluded` those who are not waited for."""

    missing: tuple[Member, ...]
    of: int
    excluded: tuple[str, ...] = ()

    @property
    def have(self) -> int:
        return self.of - len(self.missing)

    @property
    def names(self) -> list[str]:
        """The first ones."""
        return [member.name for member in self.missing[:NAMED]]


def waiting(state: Rotation, members: tuple[Member, ...]) -> Waiting:
    """Who has yet to do what this phase is about. In `idle`: who has not taken the bundle as it is."""
    asked = [member for member in members if member.name not in state.excluded]
    missing = tuple(member for member in asked if not _has_done(state, member))
    excluded = tuple(sorted({member.name for member in members} & set(state.excluded)))
    return Waiting(missing, len(asked), excluded)


def advanced(state: Rotation, members: tuple[Member, ...], now: float) -> Rotation:
    """The next state; `state` itself as long as there is something to wait for."""
    if not state.running or state.paused:
        return state
    if state.phase is Phase.DESTROY:
        return entered(state, Phase.IDLE, now)
    if state.phase is Phase.RENEW and now >= state.order.until:
        return entered(state, Phase.DRAIN, now)
    if not members or waiting(state, members).missing:
        return state
    return entered(state, _NEXT[state.phase], now)


_NEXT = {
    Phase.DISTRIBUTE: Phase.SIGN,
    Phase.SIGN: Phase.RENEW,
    Phase.RENEW: Phase.DRAIN,
    Phase.DRAIN: Phase.RETIRE,
    Phase.RETIRE: Phase.DESTROY,
}


def _has_done(state: Rotation, member: Member) -> bool:
    if member.sequence is None or member.sequence < state.sequence:
        return False
    if member.ca and member.signs != state.signs:
        return False  # in every phase: until it has caught up, it may still hand out leaves of the other root
    if state.phase in (Phase.RENEW, Phase.DRAIN) and not member.carrier:
        # What it said before it heard of this order may be of a time when the other root was still signing.
        return member.order >= state.order.number and member.leaf not in ("", state.leaves)
    return True


def count_leaves(state: Rotation, members: tuple[Member, ...]) -> tuple[int, int]:
    """How many use a leaf of the root that leaves, and of the one that stays."""
    leaving = sum(member.leaf == state.leaves for member in members) if state.leaves else 0
    return leaving, sum(member.leaf == state.stays for member in members)


def sentence(state: Rotation, found: Waiting) -> str:
    """What is waited for, in words."""
    if state.phase is Phase.IDLE:
        return ""
    if state.paused:
        return f"paused in phase {state.phase}: `resume` goes on"
    if state.phase is Phase.RENEW and found.missing:
        until = rfc3339(int(state.order.until))  # not the seconds left: what changes nothing is no news to anybody
        return f"{len(found.missing)} of {found.of} to renew their certificates, spread until {until}"
    if not found.of:
        return "the pods and components of the mesh to be known"
    if not found.missing:
        return "the next phase"
    what = {
        Phase.DISTRIBUTE: f"acknowledge bundle {state.sequence}, which has both roots",
        Phase.SIGN: "sign with the root that stays, or know of it",
        Phase.DRAIN: "have a certificate of the root that stays",
        Phase.RETIRE: f"acknowledge bundle {state.sequence}, without the root that leaves",
    }[state.phase]
    named = ", ".join(_named(found))
    more = len(found.missing) - 3
    return f"{named}{f' and {more} more' if more > 0 else ''} to {what}"


def _named(found: Waiting) -> Iterator[str]:
    for member in found.missing[:3]:
        yield f"{member.name} ({member.trouble})" if member.trouble else member.name
