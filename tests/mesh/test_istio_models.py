"""The models of Istio's kinds: what they take, what they keep, and that nothing but their own errors comes out."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import HeddleError
from mesh.istio.base import FrozenMap, IstioObject, Model, camel, messages
from mesh.istio.virtual_service import VirtualService
from mesh.kinds import KINDS, parse_istio
from mesh.manifest import documents
from mesh.problems import FieldProblem, ObjectErrors
from mesh.validation import checked, unhonoured_fields

CASES = Path(__file__).parent / "cases" / "validation"
MODELS = [kind.model for kind in KINDS if kind.model is not None]
SOURCES = [
    document.raw for file in sorted(CASES.glob("valid*.in.yaml")) for document in documents(file.read_text(), file.name)
]

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3),
    max_leaves=12,
)


def every_field(model: type[Model]) -> list[str]:
    return sorted({info.alias or name for name, info in model.model_fields.items()})


FIELD_NAMES = sorted({name for model in MODELS for name in every_field(model)} | {"host", "destination", "port", "uri"})


def virtual_service(**spec: Any) -> dict[str, Any]:
    spec = {"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": "reviews"}}]}], **spec}
    meta = {"name": "reviews", "namespace": "default"}
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta, "spec": spec}


def problems_in(raw: dict[str, Any]) -> tuple[FieldProblem, ...]:
    try:
        parse_istio(raw)
    except ObjectErrors as error:
        return error.problems
    return ()


def problems_of(raw: dict[str, Any]) -> dict[str, str]:
    return {problem.field: problem.message for problem in problems_in(raw)}


@pytest.mark.parametrize("raw", SOURCES, ids=lambda raw: raw["kind"])
def test_parse_of_the_dump_is_the_same(raw: dict[str, Any]) -> None:
    first = parse_istio(raw)
    again = parse_istio({**raw, "spec": first.spec.manifest()})
    assert again == first
    assert hash(again) == hash(first)
    assert pickle.loads(pickle.dumps(first)) == first  # the webhook's workers may pass objects on


@pytest.mark.parametrize("raw", SOURCES, ids=lambda raw: raw["kind"])
def test_every_message_is_immutable_and_hashable(raw: dict[str, Any]) -> None:
    for _, message in messages(parse_istio(raw).spec):
        hash(message)
        for name in type(message).model_fields:
            with pytest.raises(ValueError, match="frozen"):
                setattr(message, name, None)


def test_parsing_leaves_the_input_as_it_was() -> None:
    raw = virtual_service(http=[{"timeout": 5}], bogus=1)
    before = copy.deepcopy(raw)
    problems_of(raw)
    assert raw == before


@settings(max_examples=300)
@given(spec=anything, envelope=st.dictionaries(st.sampled_from(["metadata", "status", "x"]), anything), data=st.data())
def test_whatever_comes_in_only_our_errors_come_out(spec: Any, envelope: dict[str, Any], data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    raw = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "x"}, "spec": spec, **envelope}
    try:
        assert isinstance(parse_istio(raw), IstioObject)
    except HeddleError as error:
        str(error)
        error.as_json()


@settings(max_examples=300)
@given(data=st.data())
def test_a_broken_field_anywhere_is_named_in_the_error(data: st.DataObject) -> None:
    raw = copy.deepcopy(data.draw(st.sampled_from(SOURCES)))
    here: Any = raw.setdefault("spec", {})
    while isinstance(here, dict | list) and here and data.draw(st.booleans()):
        step = data.draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
        if not isinstance(here[step], dict | list):
            break
        here = here[step]
    step = data.draw(st.sampled_from(FIELD_NAMES)) if isinstance(here, dict) else 0
    if isinstance(here, list):
        here[:1] = [data.draw(anything)]
    else:
        here[step] = data.draw(anything)
    for problem in problems_in(raw):
        assert problem.path[0] == "spec"
        assert problem.message
        assert problem.hint


def test_every_error_comes_at_once_shape_and_rules() -> None:
    broken = {"x": 1, "route": [{"destination": {"host": "*"}}]}
    assert set(problems_of(virtual_service(http=[{"timeout": "1 hour"}, broken], gateways=["a/b/c"]))) == {
        "spec.gateways[0]",
        "spec.http[0].timeout",
        "spec.http[1].x",
        "spec.http[1].route[0].destination.host",
    }


def test_snake_case_is_not_taken_from_manifests_but_from_python() -> None:
    assert problems_of(virtual_service(export_to=["*"])) == {"spec.export_to": "there is no field 'export_to'"}
    assert VirtualService(export_to=("*",)) == VirtualService.model_validate({"exportTo": ["*"]})


def test_weights_that_do_not_add_to_100_are_a_warning() -> None:
    routes = [{"destination": {"host": "a"}, "weight": 60}, {"destination": {"host": "b"}, "weight": 30}]
    spec, problems = checked(VirtualService, virtual_service(http=[{"route": routes}])["spec"])
    assert spec is not None
    assert [(each.field, each.message, each.warning) for each in problems] == [
        ("spec.http[0].route", "the weights add to 90: taken as 60/90, 30/90", True)
    ]


def test_unhonoured_fields_are_those_in_use() -> None:
    used = virtual_service(
        tls=[], http=[{"route": [{"destination": {"host": "a"}}], "mirror": {"host": "b"}, "retries": {"attempts": 1}}]
    )
    assert unhonoured_fields(parse_istio(used)) == ["spec.http[0].mirror"]
    assert unhonoured_fields(parse_istio(virtual_service())) == []


def test_an_object_keeps_its_metadata() -> None:
    raw = virtual_service()
    raw["metadata"] |= {
        "uid": "u",
        "resourceVersion": "7",
        "generation": 3,
        "creationTimestamp": "2026-01-02T03:04:05Z",
    }
    raw["metadata"] |= {"labels": {"istio.io/rev": "canary"}, "annotations": None, "managedFields": [{}]}
    found = parse_istio(raw)
    assert (found.uid, found.resource_version, found.generation, found.created) == ("u", "7", 3, "2026-01-02T03:04:05Z")
    assert found.labels == {"istio.io/rev": "canary"}
    assert found.annotations == {}
    assert found.key == ("VirtualService", "default", "reviews")
    assert str(found) == "VirtualService default/reviews"


def test_a_frozen_map_cannot_be_changed() -> None:
    frozen = FrozenMap({"a": 1})
    with pytest.raises(TypeError):
        frozen["b"] = 2
    with pytest.raises(TypeError):
        frozen.update(b=2)
    with pytest.raises(TypeError):
        frozen |= {"b": 2}
    assert hash(frozen) == hash(FrozenMap({"a": 1}))


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        ("consecutive_5xx_errors", "consecutive5xxErrors"),
        ("http1_max_pending_requests", "http1MaxPendingRequests"),
        ("h2_upgrade_policy", "h2UpgradePolicy"),
        ("use_source_ip", "useSourceIp"),
        ("from_", "from"),
    ],
)
def test_names_in_json_are_those_of_protobuf(name: str, alias: str) -> None:
    assert camel(name) == alias


@pytest.mark.filterwarnings("ignore:Default value")  # empty maps have no default in the schema, as in a CRD
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_models_make_a_json_schema(model: type[Model]) -> None:
    schema = model.model_json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(every_field(model))
