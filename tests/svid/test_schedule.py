"""When to renew, with clocks that do what they like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svid.schedule import (
    CLOCK_TOLERANCE,
    LONGEST_RETRY,
    LONGEST_TICK,
    Action,
    Attempts,
    Life,
    after_failure,
    after_success,
    decide,
    life,
    pause,
)

NOW = 1_800_000_000.0
DAY = 86400.0
unit = st.floats(0, 1, exclude_max=True)
LIFE = life(NOW - 60, NOW + DAY, NOW, 0.5)


@given(unit, st.floats(120, 30 * DAY))
def test_renewal_is_between_half_and_six_tenths(random: float, lasts: float) -> None:
    got = life(NOW - 60, NOW + lasts, NOW, random)
    assert NOW + 0.5 * lasts - 1e-3 <= got.renew_at <= NOW + 0.6 * lasts + 1e-3


def test_received_by_a_clock_outside_the_validity() -> None:
    assert NOW < life(NOW, NOW + DAY, NOW - 10 * DAY, 0.0).renew_at < NOW + DAY
    assert NOW < life(NOW, NOW + DAY, NOW + 10 * DAY, 0.0).renew_at < NOW + DAY


@pytest.mark.parametrize(
    ("current", "wall", "expected"),
    [
        (None, NOW, Action.RECOVER),
        (LIFE, NOW, Action.WAIT),
        (LIFE, LIFE.renew_at - 1, Action.WAIT),
        (LIFE, LIFE.renew_at, Action.RENEW),
        (LIFE, NOW + DAY - 1, Action.RENEW),
        (LIFE, NOW + DAY, Action.RECOVER),
        (LIFE, NOW + 1000 * DAY, Action.RECOVER),  # the clock jumped ahead, or the machine slept
        (LIFE, NOW - 60 - CLOCK_TOLERANCE, Action.WAIT),  # a little behind the ca
        (LIFE, NOW - DAY, Action.RECOVER),  # the clock jumped back
    ],
)
def test_decisions(current: Life | None, wall: float, expected: Action) -> None:
    assert decide(current, Attempts(), wall, 0.0) is expected


@given(st.floats(-1e9, 4e9), st.floats(0, 1e9), unit)
def test_no_clock_can_make_a_storm(wall: float, monotonic: float, random: float) -> None:
    """After any attempt that did not help, the next is at least half a second away, whatever the wall clock says."""
    for attempts in (
        after_failure(Attempts(), monotonic, random),
        after_success(LIFE, LIFE.renew_at, monotonic, random),
    ):
        assert decide(None, attempts, wall, monotonic + 0.4) is Action.WAIT
        assert decide(None, attempts, wall, monotonic + LONGEST_RETRY + 1) is Action.RECOVER


@given(st.floats(-1e9, 4e9), st.floats(0, 1e6), st.integers(0, 100), unit)
def test_never_sleeps_past_what_a_clock_may_do(wall: float, monotonic: float, failures: int, random: float) -> None:
    attempts = after_failure(Attempts(failures), monotonic, random)
    for current in (None, LIFE):
        for tried in (Attempts(), attempts):
            assert 0 <= pause(current, tried, wall, monotonic) <= LONGEST_TICK


@given(unit)
def test_backoff_grows_to_a_minute(random: float) -> None:
    attempts, waits = Attempts(), []
    for _ in range(40):
        attempts = after_failure(attempts, 100.0, random)
        waits.append(attempts.not_before - 100.0)
    assert 0.5 <= waits[0] <= 1.0
    assert waits == sorted(waits)
    assert LONGEST_RETRY / 2 <= waits[-1] <= LONGEST_RETRY


def test_success_forgets_failures() -> None:
    assert after_success(LIFE, NOW, 5.0, 0.5) == Attempts()


@given(st.lists(st.tuples(st.floats(-2 * DAY, 2 * DAY), st.floats(0.1, LONGEST_TICK)), max_size=60), unit)
def test_a_jumping_clock_never_leaves_an_unusable_certificate_untried(
    jumps: list[tuple[float, float]], random: float
) -> None:
    """A simulation: every tick the clock may jump. What has become unusable is acted upon at that tick."""
    wall, monotonic, attempts = NOW, 0.0, Attempts()
    current: Life | None = None
    for jump, passed in jumps:
        wall, monotonic = wall + jump + passed, monotonic + passed
        action = decide(current, attempts, wall, monotonic)
        if action is Action.WAIT:
            assert monotonic < attempts.not_before or (current is not None and wall < current.renew_at)
            continue
        current = life(wall - 60, wall + DAY, wall, random)
        attempts = after_success(current, wall, monotonic, random)
        assert decide(current, attempts, wall, monotonic) is Action.WAIT
