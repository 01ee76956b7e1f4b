"""What a set of manifests asks of the local mesh. Pure: documents in; objects, notices and problems out.

An object that is wrong is left out and named; the caller keeps what it had of it, and everything else goes on.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mesh.errors import HeddleError
from mesh.kinds import Kind, find_kind, parse_istio
from mesh.manifest import Document
from mesh.objects import Key
from mesh.problems import ObjectErrors

Raw = dict[str, Any]


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

    objects: dict[tuple[str, Key], Raw] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()
    notices: tuple[str, ...] = ()


def desired(documents: Iterable[Document]) -> Desired:
    """The objects that the documents describe, completed as an API server would (namespace, data of secrets)."""
    objects: dict[tuple[str, Key], Raw] = {}
    places: dict[tuple[str, Key], Place] = {}
    refused: list[Refused] = []
    notices: list[str] = []
    for document in documents:
        place = Place(document.source, document.line)
        entry = find_kind(document.api_version, document.kind)
        namespaced = entry.namespaced if entry is not None else True
        key = Key((document.namespace or "default") if namespaced else "", document.name)
        if entry is None or not (entry.of_istio or "engine" in entry.watched_by):
            notices.append(f"{place}: {document.kind} {key}: `heddle local` does not act upon this kind")
            continue
        try:
            raw = _complete(document, entry, key)
        except ObjectErrors as error:
            refused += [
                Refused(Place(document.source, document.line_of(p.path)), document.kind, key, str(p))
                for p in error.problems
            ]
            continue
        except HeddleError as error:
            refused.append(Refused(place, document.kind, key, str(error)))
            continue
        at = (document.kind, key)
        if at in objects:
            message = f"is already defined at {places[at]}; the first one counts"
            refused.append(Refused(place, document.kind, key, message))
            continue
        objects[at], places[at] = raw, place
    for namespace in sorted({key.namespace for _, key in objects if key.namespace}):
        if ("Namespace", Key("", namespace)) not in objects:
            objects["Namespace", Key("", namespace)] = _namespace(namespace)
            if namespace != "default":
                notices.append(f"namespace {namespace} is made without labels, since no manifest describes it")
    return Desired(objects, tuple(refused), tuple(notices))


def _complete(document: Document, entry: Kind, key: Key) -> Raw:
    raw = {**document.raw, "metadata": {**document.raw["metadata"], "name": key.name}}
    if key.namespace:
        raw["metadata"]["namespace"] = key.namespace
    raw.pop("status", None)  # the engine's to say
    if entry.of_istio:
        parse_istio(raw)
    if document.kind == "Secret" and "stringData" in raw:
        data = {name: base64.b64encode(str(text).encode()).decode() for name, text in raw.pop("stringData").items()}
        raw["data"] = {**(raw.get("data") or {}), **data}
    return raw


def _namespace(name: str) -> Raw:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {}}}
