"""Validating admission, AdmissionReview in and out: every error of an object at once, and warnings. Pure.

The rules are those of `heddle validate` (mesh/validation.py), the warnings those of `heddle analyze` (mesh/analysis/).
It never stands in the way of a deletion: DELETE is let through whatever is sent, and so is an update of an object that
is being deleted, or one that changes nothing of the spec (finalizers and labels of an object that was wrong before).
Source: Kubernetes' "Dynamic Admission Control"; kubectl shows `details.causes` of a refusal with reason Invalid one by
one; of a warning, about 256 characters are certain to arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from mesh.admission import PROBE
from mesh.analysis.model import Finding
from mesh.kinds import Kind, find_kind, parse_with_warnings, without_effect
from mesh.objects import parse_service
from mesh.problems import FieldProblem, ObjectErrors
from mesh.settings import is_settings, settings_problems
from webhook.envelope import MAX_OBJECT, Raw, answer, request_of
from webhook.overrides import Override
from webhook.preflight import ANYWAY, Asks, Refused, not_asked

MAX_REVIEW = 2 * MAX_OBJECT + (1 << 20)
"""Bytes: an update has the object twice."""
LONGEST_WARNING = 256
MOST_WARNINGS = 12
_CHECKED = ("CREATE", "UPDATE")

Advise = Callable[[str, Any], Iterable[Finding]]
"""What is doubtful about an object (its kind, and the object typed), among what is known of the cluster."""


class Verdict(StrEnum):
    PASSED = "passed"
    REFUSED = "refused"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Validated:
    """The answer, as bytes, and what to log and count of it. `reason` is empty for what has passed."""

    body: bytes
    verdict: Verdict
    about: str
    group: str
    version: str
    resource: str
    reason: str = ""
    warnings: int = 0
    overridden: Override | None = None
    """It is admitted although an Envoy refuses what it leads to. A dry run admits nothing."""


def no_advice(_kind: str, _thing: Any) -> Iterable[Finding]:
    return ()


def validate(body: bytes, content_type: str, advise: Advise = no_advice, preflight: Asks = not_asked) -> Validated:
    """Answer one request. Raises Unsupported (415), TooLarge (413) or InvalidInput (400) for one that is no review."""
    request = request_of(body, content_type, MAX_REVIEW)
    why = _not_checked(request)
    if why:
        return _allowed(request, Verdict.NOT_CHECKED, (), why)
    raw = request["object"]
    if probe := _annotations(raw).get(PROBE):
        return _refused(request, 403, "Forbidden", f"asked and answered: {probe}", ())
    entry = find_kind(str(raw.get("apiVersion")), str(raw.get("kind")))
    if entry is None:
        return _allowed(request, Verdict.NOT_CHECKED, (), f"Heddle does not know {raw.get('kind')}")
    if entry.model is None:
        return _advised(request, raw, advise)
    return _checked(request, entry, raw, advise, preflight)


def unchecked(body: bytes, message: str) -> Validated:
    """The answer to a review, known to be one, that went wrong in a way that nobody foresaw: nobody is locked out."""
    request = orjson.loads(body)["request"]
    return _allowed(request, Verdict.NOT_CHECKED, (f"{_about(request)} was not checked: {message}",), message)


def _checked(request: Raw, entry: Kind, raw: Raw, advise: Advise, preflight: Asks) -> Validated:
    try:
        typed, found = parse_with_warnings(raw, request.get("namespace") or "")
    except ObjectErrors as error:
        if _spec_is_unchanged(request, raw):
            why = "the spec is as it was; it is wrong, and this changes only what is beside it"
            return _allowed(request, Verdict.PASSED, (f"{error.about}: {why}",))
        return _refused(request, 422, "Invalid", str(error), map(_cause, error.problems))
    except RecursionError:
        return _refused(request, 422, "Invalid", f"{_about(request)}: it is nested too deeply (flatten it)", ())
    problems = (*found, *(without_effect(typed) if entry.of_istio else ()))
    said = [f"{_about(request)}: {problem}" for problem in problems]
    tried = entry.of_istio and not entry.planned and not _spec_is_unchanged(request, raw)
    refusals = preflight(raw) if tried else []
    if refusals:
        reason = str(_annotations(raw).get(ANYWAY) or "").strip()
        if not reason:
            return _would_be_refused(request, refusals)
        said += [f"{_about(request)}: {each}; admitted all the same: {reason}" for each in refusals]
        warnings = _with_advice(said, advise, entry.kind, typed)
        passed = _allowed(request, Verdict.PASSED, warnings, f"{ANYWAY}: {reason}")
        return passed if request.get("dryRun") else replace(passed, overridden=_override(raw, reason, refusals))
    return _allowed(request, Verdict.PASSED, _with_advice(said, advise, entry.kind, typed))


def _override(raw: Raw, why: str, refusals: Sequence[Refused]) -> Override:
    """The object has a name and a uid by now, also where it is created."""
    metadata = raw["metadata"]
    namespace, name, uid = (str(metadata.get(key) or "") for key in ("namespace", "name", "uid"))
    return Override(raw["apiVersion"], raw["kind"], namespace, name, uid, why, tuple(map(str, refusals)))


def _would_be_refused(request: Raw, refusals: Sequence[Refused]) -> Validated:
    way_out = f"change it, or admit it all the same by the annotation {ANYWAY}: <why>"
    message = f"{_about(request)}: " + "; ".join(f"{each} ({way_out})" for each in refusals)
    return _refused(request, 422, "Invalid", message, [_Cause(each.field, f"{each} ({way_out})") for each in refusals])


def _advised(request: Raw, raw: Raw, advise: Advise) -> Validated:
    """About one of Kubernetes' own kinds, which the API server checks itself."""
    if is_settings(raw):
        wrong = list(settings_problems(raw))
        if wrong and not _same(request, raw, "data"):
            message = f"{_about(request)}: " + "; ".join(map(str, wrong))
            return _refused(request, 422, "Invalid", message, map(_cause, wrong))
        return _allowed(request, Verdict.PASSED, ())
    if raw.get("kind") != "Service":
        return _allowed(request, Verdict.NOT_CHECKED, (), f"{raw.get('kind')} is not Heddle's to check")
    return _allowed(request, Verdict.PASSED, _with_advice([], advise, "Service", parse_service(raw)))


def _with_advice(said: Sequence[str], advise: Advise, kind: str, thing: Any) -> list[str]:
    return [*said, *map(_shortened, advise(kind, thing))]


def _shortened(found: Finding) -> str:
    """The finding as a warning; without the way out where there is no room for it."""
    whole = str(found)
    if len(whole) <= LONGEST_WARNING:
        return whole
    short = f"{found.about}: {found.problem.field}: {found.problem.message}"
    return f"{short[: LONGEST_WARNING - 13]} [{found.code.number}]"


def _not_checked(request: Raw) -> str:
    """Why a request is let through unread; "" when its object is looked at."""
    if request.get("operation") not in _CHECKED:
        return f"{request.get('operation') or 'no operation'} is not checked: only what is created or changed is"
    if request.get("subResource"):
        return f"this is about {request['subResource']} of an object"
    raw = request.get("object")
    if not isinstance(raw, dict):
        return "there is no object in it"
    metadata = raw.get("metadata")
    if isinstance(metadata, dict) and metadata.get("deletionTimestamp"):
        return "the object is being deleted"
    entry = find_kind(str(raw.get("apiVersion")), str(raw.get("kind")))
    version = str(raw.get("apiVersion")).rpartition("/")[2]
    if entry is not None and version not in entry.versions:
        return f"Heddle knows {entry.kind} in {', '.join(entry.versions)}, not in {version}"
    return ""


def _spec_is_unchanged(request: Raw, raw: Raw) -> bool:
    return _same(request, raw, "spec")


def _same(request: Raw, raw: Raw, field: str) -> bool:
    """Whether an update leaves `field` as it was."""
    old = request.get("oldObject")
    return request.get("operation") == "UPDATE" and isinstance(old, dict) and old.get(field) == raw.get(field)


def _annotations(raw: Raw) -> Mapping[str, Any]:
    metadata = raw.get("metadata")
    found = metadata.get("annotations") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def _about(request: Raw) -> str:
    kind = (request.get("kind") or {}).get("kind") or "object"
    name = request.get("name") or "*"
    return f"{kind} {request['namespace']}/{name}" if request.get("namespace") else f"{kind} {name}"


def _allowed(request: Raw, verdict: Verdict, warnings: Sequence[str], reason: str = "") -> Validated:
    response: Raw = {"uid": request["uid"], "allowed": True}
    if warnings:
        more = len(warnings) - MOST_WARNINGS
        shown = [text[:LONGEST_WARNING] for text in warnings[:MOST_WARNINGS]]
        response["warnings"] = [*shown, f"and {more} more: heddle analyze tells all"] if more > 0 else shown
    return _validated(request, response, verdict, reason, len(warnings))


class _Cause(NamedTuple):
    field: str
    message: str


def _refused(request: Raw, status: int, reason: str, message: str, causes: Iterable[_Cause]) -> Validated:
    kind = request.get("kind") or {}
    details: Raw = {"name": request.get("name") or "", "group": kind.get("group") or "", "kind": kind.get("kind") or ""}
    listed = [{"reason": "FieldValueInvalid", "field": each.field, "message": each.message} for each in causes]
    said: Raw = {"status": "Failure", "message": message, "reason": reason, "code": status}
    if listed:
        said["details"] = {**details, "causes": listed}
    response = {"uid": request["uid"], "allowed": False, "status": said}
    return _validated(request, response, Verdict.REFUSED, message, 0)


def _cause(problem: FieldProblem) -> _Cause:
    shown = f", and this is {problem.value}" if problem.value and problem.value not in problem.message else ""
    way_out = f" ({problem.hint})" if problem.hint else ""
    return _Cause(problem.field, f"{problem.message}{shown}{way_out}")


def _validated(request: Raw, response: Raw, verdict: Verdict, reason: str, warnings: int) -> Validated:
    resource = request.get("resource") or {}
    group, version, plural = (str(resource.get(key) or "") for key in ("group", "version", "resource"))
    return Validated(answer(response), verdict, _about(request), group, version, plural, reason, warnings)
