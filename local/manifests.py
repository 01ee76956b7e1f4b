"""What a set of manifests asks of the local mesh. Pure: documents in; objects, notices and problems out.

An object that is wrong is left out and named; the caller keeps what it had of it, and everything else goes on.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from local import shapes
from local.unhonoured_kinds import kind_fields, template_warnings
from mesh.analysis.registry import examine
from mesh.analysis.view import View
from mesh.analysis.workloads import workloads_of_manifests
from mesh.errors import HeddleError
from mesh.identity import CONTROL_NAMESPACE
from mesh.istio.base import IstioObject
from mesh.kinds import find_kind, is_istio, parse_istio, parse_with_warnings, without_effect
from mesh.manifest import Document
from mesh.objects import Key, parse_namespace, parse_service
from mesh.problems import ObjectErrors
from mesh.snapshot import Snapshot

Raw = dict[str, Any]
At = tuple[str, Key]
"""Kind and key of an object."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object stands."""

    source: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class Refused:
    """An object (or a document) that cannot be used as it is written."""

    place: Place
    kind: str
    key: Key
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.kind} {self.key}: {self.message}"


@dataclass(frozen=True, slots=True)
class Desired:
    """`objects` by kind and key. `notices` are things worth knowing that stop nothing."""

    objects: dict[At, Raw] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()
    notices: tuple[str, ...] = ()


def at(document: Document) -> At:
    """Kind and key of what the document describes."""
    entry = find_kind(document.api_version, document.kind)
    namespaced = entry.namespaced if entry is not None else True
    return document.kind, Key((document.namespace or "default") if namespaced else "", document.name)


def desired(documents: Iterable[Document], reserved: frozenset[At] = frozenset()) -> Desired:
    """The objects that the documents describe, completed as an API server would (namespace, data of secrets).

    `reserved`: what the engine makes itself, which manifests neither change nor take away.
    """
    reading = _Reading(reserved)
    for document in documents:
        reading.take(document)
    reading.add_namespaces()
    reading.advise()
    return Desired(_in_order(reading.objects), tuple(reading.refused), tuple(reading.notices))


class _Reading:
    """What has been found in the documents so far."""

    def __init__(self, reserved: frozenset[At]) -> None:
        self.objects: dict[At, Raw] = {}
        self.refused: list[Refused] = []
        self.notices: list[str] = []
        self._reserved = reserved
        self._places: dict[At, Place] = {}
        self._addresses: dict[str, Key] = {}
        self._checked: list[tuple[Document, IstioObject[Any]]] = []

    def take(self, document: Document) -> None:
        place = Place(document.source, document.line)
        what = kind, key = at(document)
        entry = find_kind(document.api_version, kind)
        if not is_istio(document.api_version) and (entry is None or "engine" not in entry.watched_by):
            self.notices.append(f"{place}: {kind} {key}: `heddle local` does not act upon this kind")
            return
        if what in self._reserved:
            self.notices.append(f"{place}: {kind} {key}: left out, since `heddle local` makes its own")
            return
        owner = _controller(document.raw)
        if owner:
            self.notices.append(f"{place}: {kind} {key}: left out, since its {owner} makes its own")
            return
        if what in self._places:
            message = f"is already defined at {self._places[what]}; the first one counts (remove or rename one of them)"
            self.refused.append(Refused(place, kind, key, message))
            return
        self._places[what] = place
        try:
            raw = _complete(document, key)
        except ObjectErrors as error:
            self.refused += [
                Refused(Place(document.source, document.line_of(p.path)), kind, key, str(p)) for p in error.problems
            ]
        except HeddleError as error:
            self.refused.append(Refused(place, kind, key, str(error)))
        else:
            if self._address_is_free(document, key, raw):
                self.objects[what] = raw
                self._name_what_has_no_effect(document, key, raw)

    def _address_is_free(self, document: Document, key: Key, raw: Raw) -> bool:
        address = (raw.get("spec") or {}).get("clusterIP") if document.kind == "Service" else None
        if address in (None, "", "None"):
            return True
        first = self._addresses.setdefault(address, key)
        if first == key:
            return True
        place = Place(document.source, document.line_of(("spec", "clusterIP")))
        message = (
            f"spec.clusterIP: Service {first} asks for {address} too, at {self._places['Service', first]}; "
            "the first one counts (leave it out, or choose another address)"
        )
        self.refused.append(Refused(place, "Service", key, message))
        return False

    def _name_what_has_no_effect(self, document: Document, key: Key, raw: Raw) -> None:
        if is_istio(document.api_version):
            parsed, warnings = parse_with_warnings(document.raw, key.namespace)
            self._checked.append((document, parsed))
            for found in (*warnings, *without_effect(parsed)):
                place = Place(document.source, document.line_of(found.path))
                self.notices.append(f"{place}: {document.kind} {key}: {found}")
            return
        for path, name in kind_fields(document.kind, raw):
            place = Place(document.source, document.line_of(path))
            self.notices.append(f"{place}: {document.kind} {key}: {name} has no effect in `heddle local`")
        here = Place(document.source, document.line)
        self.notices += template_warnings(document.kind, f"{here}: {document.kind} {key}", raw)

    def advise(self) -> None:
        """What is doubtful about each of Istio's objects among all the others, as at the admission of a cluster."""
        raws = list(self.objects.values())
        services = [parse_service(raw) for (kind, _), raw in self.objects.items() if kind == "Service"]
        namespaces = [parse_namespace(raw) for (kind, _), raw in self.objects.items() if kind == "Namespace"]
        istio: dict[str, dict[Key, IstioObject[Any]]] = {}
        for _, thing in self._checked:
            istio.setdefault(thing.kind, {})[Key(thing.namespace, thing.name)] = thing
        snapshot = Snapshot(
            namespaces={each.meta.name: each for each in namespaces},
            services={each.meta.key: each for each in services},
            istio=istio,
        )
        view = View(snapshot, workloads=workloads_of_manifests(raws))
        for document, thing in self._checked:
            for found in examine(view, thing, at_admission=True):
                place = Place(document.source, document.line_of(found.problem.path))
                self.notices.append(f"{place}: {thing.kind} {at(document)[1]}: {found.problem} [{found.code.number}]")

    def add_namespaces(self) -> None:
        """A namespace for every object: a cluster would refuse the object, people's samples leave `default` out."""
        for namespace in sorted({key.namespace for _, key in self.objects if key.namespace}):
            what = ("Namespace", Key("", namespace))
            if what in self.objects or what in self._reserved or what in self._places:
                continue  # or it is described, and wrong: its last good version stays
            self.objects[what] = _namespace(namespace)
            if namespace != "default":
                self.notices.append(f"namespace {namespace} is made without labels, since no manifest describes it")


def _in_order(objects: dict[At, Raw]) -> dict[At, Raw]:
    """Namespaces first, workloads last, so that a pod finds what it refers to."""
    return dict(sorted(objects.items(), key=lambda item: _ORDER.get(item[0][0], 3)))


_ORDER = {
    "Namespace": 0,
    "ServiceAccount": 1,
    "ConfigMap": 2,
    "Secret": 2,
    "ReplicaSet": 4,
    "Deployment": 4,
    "Job": 4,
    "Pod": 5,
}


def _complete(document: Document, key: Key) -> Raw:
    raw = dict(document.raw)
    raw.pop("status", None)  # the engine's to say
    if is_istio(document.api_version):
        parse_istio(raw, key.namespace)
        return {**raw, "metadata": _own_metadata(raw["metadata"], key)}
    raw = dict(shapes.without_nulls(raw))
    problems = shapes.problems(document.kind, raw)
    if problems:
        raise ObjectErrors(f"{document.kind} {key}", problems)
    raw["metadata"] = _own_metadata(raw["metadata"], key)
    if document.kind == "Secret" and "stringData" in raw:
        data = {name: base64.b64encode(text.encode()).decode() for name, text in raw.pop("stringData").items()}
        raw["data"] = {**raw.get("data", {}), **data}
    return raw


def _own_metadata(meta: Raw, key: Key) -> Raw:
    kept = {name: value for name, value in meta.items() if name not in shapes.SERVER_FIELDS and name != "namespace"}
    return {**kept, **({"namespace": key.namespace} if key.namespace else {})}


def _controller(raw: Raw) -> str:
    """`Deployment web` for an object of a dump that something else makes again; else empty."""
    owners = raw["metadata"].get("ownerReferences")
    for owner in owners if isinstance(owners, list) else ():
        if isinstance(owner, dict) and owner.get("controller") is True:
            return f"{owner.get('kind')} {owner.get('name')}"
    return ""


def _namespace(name: str) -> Raw:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {}}}


def control_plane_objects(raws: Iterable[Raw]) -> frozenset[At]:
    """Kind and key of the engine's own objects, as `desired` takes them."""
    own = {(raw["kind"], Key(raw["metadata"].get("namespace", ""), raw["metadata"]["name"])) for raw in raws}
    return frozenset({*own, ("Namespace", Key("", CONTROL_NAMESPACE))})
