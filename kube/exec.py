"""Runs a command in a container of a pod, as `kubectl exec` does, and gives what it says.

Needs the right to `create` (and, as Kubernetes asks for a WebSocket, `get`) `pods/exec` there.
Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/ (subresources), KEP-4006 (WebSockets).
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from kubernetes.client import ApiClient, ApiException, CoreV1Api
from kubernetes.stream import stream
from kubernetes.stream.ws_client import ERROR_CHANNEL, STDERR_CHANNEL, STDOUT_CHANNEL
from websocket import WebSocketException

from kube.client import Client, Refused
from mesh.errors import HeddleError, NotFound, Unavailable
from mesh.objects import Key

_STATUS = re.compile(r"Handshake status (\d{3})")


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended: its exit code and all that it wrote."""

    code: int
    out: bytes
    err: str


def run(client: Client, pod: Key, container: str, argv: Sequence[str], seconds: float) -> Ran:
    """Without standard input. NotFound, Refused or Unavailable where it does not come to an end within `seconds`."""
    # `stream` puts itself in the place of this client's calls, so that it must be nobody else's.
    api = CoreV1Api(ApiClient(client.configuration))
    where = f"{container} of pod {pod}"
    try:
        channel = stream(
            api.connect_get_namespaced_pod_exec,
            pod.name,
            pod.namespace,
            container=container,
            command=list(argv),
            stdin=False,
            stdout=True,
            stderr=True,
            tty=False,
            binary=True,
            _preload_content=False,
            _request_timeout=seconds,
        )
    except (ApiException, WebSocketException, OSError) as error:
        raise _refusal(where, error) from None
    try:
        return _ended(channel, where, seconds)
    except (WebSocketException, OSError) as error:
        raise Unavailable(f"the connection to {where} broke off: {error}") from None
    finally:
        channel.close()


def _ended(channel: Any, where: str, seconds: float) -> Ran:
    ends = time.monotonic() + seconds
    while channel.is_open():
        left = ends - time.monotonic()
        if left <= 0:
            raise Unavailable(f"{where} did not answer within {seconds:g} s")
        channel.update(timeout=left)
    out = channel.read_channel(STDOUT_CHANNEL)
    err = channel.read_channel(STDERR_CHANNEL).decode(errors="replace")
    status = yaml.safe_load(channel.read_channel(ERROR_CHANNEL)) or {}
    if status.get("status") == "Success":
        return Ran(0, out, err)
    for cause in (status.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode":
            return Ran(int(cause["message"]), out, err)
    raise Unavailable(f"no command could be run in {where}: {status.get('message', 'the connection broke off')}")


def _refusal(where: str, error: Exception) -> HeddleError:
    said = str(getattr(error, "reason", None) or error)
    found = _STATUS.search(said)
    status = int(found[1]) if found else 0
    if status == 403:
        return Refused(
            403,
            f"you may not run a command in {where}",
            hint="it takes the verbs get and create on pods/exec there",
        )
    if status == 404:
        return NotFound(f"there is no {where} to run a command in")
    return Unavailable(f"no command can be run in {where}: {said}")
