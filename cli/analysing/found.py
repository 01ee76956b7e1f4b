"""What is doubtful about some objects, each finding at its place. Pure.

Objects that are wrong are findings too, and the others are looked at without them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from cli.diffing.overlay import key_of
from local.offline import Objects, settings_key
from mesh.analysis.model import Code, Finding, Severity, Subject
from mesh.analysis.objects import INVALID, UNREADABLE, of_status, of_warning
from mesh.analysis.registry import CODES, analyse, suppressed
from mesh.analysis.view import View
from mesh.assembly import Assembly
from mesh.errors import HeddleError, InvalidInput
from mesh.kinds import find_kind, without_effect
from mesh.manifest import Document, ManifestProblem
from mesh.objects import Key, parse_meta
from mesh.problems import FieldProblem, ObjectErrors
from mesh.settings import MeshSettings, mesh_settings, parse_mesh_settings
from mesh.snapshot import CORE, Snapshot

_ISTIOCTLS = re.compile(r"IST\d{4}")
_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


@dataclass(frozen=True, slots=True)
class Placed:
    """A finding, and the file and line (from 1) where its field stands; no file for an object of a mesh that runs."""

    finding: Finding
    file: str = ""
    line: int = 0
    document: Document | None = None


@dataclass(frozen=True, slots=True)
class Suppression:
    """A code (Heddle's or istioctl's) that is not reported; of some objects only, if `about`, a pattern, names them."""

    code: str
    about: str = ""

    def covers(self, finding: Finding) -> bool:
        codes = (finding.code.number, *finding.code.istio, finding.code.name)
        return self.code in codes and (not self.about or fnmatchcase(str(finding.about), self.about))


def suppression(text: str) -> Suppression:
    """`HDL0104` or `HDL0104=Gateway infra/edge`, also as istioctl writes it, `Gateway edge.infra`; `*` for any letters.

    InvalidInput for anything else, and for a code that Heddle does not have. Any that looks like istioctl's may be
    named: not all of its messages are Heddle's, and other versions have others.
    """
    code, equals, about = (part.strip() for part in text.partition("="))
    words = about.split()
    if not code or (equals and len(words) != 2):
        hint = "write a code, or CODE=KIND NAMESPACE/NAME, such as HDL0104=Gateway infra/edge"
        raise InvalidInput(f"{text!r} suppresses nothing", field="--suppress", hint=hint)
    if not _ISTIOCTLS.fullmatch(code) and code not in {*CODES, *(each.name for each in CODES.values())}:
        hint = "docs/analysis.md has all codes"
        raise InvalidInput(f"no code is called {code!r}", field="--suppress", hint=hint)
    if not words:
        return Suppression(code)
    kind, name = words
    if "/" not in name and "." in name:  # the name of an object may have dots, that of its namespace has none
        first, _, last = name.rpartition(".")
        name = f"{last}/{first}"
    return Suppression(code, f"{kind} {name}")


def found(
    objects: Objects,
    documents: Iterable[Document] = (),
    problems: Iterable[ManifestProblem] = (),
    *,
    complete: bool,
    now: datetime,
    namespace: str = "default",
    settings: Key | None = None,
    plain_text: Callable[[View], Mapping[Key, int]] = lambda _view: {},
    more: Iterable[Finding] = (),
) -> list[Placed]:
    """Everything, with what was found before (`more`), the worst first.

    `documents`: where objects stand that come from files; `namespace`: of those that name none; `settings`: the
    ConfigMap of the mesh's settings, where the objects need not have it; `plain_text` says how much pods have taken in
    plain text. `complete` as in mesh.analysis.view.
    """
    places = {(each.kind, key_of(each, namespace)): each for each in documents}
    snapshot, own = _assembled(objects, settings or settings_key(objects))
    view = View(snapshot, complete=complete, now=now)
    view = View(snapshot, complete=complete, now=now, plain_text=plain_text(view), before=view)
    makers = {parse_meta(raw).key: _maker(raw) for raw in objects.get("Pod", ())} if places else {}
    everything = dict.fromkeys(_of_maker(each, makers, places) for each in (*more, *own, *analyse(view)))
    placed = [_placed(each, places) for each in everything]
    placed += [_of_text(problem) for problem in problems]
    return sorted(placed, key=_order)


def _order(each: Placed) -> tuple[Any, ...]:
    about, code = each.finding.about, each.finding.code
    return _ORDER[code.severity], each.file, each.line, about, code.number, each.finding.problem.field


def _assembled(objects: Objects, settings: Key) -> tuple[Snapshot, list[Finding]]:
    """The objects that can be read, and what is wrong with the others, or doubtful about them by themselves."""
    assembly = Assembly()
    own: list[Finding] = []
    for kind, raws in objects.items():
        for raw in raws:
            entry = find_kind(str(raw.get("apiVersion") or ""), kind)
            if kind not in CORE and (entry is None or not entry.of_istio):
                continue
            own += _taken(assembly, kind, raw)
    own += _settings(assembly, objects, settings)
    return assembly.build(), own


def _taken(assembly: Assembly, kind: str, raw: Mapping[str, Any]) -> Iterator[Finding]:
    meta = parse_meta(raw)
    about = Subject(kind, *meta.key)
    try:
        warnings = assembly.put(kind, raw)
    except ObjectErrors as error:
        yield from (Finding(INVALID, about, problem) for problem in error.problems)
        return
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # one of Kubernetes' own, not as it defines it
        says = f"it is no {kind}: {type(error).__name__} {error}"
        yield Finding(INVALID, about, FieldProblem((), says, "compare it with Kubernetes' reference"))
        return
    silenced = suppressed(meta.annotations)
    thing = assembly.get(kind, meta.key)
    if kind in CORE:
        return
    doubts = (of_warning(about, problem) for problem in (*warnings, *without_effect(thing)))
    yield from (each for each in (*doubts, *of_status(about, raw)) if not silenced(each.code))


def _settings(assembly: Assembly, objects: Objects, key: Key) -> Iterator[Finding]:
    assembly.settings(mesh_settings(key.namespace))
    for raw in objects.get("ConfigMap", ()):
        if parse_meta(raw).key == key:
            try:
                settings: MeshSettings = parse_mesh_settings((raw.get("data") or {}).get("mesh", ""), key.namespace)
            except HeddleError as error:
                yield Finding(
                    INVALID, Subject("ConfigMap", *key), FieldProblem(("data", "mesh"), error.message, error.hint or "")
                )
            else:
                assembly.settings(settings)


def _maker(pod: Mapping[str, Any]) -> Subject | None:
    """The workload that a pod was made from (local/offline.py), or that made it."""
    meta = pod["metadata"]
    owner = next(iter(meta.get("ownerReferences") or ()), None)
    return Subject(owner["kind"], meta.get("namespace", ""), owner["name"]) if owner else None


def _of_maker(
    finding: Finding, makers: Mapping[Key, Subject | None], places: Mapping[tuple[str, Key], Document]
) -> Finding:
    """What is found about the pods of a workload in a file is a finding about the workload, once."""
    about = finding.about
    maker = makers.get(Key(about.namespace, about.name)) if about.kind == "Pod" else None
    if maker is None or (maker.kind, Key(maker.namespace, maker.name)) not in places:
        return finding
    way = ("spec", "jobTemplate", "spec", "template") if maker.kind == "CronJob" else ("spec", "template")
    fix = replace(finding.fix, path=(*way, *finding.fix.path)) if finding.fix else None
    return replace(finding, about=maker, problem=finding.problem.under(*way), fix=fix)


def _placed(finding: Finding, places: Mapping[tuple[str, Key], Document]) -> Placed:
    about = finding.about
    document = places.get((about.kind, Key(about.namespace, about.name)))
    if document is None:
        return Placed(finding)
    return Placed(finding, document.source, document.line_of(finding.problem.path), document)


def _of_text(problem: ManifestProblem) -> Placed:
    told = FieldProblem((), problem.message, problem.hint)
    return Placed(Finding(UNREADABLE, Subject("", "", ""), told), problem.source, problem.line)


def kept(
    placed: Iterable[Placed], suppressions: Iterable[Suppression], namespace: str = "", files_only: bool = False
) -> list[Placed]:
    """Those that are reported: not suppressed, and of objects of `namespace`, or of files."""
    silent = tuple(suppressions)
    return [
        each
        for each in placed
        if not any(one.covers(each.finding) for one in silent)
        and (not namespace or namespace in (each.finding.about.namespace, _own_name(each.finding)))
        and (not files_only or each.file)
    ]


def _own_name(finding: Finding) -> str:
    """A Namespace's findings are its own."""
    return finding.about.name if finding.about.kind == "Namespace" else ""


def at_least(placed: Iterable[Placed], severity: str) -> bool:
    """Whether any is as bad as `severity`, or worse."""
    return any(_ORDER[each.finding.severity] <= _ORDER[Severity(severity)] for each in placed)


def codes_of(placed: Iterable[Placed]) -> list[Code]:
    """Each code once, in order."""
    return sorted({each.finding.code for each in placed}, key=lambda code: code.number)
