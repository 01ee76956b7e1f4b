"""What a container's root shows of this machine. Pure, given a listing of `/`; `local.launch` carries it out.

Every top-level directory of the machine appears with a writable layer of its own that is thrown away with the
container; `/home` and `/root` appear empty, as do `/tmp`, `/run`, `/mnt` and `/media`. The paths that programs need
(the Python environment, the project, the images file's folder) appear at their own places, read-only, also when they
lie below a hidden or private directory: then only they do. Why not one overlay of `/`: docs/adr/0020.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

_FRESH = ("tmp", "run", "home", "root", "mnt", "media")
_OWN = ("proc", "sys", "dev")  # mounted afresh by the launcher
_SKIPPED = ("lost+found",)


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in `/`: a symbolic link's target, or a directory that others may or may not search."""

    name: str
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Needed:
    """A path that must be visible; `private` is its shallowest ancestor that other users may not search, if any.

    `elsewhere`: it lies on another file system than its top-level directory, so that an overlay would not show it.
    """

    path: str
    private: str | None = None
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class RootPlan:
    """Steps in order: links, fresh directories, layered directories, emptied directories, then binds.

    `needed` must be seen even where a volume is mounted above it (a clone in /tmp, and a pod with an emptyDir there).
    """

    links: tuple[tuple[str, str], ...]
    fresh: tuple[str, ...]
    layered: tuple[str, ...]
    emptied: tuple[str, ...]
    binds: tuple[str, ...]
    masked: tuple[str, ...]
    needed: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "links": self.links,
            "fresh": self.fresh,
            "layered": self.layered,
            "emptied": self.emptied,
            "binds": self.binds,
            "masked": self.masked,
            "needed": self.needed,
        }


def plan(entries: Iterable[Entry], needed: Sequence[Needed], masked: Sequence[str] = ()) -> RootPlan:
    """How to put the root together; `masked` directories (the engine's state) are covered where they would show."""
    links, fresh, layered = [], ["tmp", "run"], []
    for entry in sorted(entries, key=lambda entry: entry.name):
        if entry.name in _OWN or entry.name in _SKIPPED:
            continue
        if entry.link is not None:
            links.append((entry.name, entry.link))
        elif entry.name in _FRESH:
            if entry.name not in fresh:
                fresh.append(entry.name)
        else:
            layered.append(entry.name)
    emptied = _outermost(need.private for need in needed if need.private and _top(need.private) in layered)
    hidden = [f"/{name}" for name in fresh] + list(emptied)
    binds = _outermost(need.path for need in needed if need.elsewhere or _below(need.path, hidden))
    covered = tuple(path for path in masked if _top(path) in layered or _below(path, binds))
    seen = tuple(sorted({need.path for need in needed}))
    return RootPlan(tuple(links), tuple(fresh), tuple(layered), emptied, binds, covered, seen)


def survey(paths: Iterable[Path]) -> tuple[list[Entry], list[Needed]]:
    """The listing of `/` and what each needed path is like, for `plan`."""
    entries = []
    with os.scandir("/") as listing:
        for item in listing:
            if item.is_symlink():
                entries.append(Entry(item.name, os.readlink(item.path)))
            elif item.is_dir():
                entries.append(Entry(item.name))
    return entries, [_look(path) for path in paths]


def _look(path: Path) -> Needed:
    resolved = path.resolve()
    top = Path("/", resolved.parts[1]) if len(resolved.parts) > 1 else resolved
    private = next(
        (str(folder) for folder in reversed(resolved.parents) if not folder.stat().st_mode & stat.S_IXOTH), None
    )
    return Needed(str(resolved), private, resolved.stat().st_dev != top.stat().st_dev)


def _outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """Each path once, without those that lie inside another of them."""
    kept: list[str] = []
    for path in sorted(set(paths), key=lambda path: (len(PurePosixPath(path).parts), path)):
        if not _below(path, kept):
            kept.append(path)
    return tuple(kept)


def _below(path: str, folders: Iterable[str]) -> bool:
    return any(PurePosixPath(path).is_relative_to(folder) for folder in folders)


def _top(path: str) -> str:
    return PurePosixPath(path).parts[1]
