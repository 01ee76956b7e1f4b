"""Two commands at once, one that died, and one that broke off in the middle."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from install import lock as locks
from install.apply import Tools
from install.apply import install as apply_all
from install.inventory import BEGUN, write_inventory
from install.lock import Lock
from install.preflight import Choices, preflight
from install.render import render
from install.request import request
from install.resources import LEASE, NAMESPACE
from kube.client import Client
from mesh.errors import Conflict, HeddleError
from tests.cluster.api_server import ApiServer
from tests.cluster.installing import NAMESPACE as HOME
from tests.cluster.installing import find, heddle, install, inventory, uninstall


def test_of_two_at_once_the_second_says_who_holds_it(api: ApiServer) -> None:
    """And nothing else: that the first has not finished is no news."""
    install(api, "--skip-crds")
    write_inventory(api.client, replace(inventory(api.client), state=BEGUN))
    with Lock(api.client, HOME, "ada on build-1", lambda: datetime.now(UTC)):
        ran = heddle(api, "install", "-y", "--no-wait", "--profile=minimal")
        removing = heddle(api, "uninstall", "-y")
    assert ran.code == removing.code == 1
    said = "another command is at work on this installation: ada on build-1, since "
    assert ran.err.startswith(f"error: {said}"), ran.err
    assert ran.err.count("\n") == 1
    assert "wait until it is done, then try again; if it died, its lock is free in" in ran.err
    assert said in removing.err
    ran = install(api, "--skip-crds")
    assert "was begun and not finished; it is completed now" in ran.err


def test_the_lock_of_one_that_died_is_free_after_a_minute(api: ApiServer) -> None:
    install(api, "--skip-crds")
    past = datetime.now(UTC) - timedelta(seconds=locks.LASTS_SECONDS + 5)
    Lock(api.client, HOME, "the dead", lambda: past).__enter__()
    install(api, "--skip-crds")
    assert find(api.client, LEASE.path(HOME, locks.NAME)) is None


def test_a_lock_that_was_taken_over_is_lost(api: ApiServer) -> None:
    install(api, "--skip-crds")
    now = [datetime.now(UTC) - timedelta(minutes=5)]
    slow = Lock(api.client, HOME, "the slow", lambda: now[0]).__enter__()
    with Lock(api.client, HOME, "the quick", lambda: datetime.now(UTC)):
        now[0] += timedelta(seconds=locks.RENEW_SECONDS)
        with pytest.raises(Conflict):
            slow.renew()


class Breaks(Client):
    """Fails at the n-th object that is applied for good, as a lost connection would."""

    def __init__(self, client: Client, after: int) -> None:
        super().__init__(client._api, client.address)
        self.left = after

    def apply(self, path: str, body: Any, *, force: bool = True, dry_run: bool = False) -> Any:
        if not dry_run:
            self.left -= 1
            if self.left == 0:
                raise HeddleError("broken off")
        return super().apply(path, body, force=force, dry_run=dry_run)


@pytest.mark.parametrize("after", [3, 25])
def test_an_installation_that_broke_off_is_completed_or_removed_by_the_next(bare: ApiServer, after: int) -> None:
    rendered = render(request([], profile="default").spec)
    findings = preflight(bare.client, rendered, Choices(), native_sidecars=True, now=datetime.now(UTC))
    with pytest.raises(HeddleError, match="broken off"):
        apply_all(Tools(Breaks(bare.client, after), lambda _: None), rendered, findings, "", "x", wait=False)
    assert not inventory(bare.client).complete
    if after == 3:
        uninstall(bare, "--purge")
        assert find(bare.client, NAMESPACE.path("", HOME)) is None
    else:
        ran = install(bare)
        assert "was begun and not finished; it is completed now" in ran.err
        assert inventory(bare.client).complete
        assert find(bare.client, f"/apis/apps/v1/namespaces/{HOME}/deployments/istio-ingressgateway") is None
