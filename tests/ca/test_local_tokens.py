"""Who is asked about a token, when it is judged here: the API server in every doubt, and never about what is forged."""

from __future__ import annotations

from typing import Any

import pytest

from ca.local_tokens import AccountWatch, LocalVerifier
from ca.pods import STALE
from kube.source import Changed, Listed, Progress
from kube.tokens import ServiceAccountToken
from mesh.errors import Unauthenticated, Unavailable

BOUND = ServiceAccountToken("default", "reviews", "uid-1", "reviews-1", "pod-1", "node-1", "jti")


class Says:
    """A verifier that always says the same, and counts."""

    def __init__(self, answer: ServiceAccountToken | Exception) -> None:
        self.answer, self.asked = answer, 0

    def verify(self, _token: str, _now: float) -> ServiceAccountToken:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def at_once(self, token: str, now: float) -> ServiceAccountToken | None:
        return self.verify(token, now)


def account(name: str = "reviews", uid: str = "uid-1", **meta: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "default", "name": name, "uid": uid, **meta}}


def watch(*accounts: dict[str, Any]) -> tuple[AccountWatch, list[float]]:
    clock = [0.0]
    made = AccountWatch(lambda: clock[0])
    made.take(Listed("ServiceAccount", accounts, 1))
    return made, clock


def judged(found: ServiceAccountToken, accounts: AccountWatch) -> int:
    """How often the API server was asked."""
    review = Says(found)
    verifier = LocalVerifier(Says(found), accounts, review)
    at_once = verifier.at_once("token", 0.0)
    assert review.asked == 0
    assert verifier.verify("token", 0.0) == found
    assert at_once == (None if review.asked else found)
    return review.asked


def test_what_is_certain_is_asked_of_nobody() -> None:
    assert judged(BOUND, watch(account())[0]) == 0


@pytest.mark.parametrize(
    "found",
    [
        ServiceAccountToken("default", "reviews", "uid-1"),
        ServiceAccountToken("default", "reviews", "uid-1", "reviews-1"),
        ServiceAccountToken("default", "reviews", "uid-1", node="node-1"),
        ServiceAccountToken("default", "reviews", "uid-1", "reviews-1", "pod-1", secret="s"),
        ServiceAccountToken("default", "reviews", "uid-2", "reviews-1", "pod-1"),
        ServiceAccountToken("default", "reviews", "", "reviews-1", "pod-1"),
        ServiceAccountToken("default", "ratings", "uid-1", "reviews-1", "pod-1"),
        ServiceAccountToken("other", "reviews", "uid-1", "reviews-1", "pod-1"),
    ],
    ids=["no-pod", "no-uid-of-the-pod", "node", "secret", "other-uid", "no-uid", "other-account", "other-namespace"],
)
def test_in_doubt_the_api_server_is_asked(found: ServiceAccountToken) -> None:
    assert judged(found, watch(account())[0]) == 1


def test_the_watch_follows() -> None:
    accounts, clock = watch()
    assert judged(BOUND, accounts) == 1
    accounts.take(Changed("ServiceAccount", account(), False, 2))
    assert judged(BOUND, accounts) == 0
    accounts.take(Changed("ServiceAccount", account(deletionTimestamp="now"), False, 3))
    assert judged(BOUND, accounts) == 1
    accounts.take(Changed("ServiceAccount", account(uid="uid-2"), False, 4))
    assert judged(BOUND, accounts) == 1
    accounts.take(Listed("ServiceAccount", (account(),), 5))
    assert judged(BOUND, accounts) == 0
    accounts.take(Changed("ServiceAccount", account(), True, 6))
    assert judged(BOUND, accounts) == 1
    accounts.take(Changed("ServiceAccount", account(), False, 7))
    clock[0] = STALE
    assert judged(BOUND, accounts) == 1
    accounts.take(Progress("ServiceAccount", 8))
    assert judged(BOUND, accounts) == 0


def test_without_a_watch_everything_is_asked() -> None:
    assert judged(BOUND, AccountWatch(lambda: 0.0)) == 1


def test_what_the_keys_refuse_is_asked_of_nobody() -> None:
    review = Says(BOUND)
    verifier = LocalVerifier(Says(Unauthenticated("forged")), watch(account())[0], review)
    for judge in (verifier.verify, verifier.at_once):
        with pytest.raises(Unauthenticated):
            judge("token", 0.0)
    assert review.asked == 0


def test_doubt_and_no_api_server_is_no_permission() -> None:
    down = Says(Unavailable("down"))
    with pytest.raises(Unavailable):
        LocalVerifier(Says(BOUND), watch()[0], down).verify("token", 0.0)
