"""Room for answers: who waits, and that nobody waits for ever."""

from __future__ import annotations

import time

import gevent

from discovery.gate import Gate


def test_an_answer_waits_until_another_has_gone() -> None:
    gate = Gate(100, 60.0, time.monotonic)
    leave = gate.enter(60)
    small = gevent.spawn(gate.enter, 40)
    large = gevent.spawn(gate.enter, 41)
    gevent.sleep(0.02)
    assert small.ready()
    assert not large.ready()
    leave()
    large.get(timeout=60)
    assert gate.under_way == 81


def test_the_largest_goes_when_it_is_alone() -> None:
    gate = Gate(100, 60.0, time.monotonic)
    gate.enter(5000)()
    assert gate.under_way == 0


def test_who_never_reads_holds_up_nobody_for_ever() -> None:
    gate = Gate(100, 0.02, time.monotonic)
    gate.enter(100)
    gevent.spawn(gate.enter, 100).get(timeout=60)
