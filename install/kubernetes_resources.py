"""`k8s:` of a component in an IstioOperator, and the field types that its models share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator

from mesh.istio.base import EMPTY, Labels, Map, Model, Text, UInt, planned, problem
from mesh.problems import FieldProblem

Raw = Map[Any]
"""A part of Kubernetes' own API; the API server checks it."""


def _as_text(value: object) -> object:
    """Tags such as `1.20` are numbers in YAML, and people leave the quotes out."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


TagText = Annotated[Text, BeforeValidator(_as_text)]
TextMap = Annotated[Labels, BeforeValidator(lambda value: _texts(value))]


def _texts(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return {k: str(v).lower() if isinstance(v, bool) else _as_text(v) for k, v in value.items()}


class Patch(Model):
    path: Text
    value: Any = None


class Overlay(Model):
    """Patches of one rendered object."""

    api_version: Text = ""
    kind: Text
    name: Text
    patches: tuple[Patch, ...] = ()


class Resources(Model):
    limits_: TextMap = EMPTY  # `limits` is the model's own
    requests: TextMap = EMPTY
    claims: Any = planned()


class KubernetesResources(Model):
    affinity: Raw | None = None
    env: tuple[Raw, ...] = ()
    hpa_spec: Raw | None = None
    image_pull_policy: Text = ""
    node_selector: TextMap = EMPTY
    pod_disruption_budget: Raw | None = None
    pod_annotations: TextMap = EMPTY
    priority_class_name: Text = ""
    readiness_probe: Raw | None = None
    replica_count: UInt | None = None
    resources: Resources | None = None
    service: Raw | None = None
    strategy: Raw | None = None
    tolerations: tuple[Raw, ...] = ()
    service_annotations: TextMap = EMPTY
    security_context: Raw | None = None
    volumes: tuple[Raw, ...] = ()
    volume_mounts: tuple[Raw, ...] = ()
    overlays: tuple[Overlay, ...] = ()

    def rules(self) -> Iterable[FieldProblem]:
        for index, variable in enumerate(self.env):
            if not isinstance(variable.get("name"), str):
                yield problem("env", index, says="the variable has no name", hint="add name")
        if self.replica_count == 0:
            yield problem(
                "replicaCount", says="0 replicas leave the component without a pod", hint="set enabled: false"
            )
