"""The engine's objects: what etcd and the API server's storage are on a cluster.

Objects are Kubernetes' JSON as plain dicts, never changed in place: a write replaces. One version counter for the whole
store gives each write its `metadata.resourceVersion`, so "everything up to version N" means the same to every reader.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mesh.errors import Gone
from mesh.objects import Key

Raw = dict[str, Any]
HISTORY = 4096


@dataclass(frozen=True, slots=True)
class Event:
    """One write: `type` is ADDED, MODIFIED or DELETED, as a Kubernetes watch says it."""

    type: str
    kind: str
    object: Raw
    version: int


def key_of(raw: Raw) -> Key:
    meta = raw.get("metadata") or {}
    return Key(meta.get("namespace", ""), meta.get("name", ""))


class Store:
    """Thread-safe. `uid` makes a new object's UID, `now` its RFC 3339 creation time."""

    def __init__(self, uid: Callable[[], str], now: Callable[[], str]) -> None:
        self._uid, self._now = uid, now
        self._changed = threading.Condition(threading.RLock())  # update() calls put()
        self._objects: dict[str, dict[Key, Raw]] = {}
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._version = 0

    @property
    def version(self) -> int:
        return self._version

    def get(self, kind: str, key: Key) -> Raw | None:
        return self._objects.get(kind, {}).get(key)

    def items(self, kind: str) -> list[Raw]:
        with self._changed:
            return list(self._objects.get(kind, {}).values())

    def items_with_version(self, kind: str) -> tuple[list[Raw], int]:
        with self._changed:
            return list(self._objects.get(kind, {}).values()), self._version

    def put(self, raw: Raw) -> Raw:
        """Store `raw` under its kind and key; a `raw` without status keeps the stored one.

        What the server owns (uid, creation, version) is filled in or kept. Writing what is there already does nothing,
        so that writers may simply state what they want.
        """
        kind, key = raw["kind"], key_of(raw)
        with self._changed:
            old = self._objects.get(kind, {}).get(key)
            stored = self._complete(raw, old)
            if old is not None and _same(old, stored):
                return old
            return self._write("MODIFIED" if old is not None else "ADDED", kind, key, stored)

    def update(self, kind: str, key: Key, change: Callable[[Raw], Raw]) -> Raw | None:
        """Replace the object by `change(object)` under the lock; None if there is no such object."""
        with self._changed:
            old = self._objects.get(kind, {}).get(key)
            return None if old is None else self.put(change(old))

    def delete(self, kind: str, key: Key) -> Raw | None:
        """Remove the object; None if there was none."""
        with self._changed:
            old = self._objects.get(kind, {}).get(key)
            if old is None:
                return None
            return self._write("DELETED", kind, key, {**old, "metadata": dict(old["metadata"])})

    def watch(self, kinds: frozenset[str], since: int, timeout: float) -> Iterator[Event]:
        """Events of `kinds` after version `since`, as they come; ends after `timeout` seconds without one.

        Raises Gone when the history no longer reaches back to `since` (the reader lists again).
        """
        while True:
            with self._changed:
                batch = self._wait_since(kinds, since, timeout)
            if not batch:
                return
            for event in batch:
                since = event.version
                yield event

    def wait_newer(self, version: int, timeout: float) -> int:
        """Block until anything newer than `version` is written, or `timeout` seconds; the version then."""
        with self._changed:
            self._changed.wait_for(lambda: self._version > version, timeout)
            return self._version

    def _wait_since(self, kinds: frozenset[str], since: int, timeout: float) -> list[Event]:
        batch: list[Event] = []

        def newer() -> bool:
            batch[:] = self._since(kinds, since)
            return bool(batch)

        self._changed.wait_for(newer, timeout)
        return batch

    def _since(self, kinds: frozenset[str], since: int) -> list[Event]:
        if not self._history or self._history[-1].version <= since:
            return []
        if self._history[0].version > since + 1 and len(self._history) == HISTORY:
            raise Gone(f"version {since} is too old", hint="list again")
        newer: list[Event] = []
        for event in reversed(self._history):
            if event.version <= since:
                break
            if event.kind in kinds:
                newer.append(event)
        return newer[::-1]

    def _complete(self, raw: Raw, old: Raw | None) -> Raw:
        meta = dict(raw.get("metadata") or {})
        before = old["metadata"] if old is not None else {}
        meta["uid"] = before.get("uid") or meta.get("uid") or self._uid()
        meta["creationTimestamp"] = before.get("creationTimestamp") or self._now()
        meta.pop("resourceVersion", None)
        kept = {"status": old["status"]} if old is not None and "status" in old and "status" not in raw else {}
        return {**raw, **kept, "metadata": meta}

    def _write(self, event: str, kind: str, key: Key, raw: Raw) -> Raw:
        self._version += 1
        raw["metadata"]["resourceVersion"] = str(self._version)
        of_kind = self._objects.setdefault(kind, {})
        if event == "DELETED":
            del of_kind[key]
        else:
            of_kind[key] = raw
        self._history.append(Event(event, kind, raw, self._version))
        self._changed.notify_all()
        return raw


def _same(old: Raw, new: Raw) -> bool:
    without = {k: v for k, v in old["metadata"].items() if k != "resourceVersion"}
    return without == new["metadata"] and {**old, "metadata": None} == {**new, "metadata": None}
