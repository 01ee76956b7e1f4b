"""Which workloads a policy is for: by labels, or by the gateway or service that it is attached to.

Source: https://istio.io/latest/docs/reference/config/type/workload-selector/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from mesh.istio import rules as check
from mesh.istio.base import EMPTY, Labels, Model, Text, problem
from mesh.istio.schema import Cel, Schema, at_most_one
from mesh.istio.texts import LABEL_VALUE
from mesh.problems import FieldProblem

Rules = Iterator[FieldProblem]
_GROUP = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_KIND = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"
GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name"
"""The label of the pods of a Gateway of the Gateway API."""
ONE_WAY_TO_SELECT = at_most_one("selector", "targetRef", "targetRefs")


class WorkloadSelector(Model):
    """Selects by `matchLabels`, as policies do."""

    match_labels: Annotated[
        Labels,
        Schema(
            Cel("self.all(key, key.size() != 0 && !key.contains('*'))", "a key is empty or has a wildcard"),
            maxProperties=256,
            additionalProperties=LABEL_VALUE,
        ),
    ] = EMPTY
    """Labels that a pod must have, all of them, with exactly these values."""

    def rules(self) -> Rules:
        yield from _exact_labels("matchLabels", self.match_labels)


class NetworkSelector(Model):
    """Selects by `labels`, as Sidecar, ServiceEntry and EnvoyFilter do."""

    labels: Annotated[
        Labels,
        Schema(
            maxProperties=256,
            additionalProperties=LABEL_VALUE,
        ),
    ] = EMPTY
    """Labels that a pod or WorkloadEntry must have, all of them, with exactly these values."""

    def rules(self) -> Rules:
        yield from _exact_labels("labels", self.labels)


class PolicyTargetReference(Model):
    """The Gateway, GatewayClass, Service or ServiceEntry that a policy is attached to."""

    group: Annotated[Text, Schema(maxLength=253, pattern=_GROUP)] = ""
    """API group of the target; empty for the core group."""
    kind: Annotated[Text, Schema(minLength=1, maxLength=63, pattern=_KIND)]
    """Kind of the target."""
    name: Annotated[Text, Schema(minLength=1, maxLength=253)]
    """Name of the target."""
    namespace: Annotated[Text, Schema(enum=[""])] = ""
    """Must stay empty: the target is in the policy's own namespace."""

    @property
    def is_gateway(self) -> bool:
        return (self.group, self.kind) == (_GATEWAY_API, "Gateway")

    def rules(self) -> Rules:
        if len(self.group) > 253 or not re.search(_GROUP, self.group):
            yield problem("group", says=f"{self.group!r} is not an API group", hint="write gateway.networking.k8s.io")
        if not self.name:
            yield problem("name", says="the target has no name", hint="name it")
        if len(self.kind) > 63 or not re.search(_KIND, self.kind):
            yield problem("kind", says=f"{self.kind!r} is not a kind", hint="write it as Gateway or Service")
        elif (self.group.removeprefix("core"), self.kind) not in _TARGETS:
            known = ", ".join(f"{group or 'core'}/{kind}" for group, kind in _TARGETS)
            says = f"policies are not attached to {self.group or 'core'}/{self.kind}"
            yield problem("kind", says=says, hint=f"attach it to one of {known}")
        if self.namespace:
            yield problem(
                "namespace", says="a policy is for targets in its own namespace", hint="remove it, or move the policy"
            )


_GATEWAY_API = "gateway.networking.k8s.io"
_TARGETS = (
    ("", "Service"),
    ("networking.istio.io", "ServiceEntry"),
    (_GATEWAY_API, "Gateway"),
    (_GATEWAY_API, "GatewayClass"),
)
TargetRefs = Annotated[tuple[PolicyTargetReference, ...], Schema(maxItems=16)]


def check_one_way_to_select(
    selector: Model | None, target_ref: PolicyTargetReference | None, target_refs: tuple[PolicyTargetReference, ...]
) -> Rules:
    """A policy is for workloads by labels or for targets, not both."""
    chosen = {"selector": selector is not None, "targetRef": target_ref is not None, "targetRefs": bool(target_refs)}
    used = [name for name, is_set in chosen.items() if is_set]
    if len(used) > 1:
        yield problem(used[1], says=f"{' and '.join(used)} exclude each other", hint="keep one of them")


def _exact_labels(field: str, labels: Labels) -> Rules:
    for key, value in labels.items():
        if not key:
            yield problem(field, says="a label has no key", hint="write key: value")
        elif "*" in key or "*" in value:
            yield problem(field, key, says=f"{key}={value} has a wildcard", hint="labels match exactly here")
        else:
            yield from check.check_labels((field,), {key: value})
