"""The app's probes, sent through the agent. Pure.

Kubelet has no certificate, so a probe on the app's port would fail under STRICT mutual TLS. It asks the agent instead,
at `/app-health/<container>/<kind>`, and the agent asks the app from inside the pod; hooks of the life cycle that are
requests go the same way, at `/app-lifecycle/<container>/<kind>`. Paths, and the JSON that tells the agent what to ask,
are Istio's (ISTIO_KUBE_APP_PROBERS).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Raw = dict[str, Any]

KINDS = (("livenessProbe", "livez"), ("readinessProbe", "readyz"), ("startupProbe", "startupz"))
HOOKS = (("preStop", "prestopz"), ("postStart", "poststartz"))
ACTIONS = ("httpGet", "tcpSocket", "grpc")
LONGEST_HOOK = 120  # seconds: kubelet sets no limit but the pod's grace period, and the agent must have one


def rewrite(container: Mapping[str, Any], agent_port: int, asked: Raw) -> Raw:
    """`container` with its probes and hooks sent to the agent; what to ask instead is added to `asked`, by path.

    Left alone: `exec` and `sleep`, actions on another host, and ports by a name that the container does not have.
    """
    changed: Raw = _rewritten_hooks(container, agent_port, asked)
    for field, word in KINDS:
        probe = container.get(field)
        question = _question(probe, container) if isinstance(probe, dict) else None
        if not probe or question is None:
            continue
        path = f"/app-health/{container['name']}/{word}"
        asked[path] = question
        rest = {key: value for key, value in probe.items() if key not in ACTIONS}
        changed[field] = {"httpGet": {"path": path, "port": agent_port}, **rest}
    return {**container, **changed} if changed else dict(container)


def _rewritten_hooks(container: Mapping[str, Any], agent_port: int, asked: Raw) -> Raw:
    hooks: Raw = dict(container.get("lifecycle") or {})
    before = len(asked)
    for field, word in HOOKS:
        hook = hooks.get(field)
        question = _question({**hook, "timeoutSeconds": LONGEST_HOOK}, container) if isinstance(hook, dict) else None
        if question is None:
            continue
        path = f"/app-lifecycle/{container['name']}/{word}"
        asked[path] = question
        hooks[field] = {"httpGet": {"path": path, "port": agent_port}}
    return {"lifecycle": hooks} if len(asked) > before else {}


def _question(probe: Mapping[str, Any], container: Mapping[str, Any]) -> Raw | None:
    for how in ACTIONS:
        action = probe.get(how)
        if not isinstance(action, dict):
            continue
        port = _number(action.get("port"), container)
        if port is None or action.get("host"):
            return None
        question: Raw = {how: {**_texts(action), "port": port}}
        if headers := _headers(action.get("httpHeaders")):
            question[how]["httpHeaders"] = headers
        if isinstance(probe.get("timeoutSeconds"), int):
            question["timeoutSeconds"] = probe["timeoutSeconds"]
        return question
    return None


def _texts(action: Mapping[str, Any]) -> Raw:
    """What the agent reads of an action; whatever else stands there is for the API server to refuse."""
    return {name: action[name] for name in ("path", "scheme", "service") if isinstance(action.get(name), str)}


def _headers(given: object) -> list[Raw]:
    found = [header for header in given if isinstance(header, dict)] if isinstance(given, list) else []
    return [
        {"name": header["name"], "value": header.get("value") or ""}
        for header in found
        if isinstance(header.get("name"), str) and isinstance(header.get("value") or "", str)
    ]


def _number(port: object, container: Mapping[str, Any]) -> int | None:
    if isinstance(port, str) and port.isascii() and port.isdigit() and len(port) <= 5:
        port = int(port)
    if isinstance(port, int):
        return port if 0 < port < 65536 else None
    for declared in container.get("ports") or ():
        if declared.get("name") == port and isinstance(declared.get("containerPort"), int):
            return int(declared["containerPort"])
    return None
