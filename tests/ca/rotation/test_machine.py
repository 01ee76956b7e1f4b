"""A mesh in which anything may be late, lost or dead: no handshake fails at any moment of a rotation, whatever happens.

Agents, discovery and the ca's replicas are models; what is stored, decided and ordered is the real code.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.rotation.books import Held, holders, with_holders
from ca.rotation.decide import Member, advanced
from ca.rotation.state import Phase, Rotation, finished, paused, rolled_back, started
from mesh.errors import Conflict

WINDOW = 10.0


@dataclass(eq=False)
class Replica:
    """Of the ca: `view` is the state that it last heard of."""

    name: str
    view: Rotation


@dataclass(frozen=True)
class Answer:
    """A certificate on its way."""

    leaf: str
    sequence: int
    trusted: frozenset[str]


@dataclass(eq=False)
class Pod:
    """`coming`: an answer of the ca's that has been signed and has not arrived."""

    name: str
    leaf: str = ""
    sequence: int = 0
    trusted: frozenset[str] = frozenset()
    order: int = 0
    ordered: str = ""
    coming: Answer | None = None
    reported: Member | None = None

    def take(self, answer: Answer) -> None:
        self.leaf = answer.leaf
        if answer.sequence > self.sequence:
            self.sequence, self.trusted = answer.sequence, answer.trusted

    def report(self) -> Member:
        """As the agent says it: what its leaf will be is not known while a renewal is under way."""
        return Member(self.name, self.sequence, self.order, "" if self.coming else self.leaf)


@dataclass
class World:
    stored: Rotation = field(default_factory=lambda: Rotation(stays="root-1"))
    now: float = 0.0
    roots: int = 1
    numbers: int = 0
    entered: set[tuple[Phase, bool]] = field(default_factory=set)
    replicas: list[Replica] = field(default_factory=list)
    pods: list[Pod] = field(default_factory=list)
    volumes: dict[str, str] = field(default_factory=dict)
    """Pods that have a certificate in a volume, and say nothing: its root, by name."""
    maps: Rotation = field(default_factory=lambda: Rotation(stays="root-1"))
    """What the ConfigMaps have, by which those who start know the ca."""
    discovery: Rotation = field(default_factory=lambda: Rotation(stays="root-1"))

    def members(self) -> tuple[Member, ...]:
        """What the replica that leads sees: replicas as they are now, pods as they last said."""
        found = [
            Member(each.name, each.view.sequence, ca=True, signs=each.view.signs, order=10**6, leaf=each.view.stays)
            for each in self.replicas
        ]
        said = (*found, Member("map", self.maps.sequence, carrier=True))
        spoken = (*said, *(pod.reported or Member(pod.name) for pod in self.pods))
        if self.stored.phase is not Phase.DRAIN:
            return spoken
        held = [
            Held("n", name, "u", root, "pod", 0) for name, root in self.volumes.items() if root == self.stored.leaves
        ]
        return with_holders(spoken, holders(held, self.stored, self.stored.leaves))

    def signed(self, replica: Replica) -> Answer:
        return Answer(replica.view.signs, replica.view.sequence, frozenset(replica.view.trusted))


class Mesh:
    """`random` decides what happens next."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.world = world = World()
        world.replicas += [Replica(f"ca-{number}", world.stored) for number in range(2)]
        world.pods += [Pod(f"pod-{number}", "root-1", 1, frozenset({"root-1"})) for number in range(3)]
        self.slow: Pod | Replica | None = random.choice([*world.pods, *world.replicas, None])
        self.look: tuple[Rotation, tuple[Member, ...]] = world.stored, ()

    def step(self) -> None:
        """One event; most of them are what usually happens."""
        usual = (self.a_certificate_is_signed, self.a_certificate_arrives, self.discovery_tells, self.a_report_arrives)
        happens = [
            *(usual * 3),
            *(self.a_replica_hears_of_the_store, self.discovery_asks, self.a_leader_steps, self.a_map_is_written) * 2,
            *(self.a_leader_looks, self.a_leader_acts_later, self.time_passes),
            *(self.all_but_one_do_their_part,) * 6,
        ]
        rare = [
            self.a_pod_comes,
            self.a_pod_goes,
            self.a_volume_comes,
            self.a_volume_goes,
            self.a_replica_comes,
            self.a_replica_dies,
            self.an_operator_asks,
        ]
        event = self.random.choice(rare if self.random.random() < 0.06 else happens)
        event()
        self.check()

    # ---- pods

    def pod(self) -> Pod:
        return self.random.choice(self.world.pods)

    def replica(self) -> Replica:
        return self.random.choice(self.world.replicas)

    def a_pod_comes(self) -> None:
        self.world.numbers += 1
        if len(self.world.pods) < 5:
            self.world.pods.append(Pod(f"new-{self.world.numbers}", coming=self.world.signed(self.replica())))

    def a_pod_goes(self) -> None:
        if len(self.world.pods) > 1:
            self.world.pods.remove(self.pod())

    def a_volume_comes(self) -> None:
        self.world.numbers += 1
        if len(self.world.volumes) < 2:
            self.world.volumes[f"volume-{self.world.numbers}"] = self.replica().view.signs

    def a_volume_goes(self) -> None:
        """Its pod ends, or the certificate does."""
        if self.world.volumes:
            del self.world.volumes[self.random.choice(sorted(self.world.volumes))]

    def a_certificate_is_signed(self) -> None:
        """Because it was ordered, or at its time."""
        pod = self.pod()
        if pod.coming is None and (pod.leaf in ("", pod.ordered) or self.random.random() < 0.05):
            pod.coming = self.world.signed(self.replica())

    def a_certificate_arrives(self) -> None:
        pod = self.pod()
        if pod.coming is not None:
            pod.take(pod.coming)
            pod.coming = None

    def discovery_tells(self, pod: Pod | None = None) -> None:
        pod, told = pod or self.pod(), self.world.discovery
        if not pod.leaf:
            return
        if told.sequence > pod.sequence:
            pod.sequence, pod.trusted = told.sequence, frozenset(told.trusted)
        if told.order.number > pod.order:
            pod.order, pod.ordered = told.order.number, told.order.root

    def a_report_arrives(self) -> None:
        pod = self.pod()
        if pod.leaf:
            pod.reported = pod.report()

    # ---- the control plane

    def a_replica_comes(self) -> None:
        self.world.numbers += 1
        if len(self.world.replicas) < 3:
            self.world.replicas.append(Replica(f"ca-{self.world.numbers}", self.world.stored))

    def a_replica_dies(self) -> None:
        if len(self.world.replicas) > 1:
            self.world.replicas.remove(self.replica())

    def a_replica_hears_of_the_store(self) -> None:
        self.replica().view = self.world.stored

    def discovery_asks(self) -> None:
        known, told = self.world.discovery, self.replica().view
        if (told.sequence, told.order.number) >= (known.sequence, known.order.number):
            self.world.discovery = told

    def a_map_is_written(self) -> None:
        told = self.replica().view
        if told.sequence > self.world.maps.sequence:
            self.world.maps = told

    def a_leader_looks(self) -> None:
        self.look = self.world.stored, self.world.members()

    def a_leader_acts_later(self) -> None:
        seen, members = self.look
        if seen is self.world.stored:  # compare-and-swap
            self.enter(advanced(seen, members, self.world.now))

    def a_leader_steps(self) -> None:
        self.enter(advanced(self.world.stored, self.world.members(), self.world.now))

    def enter(self, state: Rotation) -> None:
        if state.phase is not self.world.stored.phase:
            self.world.entered.add((state.phase, state.back))
        self.world.stored = state

    def time_passes(self) -> None:
        self.world.now += self.random.choice((1.0, WINDOW))

    # ---- the operator

    def an_operator_asks(self) -> None:
        world = self.world
        wish = self.random.choice(["start", "start", "start", "pause", "resume", "resume", "rollback", "finish"])
        with suppress(Conflict):
            match wish:
                case "start":
                    self.enter(started(world.stored, f"root-{world.roots + 1}", WINDOW, world.now))
                    world.roots += 1
                case "pause" | "resume":
                    self.enter(paused(world.stored, paused=wish == "pause"))
                case "rollback":
                    self.enter(rolled_back(world.stored, world.now))
                case "finish":
                    self.enter(finished(world.stored, 1.0, world.now))

    def all_but_one_do_their_part(self) -> None:
        """The usual case: one pod or one replica is slow, or the ConfigMaps are."""
        world = self.world
        world.now += WINDOW
        if self.random.random() < 0.3:
            self.a_volume_goes()
        prompt = [replica for replica in world.replicas if replica is not self.slow]
        for replica in prompt:
            replica.view = world.discovery = world.stored
        if self.slow:
            world.maps = world.stored
        for pod in world.pods:
            if prompt and pod is not self.slow:
                self.does_its_part(pod, self.random.choice(prompt))
        self.a_leader_steps()

    def does_its_part(self, pod: Pod, replica: Replica) -> None:
        if pod.coming is not None or not pod.leaf:
            pod.take(pod.coming or self.world.signed(replica))
            pod.coming = None
        self.discovery_tells(pod)
        if pod.ordered == pod.leaf:
            pod.take(self.world.signed(replica))
        pod.reported = pod.report()

    # ---- what must hold

    def check(self) -> None:
        """Everyone trusts everyone, and the ca hands out nothing else."""
        used = [pod for pod in self.world.pods if pod.leaf]
        for pod in used:
            for peer in used:
                assert pod.leaf in peer.trusted, (pod, peer, self.world.stored)
            assert set(self.world.volumes.values()) <= pod.trusted, (self.world.volumes, pod, self.world.stored)
        for replica in self.world.replicas:
            assert replica.view.signs in replica.view.trusted
            assert replica.view.signs in self.world.maps.trusted, "who starts now would not know the ca"

    def everybody_answers(self) -> None:
        """Until it comes to its end."""
        world = self.world
        if world.stored.running:
            world.stored = paused(world.stored, paused=False)
        for _ in range(20):
            world.now += WINDOW
            for replica in world.replicas:
                replica.view = world.stored
            world.discovery = world.maps = world.stored
            self.a_volume_goes()
            for pod in world.pods:
                self.does_its_part(pod, world.replicas[0])
            self.a_leader_steps()
            self.check()
        assert world.stored.phase is Phase.IDLE, world.stored


def lived(random: Random, steps: int = 400) -> World:
    mesh = Mesh(random)
    for _ in range(steps):
        mesh.step()
    mesh.everybody_answers()
    return mesh.world


def many(seeds: range) -> None:
    for seed in seeds:
        lived(Random(seed))


@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_whatever_happens_everyone_trusts_everyone_and_it_ends(seed: int) -> None:
    lived(Random(seed))


def test_the_model_goes_everywhere() -> None:
    """Or it would prove nothing."""
    entered = {step for seed in range(100) for step in lived(Random(seed)).entered}
    assert entered >= {(phase, back) for phase in set(Phase) - {Phase.IDLE} for back in (False, True)}


@pytest.mark.parametrize(
    ("forgets", "first"), [("order", 100), ("sequence", 0), ("ca", 0), ("coming", 880), ("map", 0), ("books", 0)]
)
def test_the_model_finds_what_would_break(forgets: str, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the six things that a phase waits for is needed; `first`: where the search for it begins."""
    real, seen = advanced, World.members

    def careless(state: Rotation, members: tuple[Member, ...], now: float) -> Rotation:
        sure = {"order": {"order": 10**6}, "sequence": {"sequence": 10**6}, "ca": {"ca": False}}.get(forgets, {})
        return real(state, tuple(replace(each, **sure) for each in members), now)  # type: ignore[arg-type]

    monkeypatch.setitem(globals(), "advanced", careless)
    if forgets == "map":
        monkeypatch.setattr(World, "members", lambda self: tuple(one for one in seen(self) if not one.carrier))
    if forgets == "books":
        monkeypatch.setitem(globals(), "with_holders", lambda said, _found: said)
    if forgets == "coming":
        monkeypatch.setattr(Pod, "report", lambda self: Member(self.name, self.sequence, self.order, self.leaf))
    with pytest.raises(AssertionError):
        many(range(first, first + 2000))
