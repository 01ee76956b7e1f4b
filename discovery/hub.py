"""Who must hear of a change: every proxy that is connected, each once, the newest snapshot only.

`publish` gives each Snapshot a generation and marks all members as behind; one greenlet brings them up to date, one
after the other, letting the others (answers, probes) run in between. A member that is behind stays in its place in the
line when another change comes, so that no stream of changes can starve it.

A generation is applied when every connected member has applied it; when that was is kept for those who ask
(`applied_by_all`). This is the only part of discovery, with sessions.py and bare.py, that waits for anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Protocol

import gevent
import structlog
from gevent.event import Event

from discovery.snapshots import same_content
from mesh.errors import Gone, HeddleError, Unavailable
from mesh.objects import Key, Pod
from mesh.snapshot import Snapshot

HISTORY = 1024
JANITOR_SECONDS = 10.0
PROGRESS_SECONDS_EACH = 20e-6
"""Pause for each member between two looks at who has applied what: a look costs a twentieth of it."""

log = structlog.get_logger("discovery")


@dataclass(slots=True, eq=False)
class Moment:
    """A published Snapshot: `arrived` and `applied` (by all connected proxies; None: not yet) are monotonic seconds.

    `versions`: kind -> API server's version of its newest change.
    """

    generation: int
    snapshot: Snapshot
    arrived: float
    versions: Mapping[str, int] = field(default_factory=dict)
    applied: float | None = None

    def includes(self, observed: int, kind: str) -> bool:
        """Whether the change of `kind` with that version is in it; of any kind where `kind` is empty."""
        version = self.versions.get(kind, 0) if kind else self.snapshot.resource_version
        return version >= observed


class Member(Protocol):
    """A connected proxy."""

    key: Key
    pod_uid: str

    @property
    def version(self) -> str:
        """Its agent's; empty where there is none."""

    @property
    def connected(self) -> bool:
        """Whether it counts for what is applied by all."""

    @property
    def generation(self) -> int:
        """The newest generation that it has applied whole."""

    def refresh(self, moment: Moment) -> None:
        """Compute what it should have, and wake its poll if that is news. Never waits."""

    def unchanged(self, moment: Moment) -> None:
        """What was computed before holds for `moment` too."""

    def expired(self, now: float) -> bool:
        """Whether it has not been heard of for too long."""

    def end(self, error: HeddleError) -> None:
        """It is no longer a member; a poll that it holds is answered with `error`."""


class Signal:
    """Wakes everyone who waits at that moment."""

    def __init__(self) -> None:
        self._event = Event()

    def notify(self) -> None:
        event, self._event = self._event, Event()
        event.set()

    def wait(self, seconds: float) -> None:
        self._event.wait(max(0.0, seconds))


class Hub:
    """`clock`: monotonic seconds. `dequeued` hears for how long a member waited for its turn."""

    def __init__(self, clock: Callable[[], float], dequeued: Callable[[float], None] = lambda _waited: None) -> None:
        self.clock = clock
        self._dequeued = dequeued
        self.moment: Moment | None = None
        self.closing = False
        self.members: dict[Member, None] = {}
        self._behind: dict[Member, float] = {}
        """Since when."""
        self._history: deque[Moment] = deque(maxlen=HISTORY)
        self._last: Member | None = None
        """Had applied the least when all were looked at."""
        self._work, self._may_be_applied = Event(), Event()
        self._published, self._progress = Signal(), Signal()
        self._listeners: list[Callable[[Moment], None]] = []

    def start(self) -> None:
        """Begin to serve members; three greenlets of this process."""
        gevent.spawn(self._run)
        gevent.spawn(self._follow)
        gevent.spawn(self._clean)

    def publish(self, snapshot: Snapshot, versions: Mapping[str, int], arrived: float) -> None:
        """`snapshot` is what holds from now on; its change reached this process at `arrived`."""
        before = self.moment
        moment = Moment(before.generation + 1 if before else 1, snapshot, arrived, dict(versions))
        self.moment = moment
        self._history.append(moment)
        for listener in self._listeners:
            listener(moment)
        for member in list(self.members):
            pod = snapshot.pods.get(member.key)
            if pod is None or pod.meta.uid != member.pod_uid or pod.finished:
                self.remove(member, Gone(f"the pod {member.key} is no more"))
        if before is not None and same_content(before.snapshot, snapshot):
            for member in self.members:
                if member not in self._behind:
                    member.unchanged(moment)
        else:
            now = self.clock()
            for member in self.members:
                self._behind.setdefault(member, now)
            self._work.set()
        self._published.notify()
        self.progressed()

    def on_publish(self, listener: Callable[[Moment], None]) -> None:
        """Call `listener` with each moment, before any member hears of it. It must be quick."""
        self._listeners.append(listener)

    def add(self, member: Member) -> None:
        self.members[member] = None

    def remove(self, member: Member, error: HeddleError) -> None:
        """End `member`; a second time does nothing."""
        if member in self.members:
            del self.members[member]
            self._behind.pop(member, None)
            member.end(error)
            self.progressed()

    def current(self, hold: float) -> Moment:
        """The newest moment; waits `hold` seconds for the first one, then raises Unavailable."""
        deadline = self.clock() + hold
        while self.moment is None and not self.closing and self.clock() < deadline:
            self._published.wait(deadline - self.clock())
        self.check_open()
        if self.moment is None:
            raise Unavailable("discovery has not read the API server's objects yet", hint="try again")
        return self.moment

    def pod(self, key: Key, fits: Callable[[Pod], bool], hold: float) -> Pod | None:
        """The pod `key` as soon as it `fits`; None after `hold` seconds. The API server's news may be on their way."""
        deadline = self.clock() + hold
        while True:
            found = self.current(max(0.0, deadline - self.clock())).snapshot.pods.get(key)
            if found is not None and fits(found):
                return found
            if self.clock() >= deadline:
                return None
            self._published.wait(deadline - self.clock())

    def check_open(self) -> None:
        """Unavailable once this process is shutting down."""
        if self.closing:
            raise Unavailable("this discovery is shutting down", hint="ask again: another one answers")

    def close(self) -> None:
        """Answer everything that is held, now."""
        self.closing = True
        for member in list(self.members):
            self.remove(member, Unavailable("this discovery is shutting down", hint="ask again: another one answers"))
        self._published.notify()
        self._progress.notify()

    # ---- what is applied

    def progressed(self) -> None:
        """Some member may have applied something. Looked at soon: many members tell it at the same time."""
        if self._history and self._history[-1].applied is None:
            self._may_be_applied.set()

    def _note_applied(self) -> None:
        """Note the time for generations that all have now."""
        waiting = list(takewhile(lambda moment: moment.applied is None, reversed(self._history)))
        if not waiting or self._lacks(self._last, waiting[-1].generation):
            return  # whoever was behind the last time still is: nobody else need be asked
        applied = self.moment.generation if self.moment else 0
        for member in self.members:
            if member.connected and member.generation < applied:
                self._last, applied = member, member.generation
        reached = [moment for moment in waiting if moment.generation <= applied]
        for moment in reached:
            moment.applied = self.clock()
        if reached:
            self._progress.notify()

    def _lacks(self, member: Member | None, generation: int) -> bool:
        return member is not None and member in self.members and member.connected and member.generation < generation

    def applied_by_all(self, observed: int, kind: str, hold: float) -> Moment | None:
        """The first moment that includes `observed`, once it is applied by all; None after `hold` seconds."""
        deadline = self.clock() + hold
        while True:
            moment = next(self._including(observed, kind), None)
            if moment is not None and moment.applied is not None:
                return moment
            if self.closing or self.clock() >= deadline:
                return None
            (self._progress if moment else self._published).wait(deadline - self.clock())

    def _including(self, observed: int, kind: str) -> Iterator[Moment]:
        return (moment for moment in self._history if moment.includes(observed, kind))

    # ---- greenlets

    def _run(self) -> None:
        while True:
            self._work.wait()
            self._work.clear()
            while self._behind:
                member = next(iter(self._behind))
                self._dequeued(self.clock() - self._behind.pop(member))
                assert self.moment is not None
                try:
                    member.refresh(self.moment)
                except Exception:  # one member's fault is not the others'
                    log.exception("proxy not brought up to date", pod=str(member.key))
                gevent.sleep(0)
            self.progressed()

    def _follow(self) -> None:
        while True:
            self._may_be_applied.wait()
            self._may_be_applied.clear()
            self._note_applied()
            gevent.sleep(PROGRESS_SECONDS_EACH * len(self.members))

    def _clean(self) -> None:
        while True:
            gevent.sleep(JANITOR_SECONDS)
            now = self.clock()
            for member in list(self.members):
                if member.expired(now):
                    self.remove(member, Gone("this session was not heard of for too long"))
            self.progressed()
