"""List and watch, against a real HTTP server (api_server.py). A real kube-apiserver: tests/cluster."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube.client import Client, connect
from kube.source import (
    ABSENT_AFTER,
    LONGEST_RETRY,
    Changed,
    Event,
    Listed,
    Progress,
    Source,
    Watched,
    backoff,
    list_path,
    number,
)
from tests.kube.api_server import ApiServer, thing

THINGS = Watched("Thing", "/apis/heddle.dev/v1/things")


@pytest.fixture
def api() -> Iterator[ApiServer]:
    server = ApiServer()
    with server.running():
        yield server


class Followed:
    """A running source and what it delivered."""

    def __init__(self, address: str, definition: str = "", **options: Any) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        things = replace(THINGS, definition=definition)
        self.source = Source([things], connect(address), random=lambda: 0.0, **options)

    def __enter__(self) -> Followed:
        self.source.start(self.events.put)
        return self

    def __exit__(self, *_: object) -> None:
        self.source.stop()

    def next(self) -> Event:
        return self.events.get(timeout=60)


def names(event: Event) -> list[str]:
    assert isinstance(event, Listed)
    return [item["metadata"]["name"] for item in event.objects]


def test_first_list_comes_whole_then_changes(api: ApiServer) -> None:
    api.items, api.version, api.page = [thing(f"t{i}", i) for i in range(5)], 9, 2
    with Followed(api.address) as followed:
        first = followed.next()
        assert names(first) == ["t0", "t1", "t2", "t3", "t4"]
        assert first.resource_version == 9
        api.events.put({"type": "ADDED", "object": thing("new", 10)})
        api.events.put({"type": "DELETED", "object": thing("t0", 11)})
        api.events.put({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "15"}}})
        added, deleted, progress = followed.next(), followed.next(), followed.next()
        assert added == Changed("Thing", thing("new", 10), False, 10, created=True)
        assert deleted == Changed("Thing", thing("t0", 11), True, 11)
        assert progress == Progress("Thing", 15)
        assert followed.source.synced()
    assert len(api.lists()) == 3
    assert api.watches()[0]["resourceVersion"] == "9"
    assert api.watches()[0]["allowWatchBookmarks"] == "true"


@pytest.mark.parametrize("ending", ["end", "break"])
def test_a_watch_that_ends_goes_on_where_it_was(api: ApiServer, ending: str) -> None:
    with Followed(api.address) as followed:
        followed.next()
        api.events.put({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "40"}}})
        followed.next()
        api.events.put(ending)
        api.events.put({"type": "ADDED", "object": thing("late", 41)})
        assert followed.next() == Changed("Thing", thing("late", 41), False, 41, created=True)
    assert [watch["resourceVersion"] for watch in api.watches()] == ["1", "40"]
    assert len(api.lists()) == 1


def test_a_version_that_is_too_old_lists_again(api: ApiServer) -> None:
    with Followed(api.address) as followed:
        assert names(followed.next()) == []
        api.items, api.version = [thing("a", 50)], 50
        api.events.put({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}})
        api.events.put("end")
        assert names(followed.next()) == ["a"]
        api.watching.acquire(timeout=60)
        api.watching.acquire(timeout=60)
        api.answers.append((410, {"message": "too old resource version"}))
        api.events.put("end")
        assert names(followed.next()) == ["a"]


def test_server_errors_are_retried_and_named(api: ApiServer) -> None:
    api.answers += [(500, {"message": "etcd is away"}), (403, {"message": "things is forbidden"})]
    with Followed(api.address) as followed:
        assert names(followed.next()) == []
        assert followed.source.troubles() == {}


def test_a_refusal_stays_visible_and_is_not_synced(api: ApiServer) -> None:
    api.answers += [(403, {"message": "things is forbidden"})] * 1000
    with Followed(api.address) as followed:
        while "Thing" not in (troubles := followed.source.troubles()):
            pass
        assert "things is forbidden" in str(troubles["Thing"])
        assert "role" in str(troubles["Thing"])
        assert not followed.source.synced()


def test_a_kind_that_is_not_defined_counts_as_empty(api: ApiServer) -> None:
    api.answers += [(404, {"message": "no such resource"}), (404, {"message": "no such definition"})]
    with Followed(api.address, definition="things.example.com") as followed:
        assert names(followed.next()) == []
        assert followed.source.synced()
        assert "Thing" in followed.source.troubles()


def test_a_404_that_cannot_be_explained_is_believed_when_it_comes_again(api: ApiServer) -> None:
    """An API server that is only starting, or one that says nothing of definitions."""
    for definition, refused in (("", []), ("things.example.com", [(403, {})])):
        api.answers += [(404, {}), *refused] * ABSENT_AFTER
        with Followed(api.address, definition=definition) as followed:
            assert names(followed.next()) == []
            assert api.answers == []


def test_a_short_404_does_not_drop_what_is_known(api: ApiServer) -> None:
    api.items = [thing("kept", 1)]
    with Followed(api.address) as followed:
        assert names(followed.next()) == ["kept"]
        api.answers += [(404, {}), (404, {})]
        api.events.put("end")
        assert names(followed.next()) == ["kept"]


def test_silence_is_taken_for_a_dead_connection(api: ApiServer) -> None:
    with Followed(api.address, silence_seconds=0.3) as followed:
        followed.next()
        for _ in range(2):
            assert api.watching.acquire(timeout=60)


def test_events_that_are_split_or_joined_on_the_wire(api: ApiServer) -> None:
    with Followed(api.address) as followed:
        followed.next()
        first, second = (b'{"type":"ADDED","object":{"metadata":{"name":"%s"}}}' % name for name in (b"a", b"b"))
        api.events.put(first[:20])
        api.events.put(first[20:] + b"\n" + second + b"\n")
        found = [followed.next(), followed.next()]
        assert [e.object["metadata"]["name"] for e in found if isinstance(e, Changed)] == ["a", "b"]


def test_a_failing_consumer_does_not_end_the_watch(api: ApiServer) -> None:
    seen: queue.Queue[Event] = queue.Queue()

    def consumer(event: Event) -> None:
        seen.put(event)
        if isinstance(event, Changed) and event.resource_version == 2:
            raise RuntimeError("a bug")

    source = Source([THINGS], connect(api.address), random=lambda: 0.0)
    source.start(consumer)
    try:
        assert isinstance(seen.get(timeout=60), Listed)
        api.events.put({"type": "ADDED", "object": thing("a", 2)})
        assert isinstance(seen.get(timeout=60), Changed)
        assert isinstance(seen.get(timeout=60), Listed)
    finally:
        source.stop()


def test_apply_writes_what_server_side_apply_takes(api: ApiServer) -> None:
    client: Client = connect(api.address)
    client.apply("/api/v1/namespaces/default/configmaps/a", {"data": {"k": "v"}})
    client.post("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {}})
    (method, path, content_type, body), posted = api.written
    assert (method, content_type, body) == ("PATCH", "application/apply-patch+yaml", {"data": {"k": "v"}})
    assert "fieldManager=heddle" in path
    assert posted[0] == "POST"


def test_nobody_listens() -> None:
    client = connect("http://127.0.0.1:9")
    with pytest.raises(Exception, match=r"127\.0\.0\.1:9 does not answer.*is the address right"):
        client.get("/api/v1/pods")


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_backoff_is_bounded_and_never_zero(failures: int, random: float) -> None:
    assert 0.05 < backoff(failures, random) <= LONGEST_RETRY


def test_paths_and_numbers() -> None:
    assert list_path("", "v1", "pods") == "/api/v1/pods"
    assert list_path("apps", "v1", "deployments", "default") == "/apis/apps/v1/namespaces/default/deployments"
    assert number("17") == 17
    assert number("not a number") == 0
