"""After a change of the manifests: when had every proxy applied it?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from local.operator_access import Operator
from mesh.errors import HeddleError
from mesh.kinds import watched_by

WAIT_SECONDS = 30
KEPT = 20
"""So many changes are remembered: who waits for one still finds it when others have followed."""


class Changes:
    """`newest`: the last changes, oldest first: `number` (from 1), `files`, `versions` by kind, `proxies`, `seconds`.

    `seconds` go from the write of the newest file to the last proxy's acknowledgement; None while it is under way, or
    when it was not applied in time.
    """

    def __init__(self, operator: Operator, say: Callable[[str], None]) -> None:
        self._operator, self._say = operator, say
        self.newest: tuple[dict[str, Any], ...] = ()

    def note(self, written_versions: Mapping[str, int], files: list[Path]) -> None:
        """The manifests `files` changed; the newest version written of each kind is given."""
        written = max(filter(None, map(_written, files)), default=time.time())
        change: dict[str, Any] = {
            "number": self.newest[-1]["number"] + 1 if self.newest else 1,
            "files": [str(path) for path in files],
            "versions": dict(written_versions),
            "proxies": None,
            "seconds": None,
        }
        self.newest = (*self.newest, change)[-KEPT:]
        threading.Thread(target=self._follow, args=(change, written), name="change", daemon=True).start()

    def _follow(self, change: dict[str, Any], written: float) -> None:
        # Without a file: what was no longer written is deleted a little later, since a file may be half saved.
        names = ", ".join(Path(name).name for name in change["files"]) or "what is written nowhere any more"
        status: dict[str, Any] = {}
        try:
            for query in _queries(change["versions"]):
                code, body = self._operator.get("discovery", f"/v1/status?{query}wait={WAIT_SECONDS}")
                status = _status(body) if code == 200 else {}
                if not status.get("ready"):
                    self._say(f"change of {names}: not applied by every proxy; `heddle status` says why")
                    return
        except HeddleError as error:
            self._say(f"change of {names}: {error}")
            return
        change.update(proxies=len(status["proxies"]), seconds=time.time() - written)
        took = round(change["seconds"] * 1000)
        problems = len(status.get("problems", ()))
        more = f"; problems in the mesh: {problems}, which `heddle status` names" if problems else ""
        self._say(
            f"change of {names}: applied by all {change['proxies']} proxies, {took} ms after it was written{more}"
        )


def _queries(versions: Mapping[str, int]) -> list[str]:
    """One question for each kind that discovery reads: versions are only comparable within a kind."""
    read = {kind.kind for kind in watched_by("discovery")}
    return [f"observed={version}&kind={kind}&" for kind, version in versions.items() if kind in read] or [""]


def _written(path: Path) -> float | None:
    """When the file became what it is, which its time of modification may not say (`cp -p`); None when it is gone."""
    try:
        return path.stat().st_ctime
    except OSError:
        return None


def _status(body: bytes) -> dict[str, Any]:
    try:
        status = orjson.loads(body)
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}
