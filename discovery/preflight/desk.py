"""Preflight as a service: what comes of an object, told to the webhook before it is stored.

One at a time: an Envoy is a processor's work for a tenth of a second, and the plans are made beside the agents' polls.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from discovery.plan.memo import Scopes
from discovery.preflight.envoy import until
from discovery.preflight.trials import Trial, trials, with_object
from discovery.preflight.verdict import judge_all
from mesh.envoy_binary import find_envoy
from mesh.errors import InvalidInput, MissingPrerequisite, Unavailable
from mesh.snapshot import Snapshot

ACCOUNT = "heddle-webhook"
PATH = "/v1/preflight"
MOST_SECONDS = 30.0
MAX_BODY = 4 << 20

log = structlog.get_logger("discovery")


class PreflightDesk:
    """`snapshot` is the one of now, None before the first. `pause` lets others have their turn between two proxies."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot | None],
        envoy_path: str = "",
        pause: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._snapshot, self._pause, self._monotonic = snapshot, pause, monotonic
        self._one = threading.Lock()
        self._scopes = Scopes()
        try:
            self._binary = find_envoy(envoy_path)
        except MissingPrerequisite as error:
            self._binary = ""
            log.warning("objects are admitted without preflight", error=str(error))

    def answer(self, body: Any) -> dict[str, Any]:
        """`{"object", "seconds"}` -> `{"envoy", "shapes", "proxies", "refusals", "seconds"}`; `envoy` is false where
        there is none, and nothing was tried. InvalidInput, Unavailable (no time, nothing read yet)."""
        raw, seconds = _asked(body)
        began = self._monotonic()
        if not self._binary:
            return {"envoy": False, "shapes": 0, "proxies": 0, "refusals": [], "seconds": 0.0}
        if not self._one.acquire(timeout=seconds):
            raise Unavailable(f"another preflight took more than {seconds:.1f} s")
        try:
            found = self._tried(raw)
            refused = until(self._binary, began + seconds, self._monotonic)
            refusals = [refusal.as_json() for refusal in judge_all(found, raw, refused)]
        finally:
            self._one.release()
        proxies = sum(trial.proxies for trial in found)
        took = round(self._monotonic() - began, 3)
        log.info("preflight", shapes=len(found), proxies=proxies, refusals=len(refusals), seconds=took)
        return {"envoy": True, "shapes": len(found), "proxies": proxies, "refusals": refusals, "seconds": took}

    def _tried(self, raw: Mapping[str, Any]) -> tuple[Trial, ...]:
        snapshot = self._snapshot()
        if snapshot is None:
            raise Unavailable("nothing is read yet")
        return trials(snapshot, with_object(snapshot, raw), self._scopes, self._pause)


def _asked(body: Any) -> tuple[dict[str, Any], float]:
    raw = body.get("object") if isinstance(body, dict) else None
    if not isinstance(raw, dict):
        raise InvalidInput("is no object", field="object")
    seconds = body.get("seconds", MOST_SECONDS)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MOST_SECONDS:
        raise InvalidInput(f"must be a number up to {MOST_SECONDS:g}", field="seconds")
    return raw, float(seconds)
