"""ProxyConfig: settings of the proxies of some workloads that take effect when their pods are made.

Source: https://istio.io/latest/docs/reference/config/networking/proxy-config/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from mesh.istio.base import EMPTY, Int, Map, Model, Text, problem
from mesh.istio.schema import Cel, Schema
from mesh.istio.selectors import WorkloadSelector
from mesh.problems import FieldProblem

Rules = Iterator[FieldProblem]
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*\Z")


class ProxyImage(Model):
    image_type: Text = ""
    """Variant of the image: one that meshConfig `heddle.imageTypes` names; any other stands for the image itself."""


class ProxyConfig(Model):
    """The spec. It overrides the mesh's `defaultConfig`. Without a selector a pod's annotation `proxy.istio.io/config`
    overrides it; with one it overrides the annotation."""

    selector: WorkloadSelector | None = None
    """The workloads that it is for; all of the namespace (of the mesh, in the root namespace) without it."""
    concurrency: Annotated[Int | None, Schema(minimum=0)] = None
    """Worker threads of Envoy; 0 means one for each CPU."""
    environment_variables: Annotated[
        Map[Text],
        Schema(
            Cel("self.all(name, name.matches('^[-._a-zA-Z][-._a-zA-Z0-9]*$'))", "a name is not a variable's"),
            maxProperties=256,
        ),
    ] = EMPTY
    """Environment variables of the proxy's container."""
    image: ProxyImage | None = None
    """The proxy's image."""

    def rules(self) -> Rules:
        if self.concurrency is not None and self.concurrency < 0:
            yield problem("concurrency", says=f"{self.concurrency} is negative", hint="write 0 for one for each CPU")
        for name in self.environment_variables:
            if not _VARIABLE.match(name):
                says = f"{name!r} is not the name of an environment variable"
                hint = "use letters, digits, underscores, and no digit first"
                yield problem("environmentVariables", name, says=says, hint=hint)
