"""What admission warnings look at: a Snapshot of its own, kept current by watches, with the indexes of the analysis.

Of pods only the metadata is followed. Nobody waits for it: while something has not been read, nothing is said.
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
from mesh.analysis.view import View
from mesh.assembly import Assembly
from mesh.errors import HeddleError
from mesh.istio.base import IstioObject
from mesh.kinds import KINDS, watched_by
from mesh.objects import Key, Service, parse_meta
from mesh.settings import MeshSettings
from mesh.snapshot import Snapshot
from webhook.cluster import FOR_INJECTION

_NEWEST = "9999"
"""When an object was made that has no such time yet."""
_METADATA_ONLY = ("Pod",)
_API_VERSIONS = {kind.kind: kind.api_version for kind in KINDS}

log = structlog.get_logger("webhook")


def watched() -> tuple[Watched, ...]:
    """What to give to a `kube.source.Source`, beside what is followed for injection anyhow."""
    return tuple(
        Watched(kind.kind, kind.path, definition=kind.definition, metadata_only=kind.kind in _METADATA_ONLY)
        for kind in watched_by("webhook")
        if kind.kind not in FOR_INJECTION
    )


class Advice:
    """`on_event` is the listener of Sources; `synced` says whether everything has been read."""

    def __init__(self, settings: Callable[[], MeshSettings], synced: Callable[[], bool]) -> None:
        self._settings, self._synced = settings, synced
        self._lock = threading.Lock()
        self._assembly = Assembly()
        self._view = View(Snapshot())

    def on_event(self, event: Event) -> None:
        """Take in one event. Never raises because of an object."""
        with self._lock:
            if isinstance(event, Listed):
                self._assembly.clear(event.kind)
                for raw in event.objects:
                    self._put(event.kind, raw)
            elif isinstance(event, Changed) and event.deleted:
                self._assembly.drop(event.kind, parse_meta(event.object).key)
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
            snapshot = self._assembly.build()
            if snapshot is not self._view.snapshot:
                self._view = View(snapshot, before=self._view)
            return self._view

    def _put(self, kind: str, raw: Mapping[str, Any]) -> None:
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
    return View(changed, before=view)
