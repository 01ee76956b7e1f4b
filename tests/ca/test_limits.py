"""How often who may ask: the numbers, and a real ca with callers that ask too much."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from ca.limits import Limiter, Limits
from ca.settings import Rate
from mesh.errors import Busy
from svid import schedule
from svid.client import Refused, Token, fetch
from svid.request import new_key_request
from tests.ca.harness import ApiServer, CaProcess, TokenMint
from tests.ca.herd import herd, run

UNLIMITED = Rate(0.0, 0)


# ---- the numbers


def test_a_burst_and_then_a_rate() -> None:
    limiter = Limiter(Rate(2.0, 3))
    assert [limiter.take("a", 10.0) for _ in range(3)] == [0.0] * 3
    assert limiter.take("a", 10.0) == pytest.approx(0.5)
    assert limiter.take("a", 10.4) == pytest.approx(0.1)
    assert limiter.take("a", 10.5) == 0.0
    assert limiter.take("a", 10.5) == pytest.approx(0.5)
    assert limiter.take("b", 10.5) == 0.0
    assert [limiter.take("a", 1000.0) for _ in range(4)] == [0.0] * 3 + [pytest.approx(0.5)]


def test_looking_counts_nothing() -> None:
    limiter = Limiter(Rate(1.0, 1))
    assert limiter.wait("a", 0.0) == limiter.wait("a", 0.0) == 0.0
    assert limiter.take("a", 0.0) == 0.0
    assert limiter.wait("a", 0.0) == pytest.approx(1.0)


def test_no_limit_and_forgotten_keys() -> None:
    assert all(Limiter(UNLIMITED).take("a", 0.0) == 0.0 for _ in range(10))
    limiter = Limiter(Rate(1.0, 1), most_keys=2)
    for key in "abc":
        limiter.take(key, 0.0)
    assert limiter.take("a", 0.0) == 0.0  # forgotten, so that memory is bounded
    assert limiter.take("c", 0.0) > 0.0


def test_whom_the_total_refuses_come_one_after_the_other() -> None:
    limits = Limits(UNLIMITED, UNLIMITED, Rate(10.0, 2))
    told = []
    for n in range(22):
        try:
            limits.known(f"pod-{n}", b"", 0.0)
        except Busy as error:
            told.append(error.retry_after)
    assert len(told) == 20
    assert told == sorted(told)
    assert max(told, key=lambda each: each or 0.0) == pytest.approx(2.1)


def test_a_hot_credential_is_refused_unread() -> None:
    limits = Limits(Rate(0.5, 1), UNLIMITED, UNLIMITED)
    limits.known("pod", b"token", 0.0)
    limits.before(b"token", "10.0.0.1", 0.0)
    with pytest.raises(Busy, match="pod asks too often"):
        limits.known("pod", b"token", 0.0)
    with pytest.raises(Busy, match="this caller"):
        limits.before(b"token", "10.0.0.1", 1.0)
    limits.before(b"another", "10.0.0.1", 1.0)
    limits.before(b"token", "10.0.0.1", 2.1)
    assert b"token" not in repr(vars(limits)).encode()


def test_an_address_that_fails_too_often() -> None:
    limits = Limits(UNLIMITED, Rate(1.0, 2), UNLIMITED)
    for _ in range(2):
        limits.before(b"x", "10.0.0.1", 0.0)
        limits.failed("10.0.0.1", 0.0)
    with pytest.raises(Busy, match=r"10\.0\.0\.1 has failed"):
        limits.before(b"y", "10.0.0.1", 0.0)
    limits.before(b"y", "10.0.0.2", 0.0)


def test_nobody_comes_earlier_than_told() -> None:
    for random in (0.0, 0.5, 0.99):
        told = schedule.after_failure(schedule.Attempts(), 100.0, random, 20.0).not_before
        assert 120.0 <= told <= 131.0
    assert schedule.after_failure(schedule.Attempts(), 0.0, 0.9, 1e9).not_before < 1.5 * schedule.LONGEST_TOLD + 1
    many = schedule.Attempts(failures=10)
    assert schedule.after_failure(many, 0.0, 0.0, 1.0).not_before == 30.0


# ---- a real ca


@pytest.fixture(scope="module")
def ca(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaProcess]:
    limits = ("--rate", "40", "--caller-rate", "0.1")
    with CaProcess(tmp_path_factory.mktemp("ca") / "state", api, "--token-issuer-keys", "api", *limits) as process:
        yield process


def test_retry_after(ca: CaProcess, api: ApiServer, mint: TokenMint) -> None:
    pod = api.add_pod("shop", "greedy", "uid-g", "web")
    token = mint.token("shop", "web", pod)
    body = json.dumps({"csr": new_key_request().csr_pem}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    answers = [ca.request("POST", "/v1/certificates", body, headers) for _ in range(8)]
    assert [status for status, *_ in answers] == [201] * 6 + [429] * 2
    _, said, sent = answers[-1]
    assert said["error"]["code"] == "busy"
    assert 1 <= int(sent["Retry-After"]) <= 10
    with pytest.raises(Refused, match="too often") as refused:
        fetch(ca.address, ca.roots, new_key_request(), Token(token))
    assert 1 <= refused.value.retry_after <= 10


def test_a_bad_caller_starves_nobody_and_all_get_there(ca: CaProcess, api: ApiServer, mint: TokenMint) -> None:
    bad = api.add_pod("shop", "bad", "uid-bad", "web")
    over, outcomes = threading.Event(), []

    def hammer() -> None:
        while not over.is_set():
            # A token of its own each time: the credential's digest does not give it away.
            try:
                fetch(ca.address, ca.roots, new_key_request(), Token(mint.token("shop", "web", bad)))
                outcomes.append(201)
            except Refused as error:
                outcomes.append(error.status)

    hammers = [threading.Thread(target=hammer) for _ in range(2)]
    for thread in hammers:
        thread.start()
    agents = herd(api, mint, 120)
    try:
        run(agents, ca.address, ca.roots, at_once=8)
    finally:
        over.set()
        for thread in hammers:
            thread.join()
    assert all(agent.svid is not None for agent in agents)
    assert outcomes.count(429) > outcomes.count(201)
    assert outcomes.count(201) <= 10
    for agent in agents:
        for (asked, told), (again, _) in pairwise(agent.times):
            assert again - asked >= told


def test_tokens_are_nowhere(tmp_path: Path, mint: TokenMint) -> None:
    """Good ones, bad ones, in the wrong place: neither log nor state has any of them, or a part of one."""
    state = tmp_path / "state"
    shown = []
    with ApiServer(mint) as api:
        pod = api.add_pod("shop", "web-1", "uid-1", "web")
        for keys in (("--token-issuer-keys", "api"), ()):
            with CaProcess(state, api, "--caller-rate", "0.04", *keys) as ca:
                body = json.dumps({"csr": new_key_request().csr_pem}).encode()
                for change in ({}, {}, {"exp": 1}, {"sub": "recognisable"}):
                    token = mint.token("shop", "web", pod, **change)
                    shown.append(token)
                    headers = {"Content-Type": "application/json"}
                    for value in (f"Bearer {token}", token):
                        ca.request("POST", "/v1/certificates", body, {**headers, "Authorization": value})
                    ca.request("GET", "/v1/certificates", None, {"Authorization": f"Basic {token}"})
                    in_body = json.dumps({"csr": token, token: 1}).encode()
                    ca.request("POST", "/v1/certificates", in_body, headers)
                _, metrics = ca.plain("/metrics")
            ca_output = ca.log.read_bytes() + metrics.encode()
        everything = ca_output + b"".join(path.read_bytes() for path in state.iterdir())
    assert b'"event":"issue"' in everything
    for token in shown:
        for part in token.split("."):
            if part != shown[0].split(".")[0]:  # the header is the same for all, and says nothing
                assert part.encode() not in everything
