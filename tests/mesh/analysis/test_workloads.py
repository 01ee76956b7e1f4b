"""Workloads of manifests: their labels, and whether they will have a sidecar."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.analysis.view import Workload
from mesh.analysis.workloads import workloads_of_manifests
from mesh.manifest import documents

TEXT = """
{apiVersion: v1, kind: Namespace, metadata: {name: inside, labels: {istio-injection: enabled}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: canary, labels: {istio.io/rev: canary}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: out, labels: {istio-injection: disabled, istio.io/rev: canary}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, namespace: inside},
  spec: {template: {metadata: {labels: {app: a}}}}}
---
{apiVersion: batch/v1, kind: CronJob, metadata: {name: b, namespace: inside}, spec: {jobTemplate: {spec: {template:
  {metadata: {labels: {app: b, sidecar.istio.io/inject: "false"}}}}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: c, namespace: out, labels: {app: c}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: d, namespace: out, annotations: {sidecar.istio.io/inject: "true"}}}
---
{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: e, namespace: canary}, spec: {template: {}}}
---
{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: f}, spec: {template: {metadata: {labels: {version: 1}}}}}
---
{apiVersion: v1, kind: Service, metadata: {name: g}}
"""


def test_who_is_there_and_who_has_a_sidecar() -> None:
    assert workloads_of_manifests(each.raw for each in documents(TEXT, "text")) == {
        "inside": (
            Workload("inside", "a", {"app": "a"}, has_sidecar=True),
            Workload("inside", "b", {"app": "b", "sidecar.istio.io/inject": "false"}, has_sidecar=False),
        ),
        "out": (
            Workload("out", "c", {"app": "c"}, has_sidecar=False),
            Workload("out", "d", {}, has_sidecar=True),
        ),
        "canary": (Workload("canary", "e", {}, has_sidecar=True),),
        "default": (Workload("default", "f", {"version": "1"}, has_sidecar=False),),
    }


@pytest.mark.parametrize("spec", [None, [], "x", {"template": 1}, {"template": {"metadata": {"labels": [1]}}}])
def test_what_is_no_workload_is_taken_as_far_as_it_goes(spec: Any) -> None:
    raw = {"kind": "Deployment", "metadata": {"name": "a"}, "spec": spec}
    assert workloads_of_manifests([raw]) == {"default": (Workload("default", "a", {}, has_sidecar=False),)}
