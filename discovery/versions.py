"""What one agent has, what it should have, and what it has acknowledged. Pure.

A `Ledger` is the server's half of `mesh.wire`: fed with what arrives, asked what to send. Sequences number the answers
of a session. The answer after sequence n is pending until the agent asks with its number; if the agent asks with n
again, the answer was lost and what it said is worked out anew. `applied` is another matter: a sequence counts as
applied when Envoy has taken every type that changed in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

from discovery.layers import Comparison, Entries
from mesh.errors import Gone
from mesh.wire import Applied, ResourceType, Versions

Resources = Mapping[ResourceType, Entries]
Held = Mapping[str, Entries]
"""What an agent has, by type. The bytes are empty where the agent only said which version it has."""

_NONE: Entries = {}
_compare = Comparison()


@dataclass(frozen=True, slots=True)
class Delta:
    """By type: what is new or other, and names that are no more. Falsy when there is nothing."""

    changed: Mapping[str, Entries]
    removed: Mapping[str, tuple[str, ...]]

    def __bool__(self) -> bool:
        return bool(self.changed or self.removed)

    @property
    def types(self) -> frozenset[str]:
        return frozenset(self.changed) | frozenset(self.removed)


def held_from(versions: Versions | None) -> Held:
    """What the agent says that it has."""
    return {
        kind: {name: (version, b"") for name, version in entries.items()} for kind, entries in (versions or {}).items()
    }


def difference(held: Held, wanted: Resources) -> Delta:
    """What turns `held` into `wanted`."""
    changed: dict[str, Entries] = {}
    removed: dict[str, tuple[str, ...]] = {}
    for kind, want in wanted.items():
        have = held.get(kind, _NONE)
        if have is want:
            continue
        found = _compare(have, want)
        if found.changed:
            changed[str(kind)] = found.changed
        if found.removed:
            removed[str(kind)] = found.removed
    for unknown in sorted(held.keys() - wanted.keys()):
        if held[unknown]:
            removed[unknown] = tuple(sorted(held[unknown]))
    return Delta(changed, removed)


def entries_of(resources: Resources, kind: str) -> Entries:
    """The resources of `kind`; none for a type that only the agent knows (an older or a newer one)."""
    return resources.get(kind, _NONE)  # type: ignore[call-overload,no-any-return]  # a StrEnum is its text


def set_version(entries: Entries) -> str:
    """A short hash of a type's whole set of resources: equal when every resource is."""
    text = "".join(sorted(version for version, _ in entries.values()))
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the session: its number, the generation of the snapshot that it was computed from, when that
    snapshot's change arrived (monotonic), and the whole new set of each type that it changes."""

    sequence: int
    generation: int
    arrived: float
    sets: Held


class Ledger(NamedTuple):
    """`held` is what the agent has as of `sequence`; `pending` the answer on its way.

    `unapplied`: the answers that Envoy has not taken whole, oldest first, the pending one included. `in_force`: by
    type, the set that Envoy has taken. `generation`: everything up to that snapshot has been applied.
    """

    held: Held
    in_force: Held
    sequence: int = 0
    pending: Answer | None = None
    unapplied: tuple[Answer, ...] = ()
    applied: Mapping[str, Applied] = MappingProxyType({})
    generation: int = 0

    @staticmethod
    def new(versions: Versions | None, applied: Mapping[str, Applied]) -> Ledger:
        """A session begins. What `applied` says of sequences belongs to an earlier session; its rejections stand."""
        held = held_from(versions)
        rejections = {kind: replace(state, sequence=0) for kind, state in applied.items() if state.rejected}
        return Ledger(held, held, applied=rejections)

    def asked(self, sequence: int) -> Ledger:
        """The agent asks with `sequence`. Gone when that is neither the last answer nor the one before."""
        if self.pending is not None and sequence == self.pending.sequence:
            return self._replace(sequence=sequence, held={**self.held, **self.pending.sets}, pending=None)
        if sequence != self.sequence:
            raise Gone(
                f"this session is at sequence {self.sequence}, not {sequence}",
                field="sequence",
                hint="start a new session: leave session empty and send versions",
            )
        if self.pending is None:
            return self
        return self._replace(pending=None, unapplied=tuple(a for a in self.unapplied if a is not self.pending))

    def answered(self, wanted: Resources, delta: Delta, generation: int, arrived: float) -> Ledger:
        """`delta` goes out as the next sequence."""
        sets = {kind: entries_of(wanted, kind) for kind in delta.types}
        answer = Answer(self.sequence + 1, generation, arrived, sets)
        return self._replace(pending=answer, unapplied=(*self.unapplied, answer))

    def reported(self, applied: Mapping[str, Applied]) -> Ledger:
        """The agent says what Envoy has taken. Sequences that were never sent are an earlier session's: ignored."""
        if applied == self.applied and not self.unapplied:
            return self
        newest = self.pending.sequence if self.pending else self.sequence
        known = {**self.applied, **{kind: state for kind, state in applied.items() if state.sequence <= newest}}
        in_force, rest, generation = dict(self.in_force), list(self.unapplied), self.generation
        for answer in self.unapplied:
            in_force.update({kind: new for kind, new in answer.sets.items() if _taken(known, kind) >= answer.sequence})
        while rest and all(_taken(known, kind) >= rest[0].sequence for kind in rest[0].sets):
            generation = max(generation, rest.pop(0).generation)
        return self._replace(applied=known, in_force=in_force, unapplied=tuple(rest), generation=generation)

    def current(self, wanted: Resources, generation: int) -> Ledger:
        """The agent lacks nothing of `wanted`, made from the snapshot `generation`. That is applied, too, unless an
        earlier answer is not.

        `held` becomes `wanted` itself, which is equal: that sets are shared saves memory, and comparing them time.
        """
        held = {str(kind): entries for kind, entries in wanted.items()}
        if self.unapplied:
            return self._replace(held=held)
        return self._replace(held=held, in_force=held, generation=max(generation, self.generation))

    def lagging(self) -> frozenset[str]:
        """Types of which Envoy has not taken the newest."""
        return frozenset(
            kind for answer in self.unapplied for kind in answer.sets if _taken(self.applied, kind) < answer.sequence
        )


def _taken(applied: Mapping[str, Applied], kind: str) -> int:
    """The sequence that Envoy has taken of `kind`. It sees virtual hosts only within their route configurations."""
    state = applied.get(kind)
    if state is None and kind == ResourceType.VIRTUAL_HOSTS:
        state = applied.get(ResourceType.ROUTES)
    return state.sequence if state else 0
