"""Keeps `istio-ca-root-cert` where root_maps.py says: watches, decides, and queues what has to be written.

Every replica does it: writes are server-side apply of the same content, so the second one changes nothing, and nobody
has to be elected. A map that somebody else keeps changing back is written again ever less often.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from ca.root_maps import NAME, NamespaceFacts, carried, namespace_facts, root_map, to_write
from kube.client import Client
from kube.source import Changed, Event, Listed, Source, Watched, backoff, list_path
from kube.write_behind import WriteBehind
from mesh.errors import NotFound
from mesh.objects import SIDECAR_STATUS_ANNOTATION
from svid.material import TrustBundle

WRITES_PER_SECOND = 50.0
CALM_SECONDS = 600.0  # without a write, after which a namespace is no longer taken for contested
AT_ONCE = 3  # writes in a row before the pauses begin


class RootKeeper:
    """`bundle()` is the current one. Feed it events with `take`, or `start` watches that do."""

    def __init__(
        self,
        client: Client,
        bundle: Callable[[], TrustBundle],
        control_namespace: str,
        ending: Callable[[], bool] = lambda: False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ending`: whether this replica is about to end, and should write no more."""
        self._client = client
        self._bundle = bundle
        self._home = control_namespace
        self._ending = ending
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._namespaces: dict[str, NamespaceFacts] = {}
        self._maps: dict[str, Mapping[str, Any]] = {}
        self._listed: set[str] = set()
        self._injected: dict[tuple[str, str], None] = {}
        self._with_pods: Counter[str] = Counter()
        self._writes: dict[str, tuple[int, float]] = {}
        self._later: set[str] = set()
        self._queue = WriteBehind("istio-ca-root-cert", self._write, limit=100_000, per_second=WRITES_PER_SECOND)
        self._stopping = threading.Event()

    def start(self) -> Source:
        """Watch namespaces and the ConfigMaps of that name. Pods come by `take_pod`, from the watch that there is."""
        self._queue.start()
        maps = {"fieldSelector": f"metadata.name={NAME}"}
        source = Source(
            [
                Watched("Namespace", list_path("", "v1", "namespaces")),
                Watched("ConfigMap", list_path("", "v1", "configmaps"), maps),
            ],
            self._client,
        )
        source.start(self.take)
        threading.Thread(target=self._retry, name="root-maps", daemon=True).start()
        return source

    def stop(self) -> None:
        self._stopping.set()
        self._queue.stop()

    def take(self, event: Event) -> None:
        """One event of namespaces, ConfigMaps or pods."""
        with self._lock:
            if event.kind == "Namespace":
                self._take_namespace(event)
            elif event.kind == "ConfigMap":
                self._take_map(event)
            elif event.kind == "Pod" and not self._take_pod(event):
                return
        self.check()

    def check(self) -> None:
        """Queue what has to be written by now; also after the bundle has changed."""
        bundle = self._bundle()
        with self._lock:
            if not {"Namespace", "ConfigMap"} <= self._listed:
                return  # half a view would write what is there already
            for namespace in to_write(self._namespaces, self._with_pods, self._maps, bundle, self._home):
                if self._contested(namespace):
                    self._later.add(namespace)
                else:
                    self._queue.offer(namespace, namespace)

    def carriers(self) -> dict[str, int | None] | None:
        """The maps that there should be (`namespace/name`), and the sequence of the bundle that each has; None for one
        that is missing or is not as it should be. None in all before the maps are known."""
        bundle = self._bundle()
        with self._lock:
            if not {"Namespace", "ConfigMap"} <= self._listed:
                return None
            found = carried(self._namespaces, self._with_pods, self._maps, bundle, self._home)
        return {f"{namespace}/{NAME}": sequence for namespace, sequence in found.items()}

    def _contested(self, namespace: str) -> bool:
        """Whether to wait with this one, because it was written and changed back too often."""
        count, last = self._writes.get(namespace, (0, float("-inf")))
        since = self._monotonic() - last
        return count > AT_ONCE and since < min(CALM_SECONDS, 10 * backoff(count - AT_ONCE, 1.0))

    def _retry(self) -> None:
        while not self._stopping.wait(1.0):
            if self._later:
                self._later.clear()
                self.check()

    def _write(self, namespace: str) -> None:
        count, last = self._writes.get(namespace, (0, float("-inf")))
        now = self._monotonic()
        self._writes[namespace] = (count + 1 if now - last < CALM_SECONDS else 1, now)
        path = f"/api/v1/namespaces/{namespace}/configmaps/{NAME}"
        if self._ending():
            return
        try:
            written = self._client.apply(path, root_map(namespace, self._bundle()))
        except NotFound:
            return  # the namespace has gone meanwhile
        with self._lock:
            self._maps[namespace] = written

    def _take_namespace(self, event: Event) -> None:
        match event:
            case Listed(objects=objects):
                self._namespaces = {_name(raw): namespace_facts(raw) for raw in objects}
                self._listed.add("Namespace")
            case Changed(object=raw, deleted=True):
                self._namespaces.pop(_name(raw), None)
                self._writes.pop(_name(raw), None)
            case Changed(object=raw):
                self._namespaces[_name(raw)] = namespace_facts(raw)

    def _take_map(self, event: Event) -> None:
        match event:
            case Listed(objects=objects):
                self._maps = {_namespace(raw): raw for raw in objects}
                self._listed.add("ConfigMap")
            case Changed(object=raw, deleted=True):
                self._maps.pop(_namespace(raw), None)
            case Changed(object=raw):
                self._maps[_namespace(raw)] = raw

    def _take_pod(self, event: Event) -> bool:
        """Whether other namespaces have injected pods now; most events of pods change nothing here."""
        before = set(self._with_pods)
        match event:
            case Listed(objects=objects):
                self._injected = {(_namespace(raw), _name(raw)): None for raw in objects if _is_injected(raw)}
                self._with_pods = Counter(namespace for namespace, _ in self._injected)
            case Changed(object=raw, deleted=deleted):
                self._note_pod((_namespace(raw), _name(raw)), injected=not deleted and _is_injected(raw))
        return before != self._with_pods.keys()

    def _note_pod(self, pod: tuple[str, str], *, injected: bool) -> None:
        if injected and pod not in self._injected:
            self._injected[pod] = None
            self._with_pods[pod[0]] += 1
        elif not injected and pod in self._injected:
            del self._injected[pod]
            self._with_pods[pod[0]] -= 1
            if not self._with_pods[pod[0]]:
                del self._with_pods[pod[0]]


def _is_injected(pod: Mapping[str, Any]) -> bool:
    return SIDECAR_STATUS_ANNOTATION in ((pod.get("metadata") or {}).get("annotations") or {})


def _name(raw: Mapping[str, Any]) -> str:
    name: str = (raw.get("metadata") or {}).get("name", "")
    return name


def _namespace(raw: Mapping[str, Any]) -> str:
    namespace: str = (raw.get("metadata") or {}).get("namespace", "")
    return namespace
