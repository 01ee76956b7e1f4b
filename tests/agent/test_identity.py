"""The SVID's keeper with a real ca and real children: clocks that jump, refusals, a ca that is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from agent.children import Children
from agent.identity import IdentityKeeper, Orders
from mesh.errors import HeddleError
from mesh.identity import Identity
from svid.material import PodRef, SvidMaterial
from svid.trust import News, Order
from tests.agent.control_plane import TRUST_DOMAIN, Authority, CaService
from tests.agent.sidecar import IDENTITY


class Setting:
    """A ca, and a clock that the test moves."""

    def __init__(self, directory: Path) -> None:
        authority = Authority()
        self.ca = CaService(authority, IDENTITY)
        (directory / "token").write_text("a token")
        (directory / "root.pem").write_text(authority.root_pem)
        self.directory = directory
        self.ahead = 0.0
        self.seen: list[SvidMaterial] = []

    def run(self, what: Callable[[IdentityKeeper], Coroutine[Any, Any, None]], key_kind: str = "P-256") -> None:
        async def main() -> None:
            children = Children()
            children.start()
            orders = Orders(
                ca=("127.0.0.1", self.ca.port),
                ca_identity=Identity(TRUST_DOMAIN, "istio-system", "heddle-ca"),
                root_cert_file=str(self.directory / "root.pem"),
                token_file=str(self.directory / "token"),
                pod=PodRef("default", "reviews-v1", "u"),
                ttl_seconds=3600,
                key_kind=key_kind,
            )
            await what(IdentityKeeper(children, orders, self.seen.append, wall=lambda: time.time() + self.ahead))

        asyncio.run(main())


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    made = Setting(tmp_path)
    yield made
    made.ca.stop()


def test_a_clock_that_jumps_ahead_is_seen_at_the_next_look(setting: Setting) -> None:
    async def what(keeper: IdentityKeeper) -> None:
        assert 0 < await keeper.step() <= 10
        await keeper.step()
        assert len(setting.ca.issued) == 1
        setting.ahead = 3000.0
        assert await keeper.step() >= 0
        assert len(setting.ca.issued) == 2

    setting.run(what)
    assert [material.serial for material in setting.seen] == setting.ca.issued


def test_after_its_end_by_token(setting: Setting) -> None:
    """As after a suspend, by which the wall clock alone goes on."""

    async def what(keeper: IdentityKeeper) -> None:
        await keeper.step()
        setting.ahead = 3000.0
        await keeper.step()
        setting.ahead = 3000.0 + 3600.0
        await keeper.step()

    setting.run(what)
    assert setting.ca.credentials == ["token", str(IDENTITY), "token"]


def test_a_refusal_is_believed_at_once_and_not_again_for_a_while(setting: Setting) -> None:
    async def what(keeper: IdentityKeeper) -> None:
        await keeper.step()
        keeper.refused()
        while await keeper.step() and len(setting.ca.issued) < 2:
            await asyncio.sleep(0.1)
        keeper.refused()
        assert keeper.renew_at is not None
        assert keeper.renew_at > time.time() + 600

    setting.run(what)
    assert setting.ca.credentials == ["token", str(IDENTITY)]


def test_an_order_renews_within_its_window_and_a_newer_bundle_stays(setting: Setting) -> None:
    async def what(keeper: IdentityKeeper) -> None:
        await keeper.step()
        first = setting.seen[0]
        both = replace(first.bundle, sequence=2, roots=(*first.bundle.roots, "another"))
        keeper.tell(News(both, Order(1, first.root, time.time(), time.time() + 20)))
        assert setting.seen[1:] == [replace(first, bundle=both)]
        assert keeper.renew_at is not None
        assert keeper.renew_at <= time.time() + 20
        setting.ahead = 21.0
        await keeper.step()
        assert len(setting.ca.issued) == 2
        assert setting.seen[-1].bundle == both  # the ca's answer has the one before
        keeper.tell(News(first.bundle, Order(0)))
        assert keeper.order.number == 1
        assert len(setting.seen) == 3

    setting.run(what)


def test_the_key_is_of_the_kind_that_was_ordered(setting: Setting) -> None:
    async def what(keeper: IdentityKeeper) -> None:
        await keeper.step()

    setting.run(what, "RSA-2048")
    key = serialization.load_pem_private_key(setting.seen[0].key_pem, None)
    assert isinstance(key, rsa.RSAPrivateKey)


def test_without_a_ca_it_waits_a_little_longer_each_time(setting: Setting) -> None:
    async def what(keeper: IdentityKeeper) -> None:
        setting.ca.stop()
        first = await keeper.step()
        assert 0 < first <= 1
        assert keeper.material is None
        assert "does not answer" in str(keeper.last_error)
        setting.ca.start()
        await asyncio.sleep(first)
        await keeper.step()
        assert (await keeper.ready()).identity == IDENTITY
        assert keeper.last_error is None

    setting.run(what)


def test_a_missing_token_is_named(setting: Setting) -> None:
    (setting.directory / "token").unlink()

    async def what(keeper: IdentityKeeper) -> None:
        with pytest.raises(HeddleError, match="token cannot be read"):
            await keeper.renew_now()

    setting.run(what)


def test_another_server_in_the_cas_place_gets_no_token(setting: Setting) -> None:
    async def what(keeper: IdentityKeeper) -> None:
        (setting.directory / "root.pem").write_text(Authority().root_pem)
        with pytest.raises(HeddleError, match="does not verify"):
            await keeper.renew_now()
        assert setting.ca.issued == []

    setting.run(what)
