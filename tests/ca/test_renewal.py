"""A workload's keeper and a real ca: clocks that jump, certificates that ended or were revoked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ca.ledger import Ledger, Record
from mesh.errors import HeddleError
from svid import schedule
from svid.follow import Follower
from svid.keeper import Keeper, enrolment
from tests.ca.authorities import make
from tests.ca.harness import ApiServer, CaProcess, TokenMint
from tests.support.certificates import Authority
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def api(mint: TokenMint) -> Iterator[ApiServer]:
    with ApiServer(mint) as server:
        server.add_pod("shop", "web-1", "uid-1", "web")
        yield server


@pytest.fixture(scope="module")
def ca(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaProcess]:
    state = tmp_path_factory.mktemp("ca") / "state"
    with CaProcess(state, api, "--token-issuer-keys", "api", "--leaf-ttl", "2h") as process:
        yield process


class Workload:
    """Its wall clock is `ahead` seconds from the ca's; the monotonic one is moved with `wait`."""

    def __init__(self, ca: CaProcess, api: ApiServer, mint: TokenMint, directory: Path) -> None:
        self.ca, self.ahead, self.waited = ca, 0.0, 0.0
        pod = api.add_pod("shop", "web-1", "uid-1", "web")
        token = directory / "token"
        token.write_text(mint.token("shop", "web", pod))
        obtain = enrolment(ca.address, roots=lambda: ca.roots, token_file=token, pod=pod)
        self.keeper = Keeper(
            obtain, wall=lambda: time.time() + self.ahead, monotonic=lambda: time.monotonic() + self.waited
        )
        self.keeper.step()

    def record(self) -> Record:
        """What the ca wrote down of the certificate in hand."""
        serial = self.keeper.current.serial
        return next(each for each in Ledger(self.ca.state / "ledger.sqlite3").list() if each.serial == serial)


@pytest.fixture
def workload(ca: CaProcess, api: ApiServer, mint: TokenMint, tmp_path: Path) -> Workload:
    return Workload(ca, api, mint, tmp_path)


def test_half_way_it_renews_by_its_certificate(workload: Workload) -> None:
    first = workload.keeper.current
    workload.ahead = 0.45 * 7200
    assert workload.keeper.step() <= schedule.LONGEST_TICK
    assert workload.keeper.current is first
    workload.ahead = 0.61 * 7200
    workload.keeper.step()
    assert (workload.record().caller, workload.record().proof) == ("certificate", first.serial)


def test_after_its_end_by_its_token(workload: Workload) -> None:
    """As after a suspend of a day: what it got first is over by its own clock, so it waits between attempts."""
    first = workload.keeper.current
    workload.ahead = 7300
    pause = workload.keeper.step()
    assert workload.keeper.current.serial != first.serial
    assert workload.record().caller == "token"
    assert 0 < pause <= schedule.LONGEST_TICK
    second = workload.keeper.current
    workload.keeper.step()  # within the pause
    assert workload.keeper.current is second
    workload.ahead = 0.0  # the clock is set right
    workload.waited = schedule.LONGEST_RETRY
    workload.keeper.step()
    assert workload.keeper.current is second
    assert schedule.usable(schedule.life(second.not_before, second.not_after, time.time(), 0.0), time.time())


def test_a_clock_set_back_behind_its_beginning(workload: Workload) -> None:
    first = workload.keeper.current
    workload.ahead = -7200.0
    pause = workload.keeper.step()
    assert workload.keeper.current.serial != first.serial
    assert workload.record().caller == "token"
    assert 0 < pause <= schedule.LONGEST_TICK


def test_a_component_that_missed_a_rotation_knows_the_ca_by_the_mounted_roots(
    ca: CaProcess, mint: TokenMint, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(mint.token("istio-system", "heddle-operator"))
    obtain = enrolment(ca.address, roots=lambda: ca.roots, token_file=tmp_path / "token")
    now = obtain(None)
    before = replace(now.bundle, sequence=now.bundle.sequence - 1, roots=(make("the root before").pem.decode(),))
    keeper = Keeper(lambda _: replace(now, bundle=before))
    keeper.step()
    with pytest.raises(HeddleError, match="does not verify"):
        Follower(keeper, ca.address, lambda: before.pem).step()
    assert Follower(keeper, ca.address, lambda: ca.roots).step()
    assert keeper.current.bundle.roots == now.bundle.roots


def test_a_component_whose_root_is_gone_gets_a_certificate_by_its_token(
    ca: CaProcess, mint: TokenMint, tmp_path: Path
) -> None:
    """It has heard nothing of a rotation: the ca, known by the mounted roots, refuses what it shows."""
    (tmp_path / "token").write_text(mint.token("istio-system", "heddle-operator"))
    obtain = enrolment(ca.address, roots=lambda: ca.roots, token_file=tmp_path / "token")
    now, old = obtain(None), Authority()
    shown = old.issue(uri=str(now.identity))
    bundle = replace(now.bundle, sequence=now.bundle.sequence - 1, roots=(old.root_pem,))
    (root,) = bundle.fingerprints
    pair = {"key_pem": shown.key_pem.encode(), "chain_pem": shown.chain_pem.encode()}
    left = [replace(now, serial="old", root=root, bundle=bundle, **pair)]
    keeper = Keeper(lambda current: left.pop() if left else obtain(current))
    keeper.step()
    assert keeper.current.serial == "old"
    follower = Follower(keeper, ca.address, lambda: ca.roots)
    keeper.start()
    follower.start()
    try:
        wait_for(lambda: keeper.current.bundle == now.bundle)
        assert keeper.current.root == now.root
        assert not Follower(keeper, ca.address, lambda: ca.roots).step()  # the ca takes it, and has nothing new to say
    finally:
        follower.stop()
        keeper.stop()
