"""The CRDs as they are committed. What the API server makes of them is tested in tests/cluster/test_crds.py."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from mesh import crd
from mesh.crd_schema import ANYTHING, RULES
from mesh.kinds import KINDS, Kind

TYPES = {"object", "array", "string", "integer", "number", "boolean"}


def spec_of(kind: Kind) -> dict[str, Any]:
    found: dict[str, Any] = crd.crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


def nodes(schema: dict[str, Any], path: str = "spec") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema within `schema`, itself first."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            yield from nodes(schema[keyword], f"{path}[]")


def test_what_is_committed_is_what_the_models_say() -> None:
    written = dict(crd.files())
    assert {file.name: file.read_text() for file in crd.DIRECTORY.iterdir()} == written, "run: python -m mesh.crd"


def test_every_kind_with_a_model_has_one() -> None:
    documents = [yaml.safe_load(text) for text in dict(crd.files()).values()]
    named = {each["metadata"]["name"] for each in documents if each["kind"] == "CustomResourceDefinition"}
    assert named == {kind.definition for kind in KINDS if kind.model is not None}


@pytest.mark.parametrize("kind", crd.defined(), ids=lambda kind: kind.kind)
def test_every_schema_is_typed_and_every_field_explained(kind: Kind) -> None:
    for path, schema in nodes(spec_of(kind)):
        assert schema["type"] in TYPES, path
        assert schema["type"] != "object" or {"properties", "additionalProperties", ANYTHING} & schema.keys(), path
        for name, field in schema.get("properties", {}).items():
            assert field.get("description", "").endswith("."), f"{path}.{name}"
        assert not {"$ref", "oneOf", "anyOf", "allOf", "not"} & schema.keys(), path


@pytest.mark.parametrize("kind", crd.defined(), ids=lambda kind: kind.kind)
def test_rules_speak_of_fields_that_there_are(kind: Kind) -> None:
    for path, schema in nodes(spec_of(kind)):
        assert set(schema.get("required", ())) <= schema.get("properties", {}).keys(), path
        for rule in schema.get(RULES, ()):
            for name in re.findall(r"self\.([A-Za-z_0-9]+)\b(?!\()", rule["rule"]):
                assert name in schema["properties"], f"{path}: {rule['rule']}"
            assert rule["message"]


@pytest.mark.parametrize("kind", crd.defined(), ids=lambda kind: kind.kind)
def test_one_version_is_stored_and_all_have_one_schema(kind: Kind) -> None:
    versions = crd.crd(kind)["spec"]["versions"]
    assert [version["name"] for version in versions] == list(kind.versions)
    assert sum(version["storage"] for version in versions) == 1
    assert all(version["served"] for version in versions)
    assert all(version["schema"] is versions[0]["schema"] for version in versions)


@pytest.mark.parametrize("kind", crd.defined(), ids=lambda kind: kind.kind)
def test_kubectl_apply_can_keep_what_it_applied_in_an_annotation(kind: Kind) -> None:
    """Without --server-side it writes the whole object into one; annotations hold 256 KiB."""
    assert len(json.dumps(crd.crd(kind), separators=(",", ":"))) < 256 * 1024
