"""WasmPlugin: a WebAssembly module that takes part in the handling of requests.

Source: https://istio.io/latest/docs/reference/config/proxy_extensions/wasm-plugin/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from mesh.istio import rules as check
from mesh.istio.base import Int, Model, PortNumber, Struct, Text, problem
from mesh.istio.schema import Cel, Schema
from mesh.istio.selectors import (
    ONE_WAY_TO_SELECT,
    PolicyTargetReference,
    TargetRefs,
    WorkloadSelector,
    check_one_way_to_select,
)
from mesh.problems import FieldProblem

Rules = Iterator[FieldProblem]
_SCHEMES = ("", "http", "https", "file", "oci")
_SHA256 = r"^$|^[a-f0-9]{64}$"


class PluginPhase(StrEnum):
    """Where in the chain of filters the module stands: before Istio's filters of that name."""

    UNSPECIFIED_PHASE = "UNSPECIFIED_PHASE"
    AUTHN = "AUTHN"
    AUTHZ = "AUTHZ"
    STATS = "STATS"


class PullPolicy(StrEnum):
    """When the module is fetched anew."""

    UNSPECIFIED_POLICY = "UNSPECIFIED_POLICY"
    IfNotPresent = "IfNotPresent"
    Always = "Always"


class FailStrategy(StrEnum):
    """What happens to requests when the module fails."""

    FAIL_CLOSE = "FAIL_CLOSE"
    FAIL_OPEN = "FAIL_OPEN"
    FAIL_RELOAD = "FAIL_RELOAD"


class PluginType(StrEnum):
    """HTTP or network filter."""

    UNSPECIFIED_PLUGIN_TYPE = "UNSPECIFIED_PLUGIN_TYPE"
    HTTP = "HTTP"
    NETWORK = "NETWORK"


class TrafficMode(StrEnum):
    """Direction of the traffic."""

    UNDEFINED = "UNDEFINED"
    CLIENT = "CLIENT"
    SERVER = "SERVER"
    CLIENT_AND_SERVER = "CLIENT_AND_SERVER"


class EnvValueSource(StrEnum):
    """Where the value of a variable comes from."""

    INLINE = "INLINE"
    HOST = "HOST"


class EnvVar(Model):
    cel = (Cel("!has(self.valueFrom) || self.valueFrom != 'HOST' || !has(self.value)", "value goes with INLINE only"),)

    name: Annotated[Text, Schema(minLength=1, maxLength=256)]
    """Name of the variable."""
    value_from: EnvValueSource = EnvValueSource.INLINE
    """INLINE: from value; HOST: from the variable of this name of the proxy."""
    value: Annotated[Text, Schema(maxLength=2048)] = ""
    """The value."""

    def rules(self) -> Rules:
        if not self.name:
            yield problem("name", says="the variable has no name", hint="name it")
        if self.value_from is EnvValueSource.HOST and self.value:
            yield problem("value", says="with HOST the value is the proxy's own", hint="remove value, or use INLINE")


class VmConfig(Model):
    env: Annotated[
        tuple[EnvVar, ...],
        Schema(**{"maxItems": 256, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
    ] = ()
    """Environment variables of the module."""

    def rules(self) -> Rules:
        names = [variable.name for variable in self.env]
        for index, name in enumerate(names):
            if name and name in names[:index]:
                yield problem("env", index, "name", says=f"{name!r} stands twice", hint="keep one of the two")


class TrafficPort(Model):
    number: PortNumber
    """Destination port."""

    def rules(self) -> Rules:
        yield from check.check_port(("number",), self.number)


class TrafficSelector(Model):
    mode: TrafficMode = TrafficMode.CLIENT_AND_SERVER
    """Direction of the traffic."""
    ports: Annotated[
        tuple[TrafficPort, ...],
        Schema(**{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["number"]}),
    ] = ()
    """Destination ports; any when empty."""

    def rules(self) -> Rules:
        numbers = [port.number for port in self.ports]
        for index, number in enumerate(numbers):
            if number in numbers[:index]:
                yield problem("ports", index, "number", says=f"port {number} stands twice", hint="keep one of the two")


class WasmPlugin(Model):
    """The spec."""

    cel = (ONE_WAY_TO_SELECT,)

    selector: WorkloadSelector | None = None
    """The workloads that it is for; all of the namespace (of the mesh, in the root namespace) without it."""
    target_ref: PolicyTargetReference | None = None
    """The Gateway or Service that it is for; use targetRefs."""
    target_refs: TargetRefs = ()
    """Gateways or services that it is for, instead of selector."""
    url: Annotated[
        Text,
        Schema(
            minLength=1,
            maxLength=2048,
            pattern=r"^((https?|file|oci)://.+|[^:/]+(:[0-9]+)?/.+|[^:/]+(:[^/]*)?)$",
        ),
    ]
    """Where the module is: `oci://`, `http://`, `https://` or `file://`; an image's name alone means oci."""
    sha256: Annotated[Text, Schema(pattern=_SHA256)] = ""
    """SHA-256 of the module or image, in hexadecimal."""
    image_pull_policy: PullPolicy = PullPolicy.UNSPECIFIED_POLICY
    """When the module is fetched anew."""
    image_pull_secret: Annotated[Text, Schema(maxLength=253)] = ""
    """Secret of the namespace with which the image is pulled."""
    verification_key: Text = ""
    """Public key that the module is verified with."""
    plugin_config: Struct | None = None
    """Configuration that the module gets."""
    plugin_name: Annotated[Text, Schema(maxLength=256)] = ""
    """Name of the module in Envoy's configuration."""
    phase: PluginPhase = PluginPhase.UNSPECIFIED_PHASE
    """Where in the chain of filters the module stands; at the end when it is not said."""
    priority: Int | None = None
    """Order within a phase: higher first."""
    fail_strategy: FailStrategy = FailStrategy.FAIL_CLOSE
    """What happens to requests when the module fails."""
    vm_config: VmConfig | None = None
    """The virtual machine that the module runs in."""
    match: tuple[TrafficSelector, ...] = ()
    """Which traffic; all of it when empty."""
    type: PluginType = PluginType.UNSPECIFIED_PLUGIN_TYPE
    """HTTP or network filter; HTTP when it is not said."""

    def rules(self) -> Rules:
        yield from check_one_way_to_select(self.selector, self.target_ref, self.target_refs)
        if not self.url:
            yield problem("url", says="it does not say where the module is", hint="write oci://registry/image:tag")
        else:
            scheme, separator, rest = self.url.partition("://")
            if separator and (scheme not in _SCHEMES or not rest):
                says = f"{self.url!r} is no place for a module"
                yield problem("url", says=says, hint="begin with oci://, https://, http:// or file://")
        if not re.search(_SHA256, self.sha256):
            yield problem("sha256", says="it is not a SHA-256 in hexadecimal", hint="run: sha256sum FILE")
