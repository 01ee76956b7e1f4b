"""What a gate asks of the node agent, and what it is told: one line of JSON each way. Pure.

    agent connects to 127.0.0.1:15002 in the pod's network namespace
    gate  -> {"pod": {"namespace", "name", "uid"}, "args": [arguments of mesh/interception.py]}
    agent -> {"written": true} or {"error": "<sentence>"}

Each side reads the other's line as untrusted: lengths, names and arguments are checked here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from mesh.errors import InvalidInput
from mesh.interception import InterceptionSpec, arguments, parse_arguments

LONGEST_LINE = 32 << 10  # bytes; annotations of a pod that name hundreds of ports and networks fit
MOST_ARGUMENTS = 64
LONGEST_SENTENCE = 1500  # characters, so that a termination message (4,096 bytes) holds it

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?\Z")
_UID = re.compile(r"[0-9A-Za-z][-0-9A-Za-z]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class PodName:
    """A pod as the downward API tells it to the gate."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Claim:
    """`pod` says of itself that it is to be intercepted as in `spec`."""

    pod: PodName
    spec: InterceptionSpec


def claim_line(claim: Claim) -> bytes:
    """The gate's line. InvalidInput when it would be longer than `LONGEST_LINE`."""
    pod = {"namespace": claim.pod.namespace, "name": claim.pod.name, "uid": claim.pod.uid}
    line = json.dumps({"pod": pod, "args": arguments(claim.spec)}).encode() + b"\n"
    if len(line) > LONGEST_LINE:
        raise InvalidInput(
            f"the interception options of this pod take {len(line)} bytes, more than {LONGEST_LINE}",
            hint="name fewer ports and networks in the traffic.sidecar.istio.io annotations",
        )
    return line


def parse_claim(line: bytes) -> Claim:
    """What `claim_line` wrote. InvalidInput names the part that is wrong."""
    found = _object(line)
    pod = found.get("pod")
    if not isinstance(pod, dict):
        raise InvalidInput("must be an object", field="pod")
    name = PodName(_matching(pod, "namespace", _LABEL), _matching(pod, "name", _NAME), _matching(pod, "uid", _UID))
    words = found.get("args")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words) or len(words) > MOST_ARGUMENTS:
        raise InvalidInput(f"must be a list of at most {MOST_ARGUMENTS} texts", field="args")
    return Claim(name, parse_arguments(words))


def reply_line(error: str) -> bytes:
    """The agent's line; an empty `error` says that the rules are in force."""
    reply: dict[str, Any] = {"error": error[:LONGEST_SENTENCE]} if error else {"written": True}
    return json.dumps(reply).encode() + b"\n"


def parse_reply(line: bytes) -> str:
    """What `reply_line` was given. InvalidInput when it is neither."""
    found = _object(line)
    error = found.get("error", "")
    if not isinstance(error, str) or (not error and found.get("written") is not True):
        raise InvalidInput("the reply says neither that the rules are written nor why not")
    return " ".join(error[:LONGEST_SENTENCE].split())


def _object(line: bytes) -> dict[str, Any]:
    if len(line) > LONGEST_LINE:
        raise InvalidInput(f"the line is longer than {LONGEST_LINE} bytes")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise InvalidInput("the line is not JSON") from None
    if not isinstance(found, dict):
        raise InvalidInput("the line is not a JSON object")
    return found


def _matching(pod: dict[str, Any], key: str, pattern: re.Pattern[str]) -> str:
    value = pod.get(key)
    if not isinstance(value, str) or not pattern.match(value):
        raise InvalidInput("is not what Kubernetes calls one", field=f"pod.{key}")
    return value
