"""Manifest files into the store, and again whenever they change.

A file that cannot be read, or an object in it that is wrong, changes nothing of what was in force before: the problem
is kept in `problems` for `heddle status`, and every other object is applied. What is gone from the files is removed
only when it stays away for a moment, since editors empty or rename a file before they write it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import structlog
import watchfiles

from local.manifests import At, Desired, at, desired
from local.store import Raw, Store
from mesh.errors import InvalidInput
from mesh.manifest import Document, read_manifest
from mesh.objects import Key

SUFFIXES = (".yaml", ".yml", ".json")
SETTLE_MILLISECONDS = 2
TICK_MILLISECONDS = 200
AWAY_SECONDS = 0.5
"""So long an object must be gone from the files before it is removed."""
log = structlog.get_logger("heddle.local")

# What tells that a file is another one or has changed: time of change, size, inode.
_State = tuple[int, int, int]
_NONE: _State = (0, 0, 0)

OnChange = Callable[[Mapping[str, int], list[Path]], None]
"""Gets the newest version that was written of each kind (pods, which are admitted first, are not among them), and the
files that changed."""


def manifest_files(paths: Sequence[Path]) -> list[Path]:
    """The files meant by `-f`: a file itself, or every YAML and JSON file directly in a directory, by name.

    InvalidInput when a path is missing, cannot be read, or holds no manifest.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        for file in _files(path):
            found.setdefault(file.resolve(), file)
    if not found:
        names = ", ".join(map(str, paths))
        raise InvalidInput(f"no manifest in {names}", field="-f", hint=f"files must end in {', '.join(SUFFIXES)}")
    return list(found.values())


def _files(path: Path) -> list[Path]:
    try:
        if path.is_dir():
            return sorted(child for child in path.iterdir() if child.suffix in SUFFIXES and child.is_file())
        if path.is_file():
            return [path]
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", field="-f", hint="check its rights") from error
    if path.exists():
        hint = "write it to a file: it is read again at each change"
        raise InvalidInput(f"{path} is neither a file nor a directory", field="-f", hint=hint)
    raise InvalidInput(f"there is no file or directory {path}", field="-f", hint="check the path")


class Manifests:
    """Keeps the store as the files say. `create_pod` and `remove_pod` are the engine's: pods are more than stored.

    `reserved`: the engine's own objects, which no manifest changes.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        store: Store,
        *,
        create_pod: Callable[[Raw], None],
        remove_pod: Callable[[Key], None],
        say: Callable[[str], None],
        reserved: frozenset[At] = frozenset(),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths, self._store, self._reserved = paths, store, reserved
        self._create_pod, self._remove_pod, self._say, self._monotonic = create_pod, remove_pod, say, monotonic
        self._applied: dict[At, Raw] = {}
        self._by_file: dict[Path, tuple[Document, ...]] = {}
        self._by_path: dict[Path, list[Path]] = {}
        self._states: dict[Path, _State] = {}
        self._lost: set[Path] = set()
        self._away: dict[At, float] = {}
        self._touched: set[Path] = set()  # since the last change: what is removed was taken out of its file before
        self._told: set[str] = set()
        self._written: dict[str, int] = {}
        self.problems: tuple[str, ...] = ()
        """What is wrong in the files now."""

    def load(self) -> bool:
        """Read everything and apply what changed; whether anything did.

        The first time, InvalidInput when there is nothing to read; later, what was read before stays in force.
        """
        if not self._by_path:
            manifest_files(self._paths)
        problems: list[str] = []
        notices: list[str] = []
        documents: list[Document] = []
        states: dict[Path, _State] = {}
        for path in self._present(problems):
            states[path] = self._state(path)
            documents += self._read(path, problems, notices)
        self._states = states
        wanted = desired(documents, self._reserved)
        changed = self._apply(wanted)
        before, self.problems = self.problems, (*problems, *map(str, wanted.refused))
        self._told -= set(before) - set(self.problems)  # what is mended and comes back is said again
        for line in (*self.problems, *notices, *wanted.notices):
            self._tell(line)
        return changed

    def follow(self, on_change: OnChange, stop: threading.Event) -> None:
        """Load again after every change, until `stop`; see `OnChange`."""
        while not stop.is_set():
            try:
                for paths in self._changes(stop):
                    self._load_again(paths, on_change)
            except OSError:  # a directory that went away cannot be watched; the ticks tell when it is back
                self._load_again([], on_change)
                stop.wait(TICK_MILLISECONDS / 1000)

    def _changes(self, stop: threading.Event) -> Iterator[list[Path]]:
        """Files that changed; also when no event said so: a directory was replaced, or a link leads elsewhere."""
        # A file's directory is watched, not the file: what is renamed over it would be another file.
        folders = {path if path.is_dir() else path.parent for path in self._paths}
        named = {str(path) for path in self._paths}
        before = _identities(folders)
        for changes in watchfiles.watch(
            *folders,
            watch_filter=lambda _, name: name in named or name.endswith(SUFFIXES),
            stop_event=stop,
            debounce=SETTLE_MILLISECONDS * 10,
            step=SETTLE_MILLISECONDS,
            rust_timeout=TICK_MILLISECONDS,
            yield_on_timeout=True,
            recursive=False,
            raise_interrupt=False,
        ):
            files = sorted({Path(name) for _, name in changes} & self._mine(changes))
            if files:
                yield files
            elif self._away or self._differs():
                yield []
            if _identities(folders) != before:
                return  # watch again what stands there now

    def _mine(self, changes: set[tuple[watchfiles.Change, str]]) -> set[Path]:
        """Of the changed files those that `-f` means."""
        folders = {path for path in self._paths if path.is_dir()}
        named = set(self._paths) - folders
        return {path for _, name in changes if (path := Path(name)) in named or path.parent in folders}

    def _differs(self) -> bool:
        return {path: self._state(path) for path in self._present([])} != self._states

    def _state(self, path: Path) -> _State:
        """What the file that is read next is. What is read from memory is none, though it may be back by now."""
        return _NONE if path in self._lost else _state(path)

    def _load_again(self, files: list[Path], on_change: OnChange) -> None:
        before, held, began = self._states, dict(self._by_file), self._monotonic()
        changed = self.load()
        both = {*before, *self._states}
        self._touched |= {*files, *(path for path in both if before.get(path) != self._states.get(path))}
        if not changed:
            return
        # What was replaced while it was read has been read anew, and its state is still the one from before.
        self._touched |= {path for path, documents in self._by_file.items() if documents != held.get(path)}
        files, self._touched = sorted(self._touched), set()
        took = round(self._monotonic() - began, 4)
        log.info("manifests read again", files=[str(file) for file in files], seconds=took)
        on_change(dict(self._written), files)

    def _present(self, problems: list[str]) -> list[Path]:
        """The files that are there now, and those of a path of `-f` that went away, which are read from memory."""
        found: dict[Path, Path] = {}
        self._lost = set()
        for path in self._paths:
            try:
                self._by_path[path] = _files(path)
            except InvalidInput as error:
                problems.append(f"{error}; what it held stays in force")
                self._lost |= {path, *self._by_path.get(path, ())}
            for file in self._by_path.get(path, ()):
                found.setdefault(file.resolve(), file)
        return list(found.values())

    def _read(self, path: Path, problems: list[str], notices: list[str]) -> list[Document]:
        """The file's objects. Where some of it is no manifest, also what it held before and what is not in it now."""
        last = self._by_file.get(path, ())
        if path in self._lost:
            return list(last)
        try:
            manifest = read_manifest(path.read_text("utf-8"), str(path))
        except FileNotFoundError:
            return []  # it went away just now
        except OSError as error:
            problems.append(f"{path}: cannot be read: {error.strerror} (check its rights)")
            return list(last)
        except UnicodeDecodeError:
            problems.append(f"{path}: is not UTF-8 text (save it as UTF-8)")
            return list(last)
        wrong = [problem for problem in manifest.problems if path in self._paths or not problem.foreign]
        notices += [
            f"{problem.source}:{problem.line}: not a Kubernetes object: ignored"
            for problem in manifest.problems
            if problem not in wrong
        ]
        problems += map(str, wrong)
        documents = list(manifest.documents)
        if wrong:
            readable = {at(document) for document in documents}
            documents += [document for document in last if at(document) not in readable]
        self._by_file[path] = tuple(documents)
        return documents

    def _apply(self, wanted: Desired) -> bool:
        self._written = {}
        changed = [what for what, raw in wanted.objects.items() if self._applied.get(what) != raw]
        for what in changed:
            self._put(what, wanted.objects[what])
        gone = self._gone(wanted)
        for what in gone:
            self._delete(what)
        return bool(changed or gone)

    def _gone(self, wanted: Desired) -> list[At]:
        """What no file holds any more, and has not for a while; workloads and pods first."""
        refused = {(problem.kind, problem.key) for problem in wanted.refused}
        now = self._monotonic()
        homes = {key.namespace for _, key in refused}
        away = [
            (kind, key)
            for kind, key in self._applied
            if (kind, key) not in wanted.objects
            and (kind, key) not in refused
            and not (kind == "Namespace" and key.name in homes)  # its refused objects may still be in force
        ]
        self._away = {what: self._away.get(what, now) for what in away}
        gone = [what for what in reversed(away) if now - self._away[what] >= AWAY_SECONDS]
        for what in gone:
            del self._away[what]
        return gone

    def _put(self, what: At, raw: Raw) -> None:
        kind, key = what
        self._applied[what] = raw
        if kind == "Pod":
            self._create_pod(raw)
            return
        old = self._store.get(kind, key)
        self._note(self._store.put(_with_address(raw, old) if kind == "Service" and old is not None else raw))

    def _delete(self, what: At) -> None:
        kind, key = what
        del self._applied[what]
        if kind == "Pod":
            self._remove_pod(key)
        else:
            self._note(self._store.delete(kind, key))

    def _note(self, written: Raw | None) -> None:
        if written is not None:
            kind, version = written["kind"], int(written["metadata"]["resourceVersion"])
            self._written[kind] = max(version, self._written.get(kind, 0))

    def _tell(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self._say(line)


def _with_address(service: Raw, old: Raw) -> Raw:
    """The service with the address that it was given before, where the manifest leaves that open."""
    spec, given = service.get("spec") or {}, (old.get("spec") or {}).get("clusterIP")
    if "clusterIP" in spec or spec.get("type") == "ExternalName" or given in (None, "None"):
        return service
    return {**service, "spec": {**spec, "clusterIP": given, "clusterIPs": [given]}}


def _state(path: Path) -> _State:
    try:
        found = path.stat()
    except OSError:
        return _NONE
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _identities(folders: set[Path]) -> dict[Path, int]:
    """The inode of each directory; FileNotFoundError for one that is not there."""
    return {folder: folder.stat().st_ino for folder in folders}
