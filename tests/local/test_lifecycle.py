"""The order of a pod's containers, decided without a container: examples, and what holds in every random life."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.lifecycle import (
    LONGEST_DELAY,
    Container,
    Decision,
    Declared,
    Exit,
    Shape,
    after_exit,
    after_start,
    decide,
    delay,
    shape_of,
)
from local.status import PodFacts, pod_status, with_transitions

RUNNING = Container(step="running", started=True, ready=True)


def ended(code: int, **more: Any) -> Container:
    return Container(step="exited", exit=Exit(code, 0, 0.0, 1.0, "x"), failures=1, **more)


def pod(*containers: str, init: tuple[tuple[str, bool], ...] = (), policy: str = "Always", **more: Any) -> Shape:
    inits = [{"name": name} | ({"restartPolicy": "Always"} if sidecar else {}) for name, sidecar in init]
    return shape_of(
        {
            "spec": {"containers": [{"name": c} for c in containers], "initContainers": inits, "restartPolicy": policy}
            | more
        }
    )


def states(shape: Shape, **known: Container) -> dict[str, Container]:
    return {one.name: known.get(one.name, Container()) for one in shape.containers}


def now(shape: Shape, *, stopping: bool = False, at: float = 100.0, **known: Container) -> Decision:
    return decide(shape, states(shape, **known), at, 0.0, stopping)


SIDE = pod("main", init=(("first", False), ("side", True), ("second", False)), policy="Never")


def test_init_containers_and_sidecars_start_one_after_the_other() -> None:
    assert now(SIDE).start == ("first",)
    assert now(SIDE, first=RUNNING).start == ()
    done = {"first": ended(0)}
    assert now(SIDE, **done).start == ("side",)
    assert now(SIDE, **done, side=replace(RUNNING, started=False)).start == ()
    assert now(SIDE, **done, side=RUNNING).start == ("second",)
    decision = now(SIDE, **done, side=RUNNING, second=ended(0))
    assert (decision.start, decision.initialized, decision.phase) == (("main",), True, "Pending")


def test_a_failed_init_container_ends_the_pod_or_is_tried_again() -> None:
    assert now(SIDE, first=ended(1)).phase == "Failed"
    again = pod("main", init=(("first", False),))
    assert now(again, first=ended(1)).start == ("first",)
    later = now(again, first=ended(1, retry_at=130.0))
    assert (later.start, later.wake_at) == ((), 130.0)


def test_a_sidecar_that_ends_is_restarted_and_does_not_hold_back_the_rest() -> None:
    decision = now(SIDE, first=ended(0), side=ended(1), second=ended(0), main=RUNNING)
    assert (decision.start, decision.phase) == (("side",), "Running")


def test_when_the_main_containers_are_done_sidecars_stop_in_reverse() -> None:
    shape = pod("main", init=(("one", True), ("two", True)), policy="OnFailure")
    done = {"main": ended(0)}
    assert now(shape, **done, one=RUNNING, two=RUNNING).stop == ("two",)
    assert now(shape, **done, one=RUNNING, two=replace(RUNNING, step="stopping")).stop == ()
    assert now(shape, **done, one=RUNNING, two=ended(0)).stop == ("one",)
    assert now(shape, **done, one=ended(0), two=ended(143)).phase == "Succeeded"


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [("Always", 0, True), ("Always", 1, True), ("OnFailure", 0, False), ("OnFailure", 1, True), ("Never", 1, False)],
)
def test_restart_policies(policy: str, code: int, again: bool) -> None:
    decision = now(pod("main", "other", policy=policy), main=ended(code), other=RUNNING)
    assert (decision.start == ("main",)) == again
    assert decision.phase == "Running"


def test_stopping_stops_the_rest_first_and_then_sidecars() -> None:
    known = {"first": ended(0), "side": RUNNING, "second": ended(0), "main": RUNNING}
    assert now(SIDE, stopping=True, **known).stop == ("main",)
    assert now(SIDE, stopping=True, **known | {"main": ended(0)}).stop == ("side",)
    assert now(SIDE, stopping=True, first=RUNNING).stop == ("first",)


def test_a_deadline_is_woken_up_for_and_ends_the_pod() -> None:
    shape = pod("main", policy="Never", activeDeadlineSeconds=50)
    assert now(shape, at=10.0, main=RUNNING).wake_at == 50.0
    late = now(shape, at=50.0, main=RUNNING)
    assert (late.stop, late.reason) == (("main",), "DeadlineExceeded")
    assert now(shape, at=51.0, main=ended(143)).phase == "Failed"


def test_delays_double_up_to_a_bound_and_are_forgotten_after_a_steady_run() -> None:
    assert [delay(n) for n in range(1, 8)] == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_DELAY]
    state = replace(RUNNING, since=0.0, failures=6)
    over = Exit(1, 0, 0.0, 0.0, "Error")
    assert after_exit(state, over, now=5.0).retry_at == 5.0 + LONGEST_DELAY
    assert after_exit(state, over, now=500.0).retry_at == 500.0
    never_ran = replace(state, step="waiting")
    assert after_exit(never_ran, over, now=500.0).retry_at == 500.0 + LONGEST_DELAY


lives = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0, 1, 143])), max_size=40)


@given(
    init=st.lists(st.booleans(), max_size=3),
    mains=st.integers(1, 2),
    policy=st.sampled_from(["Always", "OnFailure", "Never"]),
    life=lives,
    stop_after=st.integers(0, 40),
)
def test_in_every_life_order_holds_and_the_pod_comes_to_rest(
    init: list[bool], mains: int, policy: str, life: list[tuple[int, int]], stop_after: int
) -> None:
    inits = tuple((f"i{n}", sidecar) for n, sidecar in enumerate(init))
    shape = pod(*(f"m{n}" for n in range(mains)), init=inits, policy=policy)
    known = states(shape)
    clock = 0.0
    for turn, (which, code) in enumerate(life + [(0, 0)] * 60):
        stopping = turn >= stop_after
        decision = decide(shape, known, clock, 0.0, stopping)
        assert not (set(decision.start) & set(decision.stop))
        if stopping:
            assert not decision.start
        for name in decision.start:
            assert known[name].step in ("waiting", "exited")
            _check_order(shape, known, name)
            known[name] = after_start(known[name], clock, clock, starts_slowly=False, has_readiness_probe=False)
        for name in decision.stop:
            known[name] = after_exit(known[name], Exit(143, 15, 0, 0, "Error"), clock)
        alive = [name for name, state in known.items() if state.step == "running"]
        if alive and not stopping:
            name = alive[which % len(alive)]
            known[name] = after_exit(known[name], Exit(code, 0, 0, 0, "Error"), clock)
        clock = decision.wake_at or clock + 1.0
    assert all(state.step != "running" for state in known.values())
    assert decide(shape, known, clock, 0.0, True).stop == ()


def _check_order(shape: Shape, known: dict[str, Container], name: str) -> None:
    """Everything before a container that is not a sidecar's restart is done, or up."""
    position = [one.name for one in shape.containers].index(name)
    if known[name].exit is not None:
        return
    for before in shape.containers[:position]:
        state = known[before.name]
        if before.kind == "init":
            assert state.exit is not None
            assert state.exit.code == 0


def status(shape: Shape, **known: Container) -> dict[str, Any]:
    spec = {"containers": [{"name": "main", "image": "i"}], "initContainers": [{"name": "init", "image": "i"}]}
    facts = PodFacts("10.244.0.1", "10.244.1.2", 0.0)
    every = states(shape, **known)
    return pod_status({"spec": spec}, shape, every, decide(shape, every, 100.0, 0.0, False), facts, 100.0)


def conditions(of: dict[str, Any]) -> dict[str, str]:
    return {item["type"]: item["status"] for item in of["conditions"]}


def test_the_status_says_what_kubernetes_would() -> None:
    shape = Shape((Declared("init", "init"), Declared("main", "main")), "Always")
    before = status(shape, init=RUNNING)
    assert before["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert conditions(before) == {
        "PodScheduled": "True", "Initialized": "False", "ContainersReady": "False", "Ready": "False",
    }  # fmt: skip
    ready = status(shape, init=ended(0), main=RUNNING)
    assert conditions(ready)["Ready"] == "True"
    assert ready["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    crashed = status(shape, init=ended(0), main=ended(7, retry_at=120.0, restarts=2))
    waiting = crashed["containerStatuses"][0]
    assert waiting["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert "20s" in waiting["state"]["waiting"]["message"]
    assert (waiting["lastState"]["terminated"]["exitCode"], waiting["restartCount"]) == (7, 2)


def test_a_condition_keeps_its_time_until_it_changes() -> None:
    shape = Shape((Declared("init", "init"), Declared("main", "main")), "Always")
    first = with_transitions(status(shape, init=ended(0)), None, 1000.0)
    second = with_transitions(status(shape, init=ended(0), main=RUNNING), first, 2000.0)
    times = {item["type"]: item["lastTransitionTime"] for item in second["conditions"]}
    assert times["PodScheduled"] == "1970-01-01T00:16:40Z"
    assert times["Ready"] == "1970-01-01T00:33:20Z"
