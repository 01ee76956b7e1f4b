"""An explanation for people, and for programs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from discovery.explain.model import Branch, Explanation, Outcome, Part, Result, Step
from discovery.plan.origins import Origin
from mesh.objects import Key

WIDTH = max(len(part.value) for part in Part) + 2  # `passed over` is as long as the longest


def text(explained: Explanation, alike: tuple[Key, ...] = ()) -> str:
    """The way of the request in order, then what becomes of each share."""
    request = explained.request
    role = explained.role.value if explained.role else "no sidecar"
    others = f", as from {len(alike)} more like it" if alike else ""
    lines = [f"{_what(explained)} from {request.client} ({role}{others})"]
    lines += [""] if explained.steps else []
    lines += [_step(step) for step in explained.steps if step.part not in (Part.ROUTE, Part.FAULT)]
    lines += [f"  {'passed over':{WIDTH}}{step.says}{_of(step.origins)}" for step in explained.passed_over]
    lines += [_step(step) for step in explained.steps if step.part is Part.ROUTE]
    lines += [f"  {'note':{WIDTH}}{note}" for note in explained.notes]
    for branch in explained.branches:
        lines += ["", _headline(branch), *(_step(step) for step in branch.steps)]
    return "\n".join(lines)


def as_json(explained: Explanation, alike: tuple[Key, ...] = ()) -> dict[str, Any]:
    """The same, in full."""
    request = explained.request
    return {
        "client": str(request.client),
        "alike": [str(key) for key in alike],
        "role": explained.role.value if explained.role else "",
        "request": {
            "host": request.host,
            "port": request.port,
            "path": request.path,
            "method": request.method,
            "authority": request.named,
            "tls": request.tls,
            "headers": dict(request.headers),
        },
        "http": explained.http,
        "steps": [_step_json(step) for step in explained.steps],
        "passedOver": [_step_json(step) for step in explained.passed_over],
        "branches": [_branch_json(branch) for branch in explained.branches],
        "notes": list(explained.notes),
    }


def _what(explained: Explanation) -> str:
    request = explained.request
    scheme = "https://" if request.tls else ""
    host = f"[{request.host}]" if ":" in request.host else request.host
    verb = f"{request.method} " if explained.http else ""
    named = f" with host {request.authority}" if request.authority else ""
    return f"{verb}{scheme}{host}:{request.port}{request.path}{named}"


def _headline(branch: Branch) -> str:
    share = f"{branch.share * 100:.4g} %"
    outcome = branch.outcome
    if outcome.result is Result.SERVED:
        how = f" over {branch.transport.value}" if branch.transport else ""
        return f"{share} served by {_listed(branch.workloads)}{how}"
    verb = "answered" if outcome.result is Result.ANSWERED else "REFUSED"
    status = f" with {outcome.status}" if outcome.status else ": the connection ends"
    to = f", on the way to {_listed(branch.workloads)}" if branch.workloads else ""
    lines = [f"{share} {verb}{status}{to}", f"  {'because':{WIDTH}}{outcome.reason}{_of(outcome.origins)}"]
    if outcome.hint:
        lines.append(f"  {'way out':{WIDTH}}{outcome.hint}")
    return "\n".join(lines)


def _listed(workloads: Iterable[str]) -> str:
    """All, while they are few; then how many, by the beginnings that their names share."""
    names = list(workloads)
    if len(names) <= 4:
        return ", ".join(names) or "nobody"
    counts = Counter(name.rpartition("-")[0] or name for name in names)
    return ", ".join(f"{count} pods {head}-..." for head, count in sorted(counts.items()))


def _step(step: Step) -> str:
    name = f"{step.name}: " if step.name else ""
    return f"  {step.part.value:{WIDTH}}{name}{step.says}{_of(step.origins)}"


def _of(origins: Iterable[Origin]) -> str:
    found = ", ".join(origin_text(origin) for origin in origins)
    return f"  [{found}]" if found else ""


def origin_text(origin: Origin) -> str:
    """`VirtualService default/reviews spec.http[0]`."""
    where = f"{origin.kind} {origin.namespace + '/' if origin.namespace else ''}{origin.name}"
    return f"{where} {origin.field}".rstrip()


def origin_json(origin: Origin) -> dict[str, str]:
    body = {"kind": origin.kind, "namespace": origin.namespace, "name": origin.name}
    return body | ({"field": origin.field} if origin.field else {})


def _step_json(step: Step) -> dict[str, Any]:
    origins = [origin_json(origin) for origin in step.origins]
    return {"part": step.part.value, "name": step.name, "says": step.says, "origins": origins}


def _branch_json(branch: Branch) -> dict[str, Any]:
    return {
        "share": round(branch.share, 6),
        "outcome": _outcome_json(branch.outcome),
        "destination": branch.destination,
        "subset": branch.subset,
        "workloads": list(branch.workloads),
        "transport": branch.transport.value if branch.transport else "",
        "steps": [_step_json(step) for step in branch.steps],
    }


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "result": outcome.result.value,
        "status": outcome.status,
        "reason": outcome.reason,
        "hint": outcome.hint,
        "origins": [origin_json(origin) for origin in outcome.origins],
    }
