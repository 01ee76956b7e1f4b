"""What admission warnings look at: a Snapshot of its own, kept current by watches, with the indexes of the analysis.

Of pods, which are many and change all the time, only the metadata is followed, and of that the labels are kept. Nobody
waits for any of it: while something has not been read, nothing is said.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from kube.source import Changed, Event, Listed, Watched
from mesh.analysis.model import Finding
from mesh.analysis.registry import examine
from mesh.analysis.view import View, Workload, Workloads, workload_of
from mesh.assembly import Assembly
from mesh.errors import HeddleError
from mesh.istio.base import IstioObject
from mesh.kinds import KINDS, watched_by
from mesh.objects import Key, Service, parse_meta, parse_pod
from mesh.settings import MeshSettings
from mesh.snapshot import Snapshot
from webhook.cluster import FOR_INJECTION

_NEWEST = "9999"
"""When an object was made that has no such time yet."""
_PODS = "Pod"
_API_VERSIONS = {kind.kind: kind.api_version for kind in KINDS}

log = structlog.get_logger("webhook")


def watched() -> tuple[Watched, ...]:
    """What to give to a `kube.source.Source`, beside what is followed for injection anyhow."""
    return tuple(
        Watched(kind.kind, kind.path, definition=kind.definition, metadata_only=kind.kind == _PODS)
        for kind in watched_by("webhook")
        if kind.kind not in FOR_INJECTION
    )


class Pods:
    """The pods as workloads, by namespace. A namespace in which nothing changed has the tuple that it had before."""

    def __init__(self) -> None:
        self._pods: dict[str, dict[str, Workload]] = {}
        self._changed: set[str] = set()
        self._workloads: Workloads = {}

    def put(self, raw: Mapping[str, Any]) -> None:
        pod = workload_of(parse_pod(raw))
        self._pods.setdefault(pod.namespace, {})[pod.name] = pod
        self._changed.add(pod.namespace)

    def drop(self, key: Key) -> None:
        if self._pods.get(key.namespace, {}).pop(key.name, None) is not None:
            self._changed.add(key.namespace)

    def clear(self) -> None:
        self._changed |= self._pods.keys()
        self._pods = {}

    def now(self) -> Workloads:
        """The same object while nothing changed."""
        if self._changed:
            fresh = {name: tuple(self._pods.get(name, {}).values()) for name in self._changed}
            self._workloads = {name: those for name, those in {**self._workloads, **fresh}.items() if those}
            self._changed = set()
        return self._workloads


class Advice:
    """`on_event` is the listener of Sources; `synced` says whether everything has been read."""

    def __init__(self, settings: Callable[[], MeshSettings], synced: Callable[[], bool]) -> None:
        self._settings, self._synced = settings, synced
        self._lock = threading.Lock()
        self._assembly = Assembly()
        self._pods = Pods()
        self._view = View(Snapshot(), workloads={})

    def on_event(self, event: Event) -> None:
        """Take in one event. Never raises because of an object."""
        with self._lock:
            if isinstance(event, Listed):
                self._clear(event.kind)
                for raw in event.objects:
                    self._put(event.kind, raw)
            elif isinstance(event, Changed) and event.deleted:
                self._drop(event.kind, parse_meta(event.object).key)
            elif isinstance(event, Changed):
                self._put(event.kind, event.object)

    def advise(self, kind: str, thing: Any) -> Iterable[Finding]:
        """What is doubtful about `thing`, as if it were in the cluster already. Never raises: it is only advice."""
        try:
            if not self._synced():
                return ()
            thing = _made_last(thing)
            return list(examine(_with(self.view(), kind, thing), thing, at_admission=True))
        except Exception:
            log.exception("no advice", kind=kind)
            return ()

    def view(self) -> View:
        """As of now."""
        with self._lock:
            settings = self._settings()
            self._assembly.settings(settings)
            snapshot, workloads = self._assembly.build(), self._pods.now()
            if snapshot is not self._view.snapshot or workloads is not self._view.workloads:
                self._view = View(snapshot, workloads=workloads, before=self._view).indexed()
            return self._view

    def _clear(self, kind: str) -> None:
        self._pods.clear() if kind == _PODS else self._assembly.clear(kind)

    def _drop(self, kind: str, key: Key) -> None:
        self._pods.drop(key) if kind == _PODS else self._assembly.drop(kind, key)

    def _put(self, kind: str, raw: Mapping[str, Any]) -> None:
        if kind == _PODS:
            self._pods.put(raw)
            return
        try:
            # The items of a list may leave out what the list itself says.
            self._assembly.put(kind, {"apiVersion": _API_VERSIONS[kind], "kind": kind, **raw})
        except HeddleError as error:
            log.info("not among what is looked at", kind=kind, error=str(error))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
            log.warning("cannot be read", kind=kind, name=parse_meta(raw).name, error=why)


def _made_last(thing: Any) -> Any:
    return replace(thing, created=_NEWEST) if isinstance(thing, IstioObject) and not thing.created else thing


def _with(view: View, kind: str, thing: Any) -> View:
    """`view` with `thing` in it; what has nothing to do with its kind is shared."""
    snapshot = view.snapshot
    if isinstance(thing, Service):
        changed = snapshot.replacing(services={**snapshot.services, thing.meta.key: thing})
    else:
        objects = {**snapshot.of(kind), Key(thing.namespace, thing.name): thing}
        changed = snapshot.replacing(istio={**snapshot.istio, kind: objects})
    return View(changed, workloads=view.workloads, before=view)
