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
        {name: value for name, value in _without_auto(own).items() if value is not None},
    )


def overrides(containers: list[Raw], inits: list[Raw]) -> str:
    """The annotation's text for the pod's own containers; empty when it has none."""
    kept = {
        place: [_without_auto(container) for container in of]
        for place, of in (("containers", containers), ("initContainers", inits))
        if of
    }
    return json.dumps(kept, separators=(",", ":")) if kept else ""


def _without_auto(container: Mapping[str, Any]) -> Raw:
    """`container` without image `auto`, and without the pull policy that it has from that image having no tag: the API
    server fills in Always before it asks the webhook."""
    if container.get("image") != AUTO_IMAGE:
        return dict(container)
    always = container.get("imagePullPolicy") == "Always"
    return {
        name: value
        for name, value in container.items()
        if name != "image" and not (always and name == "imagePullPolicy")
    }
