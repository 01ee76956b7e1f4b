"""When to ask for the next certificate: pure decisions from two clocks and a random number.

Validity is judged by the wall clock, because that is what peers judge it by. Waiting after a failure is judged by the
monotonic clock, so that a wall clock that jumps can neither stop the attempts nor make a storm of them. Nothing here
sleeps: the caller asks again at least every `LONGEST_TICK` seconds, so a clock that jumps is seen within that time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

RENEW_FROM = 0.50  # of the certificate's life
RENEW_UNTIL = 0.60
FIRST_RETRY = 1.0  # seconds
LONGEST_RETRY = 60.0
LONGEST_TICK = 10.0
AGAIN = 10.0  # until the next attempt, when a renewal that was ordered brought a leaf of the same root
LONGEST_TOLD = 300.0  # a ca that says more is not believed: the certificate may end before
AT_ONCE = 2.0  # over so many seconds renewals are spread that nothing else spreads: many may have been away together
BELIEVE_AGAIN = 60.0  # a peer's refusal may be the peer's own fault, which another certificate does not mend
CLOCK_TOLERANCE = 60.0  # a certificate that starts this much in the future is still taken as usable


class Action(Enum):
    """What to do now."""

    WAIT = "wait"
    RENEW = "renew"  # the certificate is valid: it can prove who we are
    RECOVER = "recover"  # there is no valid certificate: only a token can


@dataclass(frozen=True, slots=True)
class Attempts:
    """What has been tried: failures in a row, and the monotonic time before which nothing is tried again.

    `told`: the earliest time by what the ca itself said.
    """

    failures: int = 0
    not_before: float = 0.0
    told: float = 0.0


@dataclass(frozen=True, slots=True)
class Life:
    """The validity of the certificate in hand (Unix seconds), and when it is due for renewal."""

    not_before: float
    not_after: float
    renew_at: float


def life(not_before: float, not_after: float, received: float, random: float) -> Life:
    """The life of a certificate received at `received`; `random` in [0, 1) spreads the renewals of many workloads.

    The ca backdates certificates and caps them at its own end, so the half is counted from the moment of receipt when
    that lies inside the validity.
    """
    start = received if not_before <= received < not_after else not_before
    share = RENEW_FROM + (RENEW_UNTIL - RENEW_FROM) * random
    return Life(not_before, not_after, start + share * (not_after - start))


def earlier(current: Life, begin: float, until: float, wall: float, random: float) -> Life:
    """The same certificate, to be renewed at a moment from `begin` (or now, if that is later) to `until`."""
    first = max(begin, wall)
    return replace(current, renew_at=min(current.renew_at, first + random * max(0.0, until - first)))


def usable(current: Life, wall: float) -> bool:
    """Whether peers whose clocks agree with ours accept this certificate now."""
    return current.not_before - CLOCK_TOLERANCE <= wall < current.not_after


def decide(current: Life | None, attempts: Attempts, wall: float, monotonic: float) -> Action:
    """What to do at this tick."""
    if monotonic < attempts.not_before:
        return Action.WAIT
    if current is None or not usable(current, wall):
        return Action.RECOVER
    return Action.RENEW if wall >= current.renew_at else Action.WAIT


def pause(current: Life | None, attempts: Attempts, wall: float, monotonic: float) -> float:
    """Seconds until it is worth asking again: never more than `LONGEST_TICK`, never negative."""
    if monotonic < attempts.not_before:
        return min(LONGEST_TICK, attempts.not_before - monotonic)
    if current is None or not usable(current, wall):
        return 0.0
    return min(LONGEST_TICK, max(0.0, current.renew_at - wall))


def after_success(received: Life, wall: float, monotonic: float, random: float) -> Attempts:
    """A certificate that is already unusable by our clock counts as a failure, or we would ask without end."""
    if usable(received, wall) and wall < received.renew_at:
        return Attempts()
    return after_failure(Attempts(), monotonic, random)


def after_failure(attempts: Attempts, monotonic: float, random: float, told: float = 0.0) -> Attempts:
    """Exponential backoff with jitter: the n-th wait is uniform in the upper half of min(60, 2^n) seconds.

    `told`: the ca's own Retry-After. Nobody comes earlier, nor all at once: up to half of it and a second later.
    """
    ceiling = min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(attempts.failures, 16))
    wait, asked = ceiling * (0.5 + 0.5 * random), 0.0
    if told:
        told = min(told, LONGEST_TOLD)
        asked = told + (told / 2 + 1) * random
    return Attempts(attempts.failures + 1, monotonic + max(wait, asked), monotonic + asked)


def hurried(attempts: Attempts, monotonic: float, random: float) -> Attempts:
    """The next attempt may well fare better than those before: it is made at once, unless the ca said when to come."""
    return Attempts(not_before=max(attempts.told, monotonic + AT_ONCE * random))


def may_believe(refused_at: float, monotonic: float) -> bool:
    """Whether a peer's refusal of the certificate is acted upon: the last one that was is `BELIEVE_AGAIN` old."""
    return monotonic - refused_at >= BELIEVE_AGAIN
