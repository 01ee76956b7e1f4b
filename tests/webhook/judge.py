"""Is this a pod? Kubernetes' own models, generated from its OpenAPI, say so."""

from __future__ import annotations

import json
from typing import Any

from kubernetes.client import ApiClient, Configuration


class _Response:
    def __init__(self, value: Any) -> None:
        self.data = json.dumps(value)


def check_like_kubernetes(pod: dict[str, Any]) -> None:
    """Fails when a field is unknown to Kubernetes, missing though required, or not of its type.

    The models drop what they do not know and convert what has another type: so what went in must come out unchanged.
    """
    api = ApiClient(Configuration())
    text = json.dumps(pod)
    parsed = api.deserialize(text, "V1Pod", "application/json")
    assert _without_empty(api.sanitize_for_serialization(parsed)) == _without_empty(pod)
    names = [c["name"] for c in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", ()))]
    assert len(set(names)) == len(names)
    volumes = [volume["name"] for volume in pod["spec"].get("volumes", ())]
    assert len(set(volumes)) == len(volumes)
    for container in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())):
        assert {mount["name"] for mount in container.get("volumeMounts", ())} <= set(volumes)


def _without_empty(value: Any) -> Any:
    """Models leave out null."""
    if isinstance(value, dict):
        return {key: _without_empty(item) for key, item in value.items() if item is not None}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value
