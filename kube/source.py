"""List and watch: everything of some kinds, kept current, delivered as events.

One thread a kind (a greenlet, in a gevent-patched process). A kind's first list comes as one `Listed`, so that nobody
sees half of it; then one `Changed` each. A watch that ends is resumed where it ended; when the server no longer knows
that point (410), everything is listed again, and `Listed` replaces all that was known of that kind. While the server
cannot be reached nothing is delivered: what was known stays.
Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import random as _random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from kube.client import Client
from mesh.errors import Gone, HeddleError, NotFound, Unavailable

# The server ends a watch before its silence would be taken for a dead connection: while nothing of a kind changes, not
# even a bookmark is sent where etcd does not report its progress.
WATCH_SECONDS = 120.0
SILENCE_SECONDS = 150.0
FIRST_RETRY = 0.2
LONGEST_RETRY = 10.0
ABSENT_RETRY = 4.0
ABSENT_AFTER = 5  # times in a row that the server does not know a kind, before that is believed
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

log = structlog.get_logger("kube")


@dataclass(frozen=True, slots=True)
class Watched:
    """A kind and where its objects are; `query` may hold a field or label selector.

    `definition`: the name of the CustomResourceDefinition that it comes from, `virtualservices.networking.istio.io`.
    """

    kind: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    definition: str = ""
    metadata_only: bool = False
    """Of each object its metadata, which is much less where the rest is not looked at (`PartialObjectMetadata`)."""


@dataclass(frozen=True, slots=True)
class Listed:
    """All objects of `kind` that there are, as raw JSON. Replaces what was known."""

    kind: str
    objects: tuple[Mapping[str, Any], ...]
    resource_version: int


@dataclass(frozen=True, slots=True)
class Changed:
    """One object was created, changed or deleted."""

    kind: str
    object: Mapping[str, Any]
    deleted: bool
    resource_version: int
    created: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """Nothing of `kind` changed up to `resource_version` (a bookmark)."""

    kind: str
    resource_version: int


Event = Listed | Changed | Progress


def list_path(group: str, version: str, plural: str, namespace: str = "") -> str:
    """The path of all objects of a kind, of one namespace if given; `group` is empty for core kinds."""
    base = f"/apis/{group}/{version}" if group else f"/api/{version}"
    return f"{base}/namespaces/{namespace}/{plural}" if namespace else f"{base}/{plural}"


def backoff(failures: int, random: float) -> float:
    """Seconds to wait after the n-th failure in a row: doubles up to `LONGEST_RETRY`, the upper half at random."""
    return min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(failures - 1, 16)) * (0.5 + 0.5 * random)


@dataclass(slots=True)
class _State:
    """Where one kind's watch is."""

    version: str = ""
    listed: bool = False
    failures: int = 0
    missing: int = 0
    trouble: HeddleError | None = None
    shut: Callable[[], None] | None = None


class Source:
    """Watches `kinds` through `client`."""

    def __init__(
        self,
        kinds: Iterable[Watched],
        client: Client,
        *,
        random: Callable[[], float] = _random.random,
        monotonic: Callable[[], float] = time.monotonic,
        watch_seconds: float = WATCH_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self._client = client
        self._random, self._monotonic = random, monotonic
        self._watch_seconds, self._silence_seconds = watch_seconds, silence_seconds
        self._watches = [(watched, _State()) for watched in kinds]
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, on_event: Callable[[Event], None]) -> None:
        """Begin. `on_event` is called from one thread a kind, so from several at once."""
        for watched, state in self._watches:
            thread = threading.Thread(
                target=self._run, args=(watched, state, on_event), name=f"watch-{watched.kind}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End every watch and wait for its thread."""
        self._stopping.set()
        for _, state in self._watches:
            if state.shut is not None:
                state.shut()
        for thread in self._threads:
            thread.join(self._silence_seconds)

    def synced(self) -> bool:
        """Whether every kind's first list was delivered. A kind that is not defined counts as empty; one that is, and
        is not served at the moment, does not: nobody knows which objects it has."""
        return all(state.listed for _, state in self._watches)

    def troubles(self) -> dict[str, HeddleError]:
        """Kinds that cannot be listed or watched at the moment, and why."""
        return {watched.kind: state.trouble for watched, state in self._watches if state.trouble is not None}

    def _run(self, watched: Watched, state: _State, on_event: Callable[[Event], None]) -> None:
        while not self._stopping.is_set():
            began = self._monotonic()
            try:
                self._follow(watched, state, on_event)
            except Gone:
                log.info("the API server forgot where this watch was; listing again", kind=watched.kind)
                state.version = ""
            except NotFound as error:
                self._absent(watched, state, on_event, error)
                continue
            except HeddleError as error:
                state.trouble = error
                if not self._stopping.is_set():
                    log.warning("watch interrupted, will try again", kind=watched.kind, error=str(error))
            except Exception:  # a bug on one object or event must not end the watch
                log.exception("watch failed, listing again", kind=watched.kind)
                state.version = ""
            if self._monotonic() - began >= 1.0 and state.trouble is None:
                state.failures = 0
                continue
            state.failures += 1
            self._stopping.wait(backoff(state.failures, self._random()))

    def _follow(self, watched: Watched, state: _State, on_event: Callable[[Event], None]) -> None:
        """List if need be, then watch until the stream ends."""
        if not state.version:
            state.version = self._list(watched, on_event)
            state.listed, state.missing, state.trouble, state.failures = True, 0, None, 0

        def opened(shut: Callable[[], None]) -> None:
            state.trouble, state.shut = None, shut
            if self._stopping.is_set():
                shut()

        try:
            for raw in self._client.watch(
                watched.path,
                state.version,
                query=watched.query,
                lasts=self._watch_seconds * (0.9 + 0.2 * self._random()),
                silence=self._silence_seconds,
                opened=opened,
                metadata_only=watched.metadata_only,
            ):
                event = self._event(watched, raw)
                on_event(event)
                state.version, state.failures = _version(raw), 0
        finally:
            state.shut = None

    def _list(self, watched: Watched, on_event: Callable[[Event], None]) -> str:
        objects: list[Mapping[str, Any]] = []
        version = ""
        for page in self._client.list(watched.path, watched.query, metadata_only=watched.metadata_only):
            objects.extend(page.items)
            version = page.resource_version
        on_event(Listed(watched.kind, tuple(objects), number(version)))
        return version or "0"

    def _event(self, watched: Watched, raw: Mapping[str, Any]) -> Event:
        what = raw.get("object") or {}
        version = number(_version(raw))
        match raw.get("type"):
            case "ADDED" | "MODIFIED" as said:
                return Changed(watched.kind, what, False, version, created=said == "ADDED")
            case "DELETED":
                return Changed(watched.kind, what, deleted=True, resource_version=version)
            case "BOOKMARK":
                return Progress(watched.kind, version)
            case "ERROR" if what.get("code") == 410:
                raise Gone(what.get("message", "too old resource version"))
            case other:
                raise HeddleError(f"the watch of {watched.path} says {other}: {what.get('message', what)}")

    def _absent(self, watched: Watched, state: _State, on_event: Callable[[Event], None], error: NotFound) -> None:
        """The server does not know the kind: its definition is not installed or not served yet, or the server is only
        starting. What is known of it, and that nothing is, stays until that is certain."""
        state.missing += 1
        state.version = ""
        defined = self._defined(watched)
        if defined:
            how = "it is defined and not served at the moment"
            state.trouble = Unavailable(f"{watched.kind}: {how}", hint=f"kubectl describe crd {watched.definition}")
            log.warning(how, kind=watched.kind)
            self._stopping.wait(min(ABSENT_RETRY, backoff(state.missing, self._random())))
        elif state.missing >= ABSENT_AFTER or (defined is False and not state.listed):
            state.trouble, state.listed = error, True
            on_event(Listed(watched.kind, (), 0))
            log.warning("the API server does not know this kind; will look again", kind=watched.kind)
            self._stopping.wait(ABSENT_RETRY * (0.5 + 0.5 * self._random()))
        else:
            self._stopping.wait(backoff(state.missing, self._random()))

    def _defined(self, watched: Watched) -> bool | None:
        """Whether the kind's definition has the version that is watched, so that there may be objects of it; None where
        that cannot be found out."""
        if not watched.definition:
            return None
        try:
            definition = self._client.get(f"{DEFINITIONS}/{watched.definition}")
        except NotFound:
            return False
        except HeddleError:
            return None
        version = watched.path.split("/")[3]  # /apis/<group>/<version>/<plural>
        return any(each["name"] == version for each in definition["spec"]["versions"])


def number(resource_version: str) -> int:
    """The version as a number; 0 for what is none (whole numbers that grow: KEP-5504)."""
    return int(resource_version) if resource_version.isdecimal() else 0


def _version(raw: Mapping[str, Any]) -> str:
    version: str = ((raw.get("object") or {}).get("metadata") or {}).get("resourceVersion", "")
    return version
