"""After a change of the manifests: when had every proxy applied it?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from local.operator_access import Operator
from mesh.errors import HeddleError

WAIT_SECONDS = 30


class Changes:
    """`last` is the newest change: `number` (from 1), `files`, `resourceVersion`, `proxies` and `seconds`.

    `seconds` go from the write of the newest file to the last proxy's acknowledgement; None while it is under way, or
    when it was not applied in time.
    """

    def __init__(self, operator: Operator, say: Callable[[str], None]) -> None:
        self._operator, self._say = operator, say
        self.last: dict[str, Any] | None = None

    def note(self, version: int, files: list[Path]) -> None:
        """The manifests `files` changed, and the store is at `version` now."""
        written = max(filter(None, map(_written, files)), default=time.time())
        change: dict[str, Any] = {
            "number": self.last["number"] + 1 if self.last else 1,
            "files": [str(path) for path in files],
            "resourceVersion": version,
            "proxies": None,
            "seconds": None,
        }
        self.last = change
        threading.Thread(target=self._follow, args=(change, written), name="change", daemon=True).start()

    def _follow(self, change: dict[str, Any], written: float) -> None:
        names = ", ".join(Path(name).name for name in change["files"])
        path = f"/v1/status?observed={change['resourceVersion']}&wait={WAIT_SECONDS}"
        try:
            code, body = self._operator.get("discovery", path)
        except HeddleError as error:
            self._say(f"change of {names}: {error}")
            return
        status = _status(body) if code == 200 else {}
        if not status.get("ready"):
            self._say(f"change of {names}: not applied by every proxy; `heddle status` says why")
            return
        change.update(proxies=len(status["proxies"]), seconds=time.time() - written)
        took = round(change["seconds"] * 1000)
        self._say(f"change of {names}: applied by all {change['proxies']} proxies, {took} ms after it was written")


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
