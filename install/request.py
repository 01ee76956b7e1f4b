"""What was asked for: files, `--set` and options, laid over the profile, checked, as one `OperatorSpec`. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from install import files
from install.merging import overlaid
from install.mesh_config import mesh_config_problems
from install.operator import API_VERSION, KIND, PROFILES, OperatorSpec
from install.paths import assign, parse_assignment
from mesh.errors import InvalidInput
from mesh.kinds import group_of
from mesh.problems import FieldProblem, ObjectErrors, show
from mesh.validation import checked, nearest, unhonoured_problems
from mesh.yaml_values import Unreadable, load

_NOT_HERE = "Heddle does not act upon this field"
_TOP = ("apiVersion", "kind", "metadata", "spec", "status")
ISTIO_HUBS = ("docker.io/istio", "gcr.io/istio-release", "gcr.io/istio-testing", "registry.istio.io", "istio")


@dataclass(frozen=True, slots=True)
class Request:
    """`spec`: the profile with everything asked for laid over it. `warnings`: what was asked for and has no effect.
    `asked`: what was asked for, alone, as an IstioOperator."""

    spec: OperatorSpec
    warnings: tuple[FieldProblem, ...]
    asked: dict[str, Any]


def read_operator(text: str, source: str) -> dict[str, Any]:
    """The IstioOperator in `text`, as plain values; InvalidInput when it is something else."""
    try:
        raw = load(text)
    except Unreadable as error:
        says = f"{source}:{error.line + 1}: {error.message}"
        raise InvalidInput(says, hint=error.hint or "one IstioOperator is expected") from None
    if not isinstance(raw, Mapping):
        raise InvalidInput(f"{source}: an IstioOperator is expected, and this is {show(raw)}")
    api_version, kind = raw.get("apiVersion"), raw.get("kind")
    if kind != KIND or group_of(str(api_version)) != group_of(API_VERSION):
        says = f"{source}: an IstioOperator is expected, and this is {show(kind)} of {show(api_version)}"
        raise InvalidInput(says, hint=f"begin it with apiVersion: {API_VERSION} and kind: {KIND}")
    if api_version != API_VERSION:
        raise InvalidInput(f"{source}: there is no version {show(api_version)}", hint=f"write {API_VERSION}")
    for key in raw:
        if key not in _TOP:
            meant = nearest(key, _TOP)
            raise InvalidInput(f"{source}: there is no field {key!r}", hint=f"did you mean {meant}?" if meant else "")
    return dict(raw)


def request(
    operators: Iterable[tuple[str, Mapping[str, Any]]],
    assignments: Sequence[str] = (),
    *,
    profile: str = "",
    revision: str = "",
) -> Request:
    """`operators` (source and content of each) in order, then `assignments`, then the options. ObjectErrors names every
    field that is wrong; the profile is what the last of them says."""
    asked: dict[str, Any] = {}
    warnings: list[FieldProblem] = []
    for source, raw in operators:
        spec: Any = {} if raw.get("spec") is None else raw["spec"]
        _check(spec, f"IstioOperator in {source}", warnings)
        namespace = (raw.get("metadata") or {}).get("namespace")
        asked = overlaid(asked, {"namespace": namespace, **spec})
    from_line: dict[str, Any] = {"profile": profile or None, "revision": revision or None}
    changed = copy.deepcopy(asked)
    for text in assignments:
        steps, value = parse_assignment(text)
        assign(changed, steps, copy.deepcopy(value), f"--set {text}")
    if assignments:
        of_all: list[FieldProblem] = []
        _check(changed, "IstioOperator with --set", of_all)
        warnings += [each for each in of_all if each not in warnings]
    asked = overlaid(changed, from_line)
    chosen = asked.get("profile") or "default"
    if chosen not in PROFILES:
        meant = nearest(str(chosen), PROFILES)
        hint = f"did you mean {meant}?" if meant else f"use one of {', '.join(PROFILES)}"
        raise InvalidInput(f"there is no profile {show(chosen)}", field="spec.profile", hint=hint)
    merged, found = checked(OperatorSpec, overlaid(files.profile(chosen)["spec"], asked))
    problems = [each for each in found if not each.warning]
    if merged is None or problems:
        raise ObjectErrors("IstioOperator", problems)
    return Request(merged, tuple(warnings), {"apiVersion": API_VERSION, "kind": KIND, "spec": asked})


def _check(spec: Any, about: str, warnings: list[FieldProblem]) -> None:
    """ObjectErrors for a spec that is wrong; adds a warning for each field without effect."""
    model, found = checked(OperatorSpec, spec)
    problems = list(found)
    config = spec.get("meshConfig") if isinstance(spec, Mapping) else None
    if isinstance(config, Mapping):
        problems += mesh_config_problems(config, ("spec", "meshConfig"))
    wrong = [each for each in problems if not each.warning]
    if model is None or wrong:
        raise ObjectErrors(about, wrong)
    warnings += [each for each in problems if each.warning]
    warnings += [FieldProblem(each.path, _NOT_HERE, warning=True) for each in unhonoured_problems(model)]
    warnings += _foreign_images(model)


def _foreign_images(spec: OperatorSpec) -> Iterable[FieldProblem]:
    says = "Istio's images are not Heddle's; hub and tag are left as they are in the profile"
    if spec.hub in ISTIO_HUBS:
        yield FieldProblem(("spec", "hub"), says, warning=True)
    if spec.values.global_.hub in ISTIO_HUBS:
        yield FieldProblem(("spec", "values", "global", "hub"), says, warning=True)
