"""Manifest files into the store, and again whenever they change.

A file that cannot be read, or an object in it that is wrong, changes nothing of what was in force before: the problem
is kept in `problems` for `heddle status`, and every other object is applied.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
import watchfiles

from local.manifests import Desired, desired
from local.store import Raw, Store
from mesh.errors import InvalidInput
from mesh.manifest import Document, read_manifest
from mesh.objects import Key

SUFFIXES = (".yaml", ".yml", ".json")
SETTLE_MILLISECONDS = 2
log = structlog.get_logger("heddle.local")


def manifest_files(paths: Sequence[Path]) -> list[Path]:
    """The files meant by `-f`: a file itself, or every YAML and JSON file directly in a directory, by name."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(child for child in path.iterdir() if child.suffix in SUFFIXES and child.is_file())
        elif path.exists():
            found.append(path)
        else:
            raise InvalidInput(f"there is no file or directory {path}", field="-f", hint="check the path")
    if not found:
        names = ", ".join(map(str, paths))
        raise InvalidInput(f"no manifest in {names}", field="-f", hint=f"files must end in {', '.join(SUFFIXES)}")
    return found


class Manifests:
    """Keeps the store as the files say. `create_pod` and `remove_pod` are the engine's: pods are more than stored."""

    def __init__(
        self,
        paths: Sequence[Path],
        store: Store,
        *,
        create_pod: Callable[[Raw], None],
        remove_pod: Callable[[Key], None],
        check_pod: Callable[[str, Raw], list[str]],
        say: Callable[[str], None],
    ) -> None:
        self._paths, self._store = paths, store
        self._create_pod, self._remove_pod, self._check_pod, self._say = create_pod, remove_pod, check_pod, say
        self._applied: dict[tuple[str, Key], Raw] = {}
        self._by_file: dict[Path, tuple[Document, ...]] = {}
        self._told: set[str] = set()
        self.problems: tuple[str, ...] = ()

    def load(self) -> int:
        """Read everything and apply what changed; the store's version afterwards."""
        problems: list[str] = []
        documents: list[Document] = []
        present = manifest_files(self._paths)
        for path in present:
            try:
                manifest = read_manifest(path.read_text(), str(path))
            except (OSError, UnicodeDecodeError) as error:
                problems.append(f"{path}: cannot be read: {error}")
                documents += self._by_file.get(path, ())
                continue
            if manifest.problems:
                problems += map(str, manifest.problems)
                documents += self._by_file.get(path, ())
                continue
            self._by_file[path] = manifest.documents
            documents += manifest.documents
        wanted = desired(documents)
        self._apply(wanted)
        self.problems = (*problems, *map(str, wanted.refused))
        for line in (*self.problems, *wanted.notices):
            self._tell(line)
        return self._store.version

    def follow(self, on_change: Callable[[int, list[Path]], None], stop: threading.Event) -> None:
        """Load again after every change, until `stop`; `on_change` gets the store's version then and the files."""
        for changes in watchfiles.watch(
            *self._paths,
            stop_event=stop,
            debounce=SETTLE_MILLISECONDS * 10,
            step=SETTLE_MILLISECONDS,
            rust_timeout=1000,
            recursive=False,
            raise_interrupt=False,
        ):
            files = sorted({Path(path) for _, path in changes if Path(path).suffix in SUFFIXES})
            if not files:
                continue
            before, began = self._store.version, time.monotonic()
            try:
                self.load()
            except InvalidInput as error:
                self.problems = (str(error),)
                self._tell(str(error))
                continue
            log.info("manifests read again", files=[str(f) for f in files], seconds=round(time.monotonic() - began, 4))
            if self._store.version != before:
                on_change(self._store.version, files)

    def _apply(self, wanted: Desired) -> None:
        refused = {(problem.kind, problem.key) for problem in wanted.refused}
        for at, raw in wanted.objects.items():
            if self._applied.get(at) != raw:
                self._put(at, raw)
        for at in [at for at in self._applied if at not in wanted.objects and at not in refused]:
            self._delete(at)

    def _put(self, at: tuple[str, Key], raw: Raw) -> None:
        kind, key = at
        self._applied[at] = raw
        pod = raw if kind == "Pod" else (raw.get("spec") or {}).get("template")
        if kind in ("Pod", "Deployment", "ReplicaSet", "Job") and isinstance(pod, dict):
            for line in self._check_pod(f"{kind} {key}", pod):
                self._tell(line)
        if kind == "Pod":
            if self._store.get("Pod", key) is not None:
                self._remove_pod(key)
                self._await_gone(key)
            self._create_pod(raw)
            return
        old = self._store.get(kind, key)
        if kind == "Service" and old is not None and "clusterIP" not in (raw.get("spec") or {}):
            kept = {name: old["spec"][name] for name in ("clusterIP", "clusterIPs") if name in old["spec"]}
            raw = {**raw, "spec": {**raw["spec"], **kept}}
        self._store.put(raw)

    def _await_gone(self, key: Key) -> None:
        while self._store.get("Pod", key) is not None:
            time.sleep(0.02)

    def _delete(self, at: tuple[str, Key]) -> None:
        kind, key = at
        del self._applied[at]
        if kind == "Pod":
            self._remove_pod(key)
        else:
            self._store.delete(kind, key)

    def _tell(self, line: str) -> None:
        """Say a thing once; a problem that was mended and comes back is said again."""
        if line not in self._told:
            self._told.add(line)
            self._say(line)
