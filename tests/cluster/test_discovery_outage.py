"""Discovery while the API server, or etcd behind it, is killed: nothing known is forgotten, nothing missed, nothing
stays that is gone. The state afterwards is compared with the API server's own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.api_server import ApiServer
from tests.cluster.control_plane import ControlPlane
from tests.cluster.discovery_place import PODS, SERVICES, SLICES, Follower, Place, place
from tests.discovery.harness import DiscoveryProcess
from tests.support.waiting import wait_for


@dataclass(frozen=True, slots=True)
class World:
    """Services s0 to s4, of one pod each, and a client."""

    own: Place
    discovery: DiscoveryProcess
    client: Follower

    @property
    def control_plane(self) -> ControlPlane:
        assert self.own.api.control_plane is not None
        return self.own.api.control_plane

    def change(self) -> None:
        """One service comes, one goes, and the pod of a third is no longer ready."""
        self.own.service("new")
        self.own.pod("new-0", app="new")
        self.own.delete(f"{SERVICES}/s0")
        self.own.set_ready("s1-0", False)

    def settles(self) -> None:
        """Wait until the API server has these changes, all of them, and the client has what the API server has."""
        wait_for(self.is_changed)
        wait_for(lambda: self.seen() == self.true())

    def is_changed(self) -> bool:
        """Whether the controllers have done their part: they, too, have lost the API server."""
        true = self.true()
        return "s0" not in true and not true["s1"] and len(true.get("new", ())) == 1

    def seen(self) -> dict[str, list[str]]:
        return {name: self.client.addresses(name) for name in sorted(self.client.services())}

    def true(self) -> dict[str, list[str]]:
        """Service -> ready addresses, read from the API server."""
        api = self.own.api.client
        found: dict[str, list[str]] = {}
        for one in api.get(SERVICES.format(self.own.namespace))["items"]:
            found[one["metadata"]["name"]] = []
        for piece in api.get(SLICES.format(self.own.namespace))["items"]:
            addresses = found.setdefault(piece["metadata"]["labels"]["kubernetes.io/service-name"], [])
            for endpoint in piece.get("endpoints") or ():
                if endpoint["conditions"]["ready"]:
                    addresses.extend(endpoint["addresses"])
        return {name: sorted(addresses) for name, addresses in sorted(found.items())}


@pytest.fixture(scope="module")
def defined(module_api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Istio's kinds and discovery's rights, for all tests of this file: each leaves the API server running."""
    with place(module_api_server, tmp_path_factory.mktemp("kinds")) as made:
        yield made


@pytest.fixture
def world(defined: Place, tmp_path: Path) -> Iterator[World]:
    with defined.api.namespace(prefix="discovered") as namespace:
        own = Place(defined.api, defined.directory, namespace, defined.home)
        with DiscoveryProcess(own.kubeconfig, tmp_path) as discovery:
            made = World(own, discovery, Follower(own.agent(discovery, own.pod("client")), own.namespace))
            for number in range(5):
                own.service(f"s{number}")
                own.pod(f"s{number}-0", app=f"s{number}")
            wait_for(lambda: len(made.seen()) == 5 and all(made.seen().values()))
            wait_for(lambda: made.seen() == made.true())
            yield made


def test_the_api_server_is_killed(world: World) -> None:
    before = world.seen()
    world.control_plane.kill("kube-apiserver")
    assert world.seen() == before
    assert world.discovery.ready()
    world.control_plane.start_api_server()
    world.control_plane.wait_ready()
    world.change()  # discovery may not have found it again yet
    world.settles()
    wait_for(lambda: all(problem["name"] for problem in world.discovery.status()["problems"]))  # of objects only


def test_etcd_is_killed(world: World) -> None:
    before = world.seen()
    world.control_plane.kill("etcd")
    assert world.seen() == before
    world.control_plane.start_etcd()
    world.control_plane.wait_ready()
    world.change()
    world.settles()


def test_both_are_killed_and_history_is_gone(world: World) -> None:
    """The versions at which discovery's watches stand are compacted away: it must list again, and find deletions."""
    worker = world.discovery.worker_pid()
    os.kill(worker, signal.SIGSTOP)
    try:
        world.change()
        wait_for(world.is_changed)
        world.control_plane.kill("kube-apiserver")
        world.control_plane.compact()
        world.control_plane.start_api_server()
        world.control_plane.wait_ready()
    finally:
        os.kill(worker, signal.SIGCONT)
    world.settles()
    assert "listing again" in world.discovery.log.read_text()


def test_watches_drop_again_and_again(world: World) -> None:
    for _ in range(3):
        world.control_plane.kill("kube-apiserver")
        world.control_plane.start_api_server()
        world.control_plane.wait_ready()
    world.control_plane.kill("kube-controller-manager")  # its own pauses, of a minute by now, are not the matter here
    world.control_plane.start_controllers()
    world.change()
    world.own.delete(f"{PODS}/s2-0")
    wait_for(lambda: not world.true()["s2"])
    world.settles()
