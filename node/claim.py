"""What a gate says to the node agent, and what it is told: one line of JSON each way. Pure.

    agent connects to 127.0.0.1:15002 in the pod's network namespace
    gate  -> {"namespace", "name", "uid"}, its pod
    agent -> {"written": true} or {"error": "<sentence>"}

Each side reads the other's line as untrusted. What is to be intercepted is not said here: the agent takes that from the
API server's pod (node/pods.py).
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from mesh.errors import InvalidInput

LONGEST_LINE = 4096  # bytes
LONGEST_SENTENCE = 1500  # characters, so that a termination message (4,096 bytes) holds it

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?\Z")
_UID = re.compile(r"[0-9A-Za-z][-0-9A-Za-z]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class PodName:
    """A pod, as the downward API tells it to the gate."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def claim_line(pod: PodName) -> bytes:
    """The gate's line."""
    return json.dumps(asdict(pod)).encode() + b"\n"


def parse_claim(line: bytes) -> PodName:
    """What `claim_line` wrote. InvalidInput names the part that is wrong."""
    found = _object(line)
    return PodName(
        _matching(found, "namespace", _LABEL), _matching(found, "name", _NAME), _matching(found, "uid", _UID)
    )


def reply_line(error: str) -> bytes:
    """The agent's line; an empty `error` says that the rules are in force."""
    reply: dict[str, Any] = {"error": error[:LONGEST_SENTENCE]} if error else {"written": True}
    return json.dumps(reply, ensure_ascii=False).encode() + b"\n"


def parse_reply(line: bytes) -> str:
    """What `reply_line` was given. InvalidInput when it is neither."""
    found = _object(line)
    error = found.get("error", "")
    if not isinstance(error, str) or (not error and found.get("written") is not True):
        raise InvalidInput("the reply says neither that the rules are written nor why not")
    return " ".join(error[:LONGEST_SENTENCE].split())


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise InvalidInput("the line is not JSON") from None
    if not isinstance(found, dict):
        raise InvalidInput("the line is not a JSON object")
    return found


def _matching(found: dict[str, Any], key: str, pattern: re.Pattern[str]) -> str:
    value = found.get(key)
    if not isinstance(value, str) or not pattern.match(value):
        raise InvalidInput("is not what Kubernetes calls one", field=key)
    return value
