"""Injection: namespaces and pods that are in the mesh by half, and annotations that say nothing to the sidecar."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mesh.analysis.model import Code, Finding, Fix, Severity
from mesh.analysis.view import View
from mesh.annotations import (
    INJECT,
    NAMESPACE_INJECTION,
    REVISION,
    nearest_annotation,
    parse_options,
    unheeded_annotations,
)
from mesh.objects import Namespace, Pod, Service
from mesh.problems import ObjectErrors

NOT_INJECTED = Code(
    "HDL0501",
    "namespace-not-injected",
    Severity.INFO,
    "A namespace says neither that its pods get sidecars nor that they do not.",
    f"Label it `{NAMESPACE_INJECTION}=enabled`, or `disabled` if that is meant.",
    ("IST0102",),
)
NO_SIDECAR = Code(
    "HDL0502",
    "pod-without-sidecar",
    Severity.WARNING,
    "A pod of a namespace of the mesh has no sidecar: it was there before the label, or the webhook was not reached.",
    "Create it anew, such as by `kubectl rollout restart` of its workload.",
    ("IST0103",),
)
TWO_LABELS = Code(
    "HDL0503",
    "two-injection-labels",
    Severity.WARNING,
    f"A namespace has both `{NAMESPACE_INJECTION}` and `{REVISION}`: the first decides, and the revision is not used.",
    "Remove one of the two labels.",
    ("IST0123",),
)
UNKNOWN_ANNOTATION = Code(
    "HDL0504",
    "annotation-without-effect",
    Severity.WARNING,
    "An annotation of Istio's for pods that is misspelled, or that Heddle does not act upon.",
    "See docs/reference/annotations.md for those that count.",
    ("IST0108", "IST0135", "IST0136"),
)
INVALID_ANNOTATION = Code(
    "HDL0505",
    "invalid-annotation",
    Severity.ERROR,
    "An annotation of a pod whose value cannot be read: a pod that is created so is refused.",
    "Correct the value.",
    ("IST0125",),
)
MISPLACED_ANNOTATION = Code(
    "HDL0506",
    "misplaced-annotation",
    Severity.WARNING,
    "An annotation for pods on a namespace or a Service, where it has no effect.",
    "Move it to the pod, in a workload to `spec.template.metadata`.",
    ("IST0107",),
)
CODES = (NOT_INJECTED, NO_SIDECAR, TWO_LABELS, UNKNOWN_ANNOTATION, INVALID_ANNOTATION, MISPLACED_ANNOTATION)

_FOR_PODS = ("sidecar.istio.io/", "traffic.sidecar.istio.io/", "inject.istio.io/", "status.sidecar.istio.io/")
_KUBERNETES_OWN = frozenset({"kube-system", "kube-public", "kube-node-lease", "local-path-storage"})


def namespace_says_what_it_wants(view: View, thing: Namespace) -> Iterator[Finding]:
    labels = thing.meta.labels
    if NAMESPACE_INJECTION in labels and REVISION in labels:
        says = f"both labels are there: {NAMESPACE_INJECTION} decides, and {REVISION} is not used"
        path = ("metadata", "labels", REVISION)
        hint = "remove one of the two"
        yield TWO_LABELS.on(thing, *path, says=says, hint=hint, value=labels[REVISION], fix=Fix(path))
    own = _KUBERNETES_OWN | {view.snapshot.settings.root_namespace}
    if NAMESPACE_INJECTION in labels or REVISION in labels or thing.meta.name in own:
        return
    pods = view.workloads.get(thing.meta.name, ())
    if pods and not any(each.has_sidecar for each in pods):
        says = "it has no injection label, and none of its pods has a sidecar"
        hint = f"kubectl label namespace {thing.meta.name} {NAMESPACE_INJECTION}=enabled (or =disabled, to say so)"
        yield NOT_INJECTED.on(thing, "metadata", "labels", says=says, hint=hint)


def pod_has_its_sidecar(view: View, thing: Pod) -> Iterator[Finding]:
    namespace = view.snapshot.namespaces.get(thing.meta.namespace)
    labels = namespace.meta.labels if namespace is not None else {}
    wanted = labels.get(NAMESPACE_INJECTION) == "enabled" or (
        REVISION in labels and labels.get(NAMESPACE_INJECTION) is None
    )
    wish = thing.meta.labels.get(INJECT) or thing.meta.annotations.get(INJECT) or "true"
    if not wanted or thing.has_sidecar or thing.host_network or thing.finished or wish.lower() in ("false", "0", "no"):
        return
    says = f"namespace {thing.meta.namespace} is in the mesh, and this pod has no sidecar"
    yield NO_SIDECAR.on(thing, says=says, hint="create it anew: kubectl rollout restart of its workload")


def annotations_are_understood(view: View, thing: Pod) -> Iterator[Finding]:
    """A sidecar's own annotations are left out: injection wrote them."""
    annotations = thing.meta.annotations
    for name in annotations:
        for says in unheeded_annotations({name: annotations[name]}):
            path = ("metadata", "annotations", name)
            hint = "docs/reference/annotations.md has those that count"
            meant = nearest_annotation(name)
            fix = Fix(path, meant) if meant and meant not in annotations else None
            yield UNKNOWN_ANNOTATION.on(thing, *path, says=says, hint=hint, value=annotations[name], fix=fix)
    try:
        parse_options(annotations, f"Pod {thing.meta.key}")
    except ObjectErrors as error:
        for problem in error.problems:
            hint = problem.hint or "correct the value"
            yield INVALID_ANNOTATION.on(thing, *problem.path, says=problem.message, hint=hint)


def annotations_are_in_their_place(view: View, thing: Namespace | Service) -> Iterator[Finding]:
    annotations: Any = thing.meta.annotations
    for name, value in annotations.items():
        if name.startswith(_FOR_PODS):
            says = f"{name} is for pods: on a {type(thing).__name__} it has no effect"
            path = ("metadata", "annotations", name)
            hint = "move it to the pods, in a workload to spec.template.metadata.annotations"
            yield MISPLACED_ANNOTATION.on(thing, *path, says=says, hint=hint, value=value)
