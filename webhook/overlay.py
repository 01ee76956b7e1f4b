"""A pod's own `istio-proxy` and `istio-init` containers, laid over the injected ones. Pure.

People customise the sidecar, or write a gateway, by a container of that name with image `auto`. What they write wins,
as a strategic merge does it. What they wrote is kept in the annotation `proxy.istio.io/overrides`, as Istio does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from webhook.merge import merge_container

AUTO_IMAGE = "auto"

Raw = dict[str, Any]


def overlay(injected: Mapping[str, Any], own: Mapping[str, Any]) -> Raw:
    """`injected` with everything that `own` says; an `own` image of `auto` asks for the injected one."""
    return merge_container(
        injected,
        {
            name: value
            for name, value in own.items()
            if value is not None and not (name == "image" and value == AUTO_IMAGE)
        },
    )


def overrides(containers: list[Raw], inits: list[Raw]) -> str:
    """The annotation's text for the pod's own containers; empty when it has none."""
    kept = {
        place: [_without_auto(container) for container in of]
        for place, of in (("containers", containers), ("initContainers", inits))
        if of
    }
    return json.dumps(kept, separators=(",", ":")) if kept else ""


def _without_auto(container: Raw) -> Raw:
    return {name: value for name, value in container.items() if not (name == "image" and value == AUTO_IMAGE)}
