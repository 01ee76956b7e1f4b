"""kube.source against a real API server: whatever is killed, no object is lost and none stays that is gone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from kube.source import DEFINITIONS, Changed, Event, Listed, Progress, Source, Watched, list_path
from mesh.errors import HeddleError, NotFound
from tests.cluster import api_server as api_servers
from tests.cluster.api_server import ApiServer
from tests.cluster.control_plane import ControlPlane
from tests.support.waiting import wait_for

NAMESPACE = "default"
PATH = list_path("", "v1", "configmaps", NAMESPACE)


class Mirror:
    """What somebody who follows a source knows: the ConfigMaps' data by name; and how it was told."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        match event:
            case Listed(objects=objects):
                self.known = {_name(one): one.get("data") for one in objects}
            case Changed(object=changed, deleted=True):
                self.known.pop(_name(changed), None)
            case Changed(object=changed):
                self.known[_name(changed)] = changed.get("data")

    def told(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events)


@pytest.fixture(scope="module")
def own_api_server() -> Iterator[ApiServer]:
    """One for all tests here, each of which leaves it running."""
    with api_servers.running() as started:
        yield started


@pytest.fixture
def followed(own_api_server: ApiServer) -> Iterator[Mirror]:
    """A mirror of the ConfigMaps of a namespace, at a server that may be killed."""
    with _following(own_api_server) as mirror:
        yield mirror


@contextmanager
def _following(server: ApiServer, **options: Any) -> Iterator[Mirror]:
    mirror = Mirror()
    source = Source([Watched("ConfigMap", PATH)], server.client, **options)
    source.start(mirror)
    try:
        wait_for(source.synced)
        yield mirror
    finally:
        source.stop()


def _name(item: Mapping[str, Any]) -> str:
    name: str = item["metadata"]["name"]
    return name


def _control_plane(server: ApiServer) -> ControlPlane:
    assert server.control_plane is not None
    return server.control_plane


def _stored(server: ApiServer) -> dict[str, Any]:
    return {_name(one): one.get("data") for page in server.client.list(PATH) for one in page.items}


def _write(server: ApiServer, name: str, value: str) -> None:
    """Until it is written: the server may be away, or have done it without saying so."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}}

    def written() -> bool:
        try:
            server.client.apply(f"{PATH}/{name}", body)
        except HeddleError:
            return False
        return True

    wait_for(written)


def _delete(server: ApiServer, name: str) -> None:
    server.client.call("DELETE", f"{PATH}/{name}")


def test_a_list_of_several_pages_then_every_change(own_api_server: ApiServer) -> None:
    for number in range(1100):
        body = {"metadata": {"name": f"page-{number}"}, "data": {"value": "1"}}
        own_api_server.client.post(PATH, body)
    with _following(own_api_server) as mirror:
        assert mirror.told(Listed) == 1
        assert mirror.known == _stored(own_api_server)
        assert len(mirror.known) >= 1100
        _write(own_api_server, "page-0", "2")
        _delete(own_api_server, "page-1")
        wait_for(lambda: mirror.known == _stored(own_api_server))
        assert mirror.told(Listed) == 1


def test_bookmarks_move_the_watch_on_and_its_end_loses_nothing(own_api_server: ApiServer) -> None:
    """The server ends each watch after some seconds; shortly before it says how far it has come, if that is further:
    here because of objects of the same kind that are not watched."""
    with _following(own_api_server, watch_seconds=6.0) as mirror:
        first = mirror.events[0].resource_version

        def moved_on_twice() -> bool:
            elsewhere = {"metadata": {"generateName": "elsewhere-"}}
            own_api_server.client.post("/api/v1/namespaces/kube-system/configmaps", elsewhere)
            return mirror.told(Progress) >= 2

        wait_for(moved_on_twice)
        versions = [event.resource_version for event in mirror.events if isinstance(event, Progress)]
        assert first < versions[0] < versions[1]
        _write(own_api_server, "after", "1")
        wait_for(lambda: mirror.known == _stored(own_api_server))
        assert mirror.told(Listed) == 1


def test_a_version_that_etcd_compacted_away_is_answered_by_a_new_list(
    own_api_server: ApiServer, followed: Mirror
) -> None:
    control_plane = _control_plane(own_api_server)
    _write(own_api_server, "stays", "1")
    _write(own_api_server, "goes", "1")
    wait_for(lambda: {"stays", "goes"} <= followed.known.keys())
    control_plane.kill("kube-apiserver")
    # What happens while nobody can be told of it, as after a long partition.
    control_plane.delete_stored(f"/registry/configmaps/{NAMESPACE}/goes")
    control_plane.compact()
    control_plane.start_api_server()
    control_plane.wait_ready()
    wait_for(lambda: followed.told(Listed) >= 2)
    assert "goes" not in followed.known
    wait_for(lambda: followed.known == _stored(own_api_server))


def test_a_kind_that_is_defined_and_not_served_is_not_taken_for_empty(own_api_server: ApiServer) -> None:
    """Neither by who follows it already nor by who begins to: both would act as if its objects had been deleted."""
    client, path, name = own_api_server.client, list_path("source.test", "v1", "things"), "things.source.test"
    client.post(DEFINITIONS, _definition(name))
    wait_for(lambda: _served(own_api_server, path))
    client.post(list_path("source.test", "v1", "things", NAMESPACE), {**THING, "metadata": {"name": "a"}})
    watched = Watched("Thing", path, definition=name)
    before, after = Mirror(), Mirror()
    followers = [(Source([watched], client, watch_seconds=2.0), before), (Source([watched], client), after)]
    try:
        followers[0][0].start(before)
        wait_for(lambda: before.known == {"a": None})
        _serve(own_api_server, name, False)
        wait_for(lambda: not _served(own_api_server, path))
        followers[1][0].start(after)
        for source, _ in followers:
            wait_for(lambda: "it is defined and not served" in str(source.troubles().get("Thing")))  # noqa: B023
        assert (before.known, before.told(Listed)) == ({"a": None}, 1)
        assert (followers[1][0].synced(), after.events) == (False, [])
        _serve(own_api_server, name, True)
        wait_for(lambda: after.known == {"a": None} and followers[1][0].synced())
        wait_for(lambda: not followers[0][0].troubles())
        client.delete(f"{DEFINITIONS}/{name}")
        wait_for(lambda: not before.known and not after.known)
    finally:
        for source, _ in followers:
            source.stop()


THING = {"apiVersion": "source.test/v1", "kind": "Thing"}


def _definition(name: str) -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object"}}
    versions = [
        {"name": version, "served": True, "storage": version == "v1", "schema": schema} for version in ("v1", "v2")
    ]
    spec = {"group": "source.test", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": {**spec, "versions": versions},
    }


def _serve(server: ApiServer, name: str, served: bool) -> None:
    versions = _definition(name)["spec"]["versions"]
    versions[0]["served"] = served
    server.client.merge(f"{DEFINITIONS}/{name}", {"spec": {"versions": versions}})


def _served(server: ApiServer, path: str) -> bool:
    try:
        server.client.get(path)
    except NotFound:
        return False
    return True


@pytest.mark.parametrize("killed", ["kube-apiserver", "etcd"])
def test_nothing_is_lost_or_stale_after_a_kill(own_api_server: ApiServer, followed: Mirror, killed: str) -> None:
    """Objects are created, changed and deleted before, while and after the component is away."""
    control_plane = _control_plane(own_api_server)
    restart: Mapping[str, Callable[[], None]] = {
        "kube-apiserver": control_plane.start_api_server,
        "etcd": control_plane.start_etcd,
    }
    ended = threading.Event()
    writer = threading.Thread(target=_keep_writing, args=(own_api_server, ended))
    writer.start()
    try:
        for _ in range(3):
            seen = len(followed.events)
            wait_for(lambda: len(followed.events) > seen + 20)  # noqa: B023 (called at once)
            control_plane.kill(killed)
            restart[killed]()
        control_plane.wait_ready()
    finally:
        ended.set()
        writer.join()
    wait_for(lambda: followed.known == _stored(own_api_server))
    _write(own_api_server, "at-last", "1")
    wait_for(lambda: followed.known == _stored(own_api_server))


def _keep_writing(server: ApiServer, ended: threading.Event) -> None:
    number = 0
    while not ended.wait(0.005):
        number += 1
        try:
            _write(server, f"kept-{number % 20}", str(number))
            if number % 3 == 0:
                _delete(server, f"kept-{number % 20}")
        except HeddleError:
            continue  # it was killed meanwhile
