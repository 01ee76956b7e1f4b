"""The keeper: renews when due, falls back on the token, tells its listeners, and never dies."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.errors import HeddleError, Unavailable
from mesh.identity import Identity
from svid import keeper as keeper_module
from svid import schedule
from svid.client import CaAddress, Refused, Token, Unreachable
from svid.keeper import Keeper, enrolment
from svid.material import PodRef, SvidMaterial, TrustBundle
from svid.trust import News, Order
from tests.support.certificates import Authority

NOW = 1_800_000_000.0
DAY = 86400.0
BUNDLE = TrustBundle("cluster.local", 1, ("ROOT\n",))
WITH_ROOT = TrustBundle("cluster.local", 1, (Authority().root_pem,))
IDENTITY = Identity("cluster.local", "default", "a")
CA = CaAddress("127.0.0.1", 1, Identity("cluster.local", "istio-system", "heddle-ca"))


class World:
    """Two clocks, and a ca that answers what it is told to."""

    def __init__(self) -> None:
        self.wall, self.monotonic = NOW, 0.0
        self.calls: list[str | None] = []
        self.fault: Exception | None = None

    def obtain(self, current: SvidMaterial | None) -> SvidMaterial:
        self.calls.append(current.serial if current else None)
        if self.fault is not None:
            raise self.fault
        serial = f"{len(self.calls):x}"
        return SvidMaterial(IDENTITY, serial, self.wall - 60, self.wall + DAY, b"KEY", b"CHAIN", BUNDLE)

    def keeper(self, *, of_root: bool = False, on_change: Callable[[SvidMaterial], None] | None = None) -> Keeper:
        """`of_root`: its certificates say of which root they are, the one of `WITH_ROOT`."""
        (root,) = WITH_ROOT.fingerprints

        def obtain(current: SvidMaterial | None) -> SvidMaterial:
            found = self.obtain(current)
            return replace(found, root=root, bundle=WITH_ROOT) if of_root else found

        clocks = {"wall": lambda: self.wall, "monotonic": lambda: self.monotonic}
        return Keeper(obtain, **clocks, random=lambda: 0.5, on_change=on_change)

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


def test_obtains_then_renews_when_due() -> None:
    world = World()
    keeper = world.keeper()
    assert keeper.material is None
    with pytest.raises(Unavailable, match="no certificate yet"):
        _ = keeper.current
    assert 0 < keeper.step() <= 10
    assert keeper.current.serial == "1"
    world.pass_time(DAY * 0.54)
    keeper.step()
    assert keeper.current.serial == "1"
    world.pass_time(DAY * 0.02)
    keeper.step()
    assert keeper.current.serial == "2"
    assert world.calls == [None, "1"]


def test_an_expired_certificate_is_recovered_by_token() -> None:
    world = World()
    keeper = world.keeper()
    keeper.step()
    world.pass_time(2 * DAY)
    keeper.step()
    assert world.calls == [None, None]


def test_failures_back_off_and_are_told() -> None:
    world = World()
    world.fault = Unreachable("down")
    keeper = world.keeper()
    assert 0.5 <= keeper.step() <= 1.0
    assert isinstance(keeper.last_error, Unreachable)
    keeper.step()
    assert len(world.calls) == 1
    world.pass_time(1.0)
    keeper.step()
    assert len(world.calls) == 2
    world.fault = None
    world.pass_time(2.0)
    keeper.step()
    assert keeper.current.serial == "3"
    assert keeper.last_error is None


def test_the_old_certificate_stays_while_renewal_fails() -> None:
    world = World()
    keeper = world.keeper()
    keeper.step()
    world.fault = Refused(403, "forbidden", "no")
    world.pass_time(DAY * 0.7)
    keeper.step()
    assert keeper.current.serial == "1"


def test_a_bug_does_not_end_the_renewals() -> None:
    world = World()
    world.fault = ZeroDivisionError("oops")
    keeper = world.keeper()
    keeper.step()
    assert "ZeroDivisionError" in str(keeper.last_error)
    with pytest.raises(Unavailable, match="oops"):
        keeper.renew_now()


def test_renew_now() -> None:
    world = World()
    keeper = world.keeper()
    assert keeper.renew_now().serial == "1"
    assert keeper.renew_now().serial == "2"
    assert world.calls == [None, "1"]
    world.fault = Refused(403, "forbidden", "the pod is gone")
    with pytest.raises(Refused, match="the pod is gone"):
        keeper.renew_now()
    assert keeper.current.serial == "2"


def test_listeners() -> None:
    world = World()
    seen: list[str] = []

    def failing(_material: SvidMaterial) -> None:
        raise RuntimeError("a listener's own problem")

    keeper = world.keeper(on_change=failing)
    keeper.add_listener(lambda material: seen.append(material.serial))
    keeper.step()
    late: list[str] = []
    keeper.add_listener(lambda material: late.append(material.serial))
    keeper.renew_now()
    assert (seen, late) == (["1", "2"], ["1", "2"])


def test_runs_in_a_thread_and_stops() -> None:
    world = World()
    ready = threading.Event()
    keeper = Keeper(world.obtain, on_change=lambda _material: ready.set(), wall=lambda: world.wall)
    keeper.start()
    assert keeper.wait_ready(10).serial == "1"
    assert ready.is_set()
    keeper.stop()


def test_certificates_of_a_ca_far_ahead_do_not_make_a_storm() -> None:
    world = World()

    def ahead(current: SvidMaterial | None) -> SvidMaterial:
        return replace(world.obtain(current), not_before=world.wall + DAY, not_after=world.wall + 2 * DAY)

    keeper = Keeper(ahead, wall=lambda: world.wall, monotonic=lambda: world.monotonic, random=lambda: 0.5)
    for _ in range(100):
        keeper.step()
        world.pass_time(0.01)
    assert len(world.calls) <= 2


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What `enrolment` sends to `fetch`: the credential and the roots. SVIDs are refused when `refuse` says so."""
    log: list[tuple[str, str]] = []

    def fetch(_ca: object, roots: str, _request: object, credential: Token | SvidMaterial, **_more: object) -> str:
        log.append(("token " + credential.value if isinstance(credential, Token) else credential.serial, roots))
        if isinstance(credential, SvidMaterial) and credential.serial in ("401", "403", "500"):
            raise Refused(int(credential.serial), "x", "refused")
        if isinstance(credential, SvidMaterial) and credential.serial == "dead":
            raise Unreachable("tls")
        return "material"

    monkeypatch.setattr(keeper_module, "fetch", fetch)
    return log


def svid(serial: str) -> SvidMaterial:
    return SvidMaterial(IDENTITY, serial, NOW, NOW + DAY, b"", b"", BUNDLE)


def test_enrolment_by_token_then_by_certificate(tmp_path: Path, asked: list[tuple[str, str]]) -> None:
    (tmp_path / "token").write_text("one\n")
    obtain = enrolment(CA, roots=lambda: "MOUNTED", token_file=tmp_path / "token", pod=PodRef("a", "b", "c"))
    obtain(None)
    (tmp_path / "token").write_text("two\n")
    obtain(None)
    obtain(svid("1"))
    assert asked == [("token one", "MOUNTED\n"), ("token two", "MOUNTED\n"), ("1", "MOUNTED\nROOT\n")]


@pytest.mark.parametrize("serial", ["401", "403", "dead"])
def test_a_refused_certificate_falls_back_on_the_token(
    tmp_path: Path, asked: list[tuple[str, str]], serial: str
) -> None:
    (tmp_path / "token").write_text("one")
    enrolment(CA, roots=lambda: "MOUNTED", token_file=tmp_path / "token")(svid(serial))
    assert [credential for credential, _ in asked] == [serial, "token one"]


def test_other_refusals_do_not(tmp_path: Path, asked: list[tuple[str, str]]) -> None:
    with pytest.raises(Refused):
        enrolment(CA, roots=lambda: "MOUNTED", token_file=tmp_path / "token")(svid("500"))
    assert len(asked) == 1


def test_missing_files_are_said(tmp_path: Path, asked: list[tuple[str, str]]) -> None:
    with pytest.raises(HeddleError, match="token cannot be read"):
        enrolment(CA, roots=lambda: "MOUNTED", token_file=tmp_path / "token")(None)

    def roots() -> str:
        return (tmp_path / "roots").read_text()

    with pytest.raises(HeddleError, match="root certificate cannot be read"):
        enrolment(CA, roots=roots, token_file=tmp_path / "token")(None)
    enrolment(CA, roots=roots, token_file=tmp_path / "token")(svid("1"))
    assert asked == [("1", "\nROOT\n")]


BOTH = TrustBundle("cluster.local", 2, ("ROOT\n", "NEW\n"))


def test_a_newer_bundle_is_trusted_at_once_and_an_older_one_never_again() -> None:
    world, heard = World(), []
    keeper = world.keeper(on_change=lambda material: heard.append(material.bundle))
    keeper.step()
    keeper.tell(News(BOTH))
    assert heard == [BUNDLE, BOTH]
    keeper.tell(News(BUNDLE))
    keeper.renew_now()  # at a replica that is behind
    assert heard == [BUNDLE, BOTH, BOTH]
    assert keeper.current.bundle == BOTH


def test_an_order_is_carried_out_within_its_window_and_not_twice() -> None:
    world = World()
    keeper = world.keeper()
    keeper.step()
    keeper.tell(News(BUNDLE, Order(1, "", 0, 0)))
    assert keeper.renew_at == pytest.approx(NOW + DAY * 0.55)
    keeper.tell(News(BUNDLE, Order(2, "aa", NOW, NOW + 100)))  # the leaf's root is not known: it may be meant
    assert keeper.renew_at == pytest.approx(NOW + 50)
    report = keeper.report()
    assert report is not None
    assert report.order == 2
    world.pass_time(51)
    keeper.step()
    assert keeper.current.serial == "2"
    assert keeper.renew_at is not None
    assert NOW + 51 + 10 <= keeper.renew_at <= NOW + 100  # the new one's root is not known either
    keeper.tell(News(BUNDLE, Order(1, "aa", NOW, NOW + 1)))  # late: nothing changes
    assert keeper.renew_at > NOW + 60


def test_an_order_for_others_changes_nothing() -> None:
    world = World()
    keeper = world.keeper(of_root=True)
    keeper.step()
    keeper.tell(News(WITH_ROOT, Order(1, "aa", NOW, NOW)))
    assert keeper.renew_at == pytest.approx(NOW + DAY * 0.55)


def test_whose_root_has_left_the_bundle_renews_at_once() -> None:
    world = World()
    keeper = world.keeper(of_root=True)
    keeper.step()
    keeper.tell(News(replace(BOTH, roots=("NEW\n", *WITH_ROOT.roots))))
    assert keeper.renew_at == pytest.approx(NOW + DAY * 0.55)
    world.fault = Unreachable("away")
    world.pass_time(DAY * 0.6)
    for _ in range(8):  # it is due, and tried in vain
        world.pass_time(keeper.step())
    world.fault, tried = None, len(world.calls)
    keeper.tell(News(replace(BOTH, sequence=3, roots=("NEW\n",))))
    assert 0 < keeper.step() <= schedule.AT_ONCE
    world.pass_time(schedule.AT_ONCE / 2)
    again = keeper.step()
    assert len(world.calls) == tried + 1
    assert 0 < again <= schedule.AGAIN  # the ca that answered is behind: its certificate is of the old root too
    world.pass_time(1.0)
    keeper.step()
    assert len(world.calls) == tried + 1


def test_a_peer_that_refuses_the_certificate_is_believed_now_and_then() -> None:
    world = World()
    keeper = world.keeper()
    keeper.step()
    for passed, calls in ((0.0, 2), (5.0, 2), (schedule.BELIEVE_AGAIN, 3)):
        world.pass_time(passed)
        keeper.refused()
        keeper.step()
        world.pass_time(schedule.AT_ONCE)
        keeper.step()
        assert len(world.calls) == calls


def test_not_before_the_ca_wants_to_be_asked_again() -> None:
    world = World()
    keeper = world.keeper()
    keeper.step()
    world.fault = Refused(429, "busy", "busy", retry_after=60.0)
    world.pass_time(DAY * 0.7)
    keeper.step()
    keeper.refused()
    world.pass_time(59.0)
    keeper.step()
    assert len(world.calls) == 2
