"""The engine's store: versions, watches, and writes that change nothing."""

from __future__ import annotations

import itertools
import threading

import pytest

from local.store import HISTORY, Raw, Store, key_of
from mesh.errors import Gone
from mesh.objects import Key


@pytest.fixture
def store() -> Store:
    numbers = itertools.count(1)
    return Store(uid=lambda: f"uid-{next(numbers)}", now=lambda: "2026-01-01T00:00:00Z")


def config(name: str, **data: str) -> Raw:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "n", "name": name}, "data": data}


def test_a_write_gets_uid_time_and_version(store: Store) -> None:
    first = store.put(config("a"))
    second = store.put(config("b"))
    assert first["metadata"]["uid"] == "uid-1"
    assert first["metadata"]["creationTimestamp"] == "2026-01-01T00:00:00Z"
    assert (first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]) == ("1", "2")
    assert store.version == 2


def test_an_update_keeps_uid_and_status(store: Store) -> None:
    store.put({**config("a"), "status": {"phase": "x"}})
    changed = store.put(config("a", key="new"))
    assert changed["metadata"]["uid"] == "uid-1"
    assert changed["status"] == {"phase": "x"}
    assert changed["data"] == {"key": "new"}


def test_writing_what_is_there_changes_nothing(store: Store) -> None:
    first = store.put(config("a", key="v"))
    assert store.put(config("a", key="v")) is first
    assert store.version == 1


def test_a_stored_object_is_not_changed_by_later_writes(store: Store) -> None:
    first = store.put(config("a", key="v"))
    store.put(config("a", key="w"))
    store.delete("ConfigMap", key_of(first))
    assert first["data"] == {"key": "v"}
    assert first["metadata"]["resourceVersion"] == "1"


def test_watch_tells_every_write_of_its_kinds_once_and_in_order(store: Store) -> None:
    store.put(config("a"))
    store.put({"kind": "Secret", "metadata": {"namespace": "n", "name": "s"}})
    store.put(config("a", key="v"))
    store.delete("ConfigMap", Key("n", "a"))
    events = list(store.watch(frozenset(("ConfigMap",)), 0, timeout=0))
    assert [(e.type, e.version) for e in events] == [("ADDED", 1), ("MODIFIED", 3), ("DELETED", 4)]
    assert list(store.watch(frozenset(("ConfigMap",)), 4, timeout=0)) == []


def test_watch_wakes_on_a_write_by_another_thread(store: Store) -> None:
    seen: list[str] = []

    def read() -> None:
        for event in store.watch(frozenset(("ConfigMap",)), 0, timeout=60):
            seen.append(event.object["metadata"]["name"])
            if len(seen) == 2:
                return

    reader = threading.Thread(target=read)
    reader.start()
    store.put(config("a"))
    store.put(config("b"))
    reader.join(60)
    assert seen == ["a", "b"]


def test_a_reader_that_is_too_far_behind_is_told_to_list_again(store: Store) -> None:
    for number in range(HISTORY + 2):
        store.put(config("a", key=str(number)))
    with pytest.raises(Gone, match="too old"):
        list(store.watch(frozenset(("ConfigMap",)), 1, timeout=0))


def test_update_of_what_is_not_there(store: Store) -> None:
    assert store.update("ConfigMap", Key("n", "none"), lambda raw: raw) is None
    assert store.delete("ConfigMap", Key("n", "none")) is None
    assert store.version == 0
