"""Changes a rotation's state where it is stored: what operators ask for, and the steps that come by themselves.

Every change is a compare-and-swap on what was read, so that any replica of the ca may make it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from ca.authority import Authority
from ca.rotation import state as states
from ca.rotation.decide import Member, advanced
from ca.rotation.documents import STANDBY, documents_of, root_facts, rotation_of, with_new_root
from ca.rotation.shelf import from_shelf
from ca.rotation.state import Phase, Rotation
from ca.store import Store
from ca.trust import Trust
from mesh.errors import Conflict

ATTEMPTS = 8
LEAST_FINISH = 2.0  # seconds over which renewals are spread even when there is a hurry
FINISH_PER_SECOND = 200.0

log = structlog.get_logger("ca")


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator asks for: `do` with what belongs to it."""

    do: str
    pods: tuple[str, ...] = ()
    window: float | None = None
    dry_run: bool = False
    root: str = ""  # fingerprint of the root on the shelf to rotate to; "" for a new one


@dataclass(frozen=True, slots=True)
class RootKeys:
    """How roots come and go. `make` gives a new one (key and certificate, as a document); `forget` destroys the key of
    such a document where leaving the document out does not, and may be called again with the same."""

    make: Callable[[], str]
    forget: Callable[[str], None]


class Desk:
    """`window` is the default one, in seconds."""

    def __init__(
        self,
        authority: Authority,
        store: Store,
        keys: RootKeys,
        window: float,
        now: Callable[[], float],
    ) -> None:
        self._authority, self._store = authority, store
        self._keys, self._window, self._now = keys, window, now

    @property
    def running(self) -> bool:
        """Whether there is a rotation, as far as this replica has heard."""
        return rotation_of(self._authority.trust).running

    def current(self) -> tuple[Trust, Rotation]:
        """What is stored now. Raises what reading raises."""
        self._authority.refresh()
        trust = self._authority.trust
        return trust, rotation_of(trust)

    def carry_out(self, wish: Wish, members: int) -> tuple[Trust, Rotation]:
        """Do what is wished (`members`: how many there are); what is stored afterwards.

        Conflict where the wish does not fit the phase.
        """
        for _ in range(ATTEMPTS):
            trust, state = self.current()
            wanted = self._wished(trust, state, wish, members)
            if wanted == state:
                return trust, state
            made = ""
            if wish.do == "start":
                trust, root = from_shelf(trust, wish.root) if wish.root else (trust, made := self._keys.make())
                trust, wanted = with_new_root(trust, root), replace(wanted, stays=root_facts(root).fingerprint)
            stored = self._stored(trust, wanted)
            if made and not stored:
                self._keys.forget(made)
            if stored:
                log.info("rotation", does=wish.do, phase=wanted.phase, pods=wish.pods or None)
                return self.current()
        raise Conflict("the rotation is changed by others all the time", hint="try again")

    def tried(self, wish: Wish, members: int) -> Rotation:
        """What `carry_out` would make of it; nothing is stored."""
        return self._wished(*self.current(), wish, members)

    def step(self, members: Callable[[Rotation], tuple[Member, ...]]) -> Rotation:
        """Enter the next phase when nobody is waited for; where it stands afterwards."""
        trust, state = self.current()
        if not state.running:
            return state
        wanted = advanced(state, members(state), self._now())
        if wanted.phase is Phase.IDLE:  # before its document goes: whoever dies in between leaves it to be done again
            self._keys.forget(trust.others.get(STANDBY, ""))
        if wanted != state and self._stored(trust, wanted):
            log.info("rotation", phase=wanted.phase, back=wanted.back, sequence=wanted.sequence)
            return self.current()[1]
        return state

    def _stored(self, trust: Trust, wanted: Rotation) -> bool:
        try:
            self._store.replace(documents_of(trust, wanted), trust.version)
        except Conflict:
            return False
        return True

    def _wished(self, trust: Trust, state: Rotation, wish: Wish, members: int) -> Rotation:
        now = self._now()
        match wish.do:
            case "start":
                if not state.running:
                    _check_alone(trust, state)
                return states.started(state, "", self._window if wish.window is None else wish.window, now)
            case "pause" | "resume":
                return states.paused(state, paused=wish.do == "pause")
            case "rollback":
                return states.rolled_back(state, now)
            case "finish":
                return states.finished(state, LEAST_FINISH + members / FINISH_PER_SECOND, now)
            case _:
                return states.excluding(state, wish.pods, excluded=wish.do == "exclude")


def _check_alone(trust: Trust, state: Rotation) -> None:
    """Conflict when the bundle has roots that the rotation knows nothing of: at its end they would be gone."""
    others = {root_facts(root).fingerprint for root in trust.bundle.roots} - {state.stays}
    if others:
        raise Conflict(
            f"the bundle has further roots: {', '.join(sorted(root[:16] for root in others))}",
            hint="somebody put them there by hand; take them out of bundle.json (with a higher sequence) first",
        )
