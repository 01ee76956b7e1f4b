"""Messages between agent and discovery: what is sent is what is read, and anything else names its field."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import InvalidInput
from mesh.wire import (
    MAX_HOLD_SECONDS,
    Applied,
    ConfigRequest,
    ConfigResponse,
    ProxyInfo,
    Rejection,
    ResourceType,
    TrustReport,
    virtual_host_name,
)

text = st.text(max_size=20)
names = st.text(min_size=1, max_size=20)
types = st.sampled_from([str(kind) for kind in ResourceType])
requests = st.builds(
    ConfigRequest,
    proxy=st.builds(ProxyInfo, namespace=names, pod=names, ip=text, envoy_version=text, agent_version=text),
    session=text,
    sequence=st.integers(0, 2**53),
    versions=st.none() | st.dictionaries(types, st.dictionaries(text, text, max_size=3), max_size=3),
    applied=st.dictionaries(
        types,
        st.builds(
            Applied,
            sequence=st.integers(0, 2**53),
            since=text,
            rejected=st.lists(st.builds(Rejection, name=text, message=text, since=text), max_size=2).map(tuple),
        ),
        max_size=3,
    ),
    hold_seconds=st.floats(0, MAX_HOLD_SECONDS),
)


@given(requests)
def test_what_is_sent_is_what_is_read(request: ConfigRequest) -> None:
    assert ConfigRequest.parse(json.loads(json.dumps(request.as_json()))) == request


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_anything_is_read_or_refused(raw: object) -> None:
    with pytest.raises(InvalidInput) as got:
        ConfigRequest.parse(raw)
    assert got.value.field


def paths(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [above] if above else []
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, below in steps:
        found += paths(below, (*above, step))
    return found


@given(requests, values, st.data())
def test_one_field_of_any_value_is_read_or_refused_by_name(
    request: ConfigRequest, value: object, data: st.DataObject
) -> None:
    body = request.as_json()
    path = data.draw(st.sampled_from(paths(body)))
    place: Any = body
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    refused = refused_field(body)
    assert refused is None or refused.startswith(str(path[0]))


def refused_field(body: dict[str, Any]) -> str | None:
    """The field that is refused; None for a body that is read."""
    try:
        ConfigRequest.parse(body)
    except InvalidInput as error:
        return error.field
    return None


GOOD = {"proxy": {"namespace": "n", "pod": "p"}}


def test_what_is_left_out_has_its_default() -> None:
    request = ConfigRequest.parse(GOOD)
    assert request == ConfigRequest(ProxyInfo("n", "p", ""))
    assert (request.versions, request.hold_seconds) == (None, 25.0)
    assert ConfigRequest.parse({**GOOD, "versions": {}}).versions == {}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"proxy": None}, "proxy"),
        ({"proxy": {"namespace": "n"}}, "proxy.pod"),
        ({"proxy": {"namespace": "", "pod": "p"}}, "proxy.namespace"),
        ({"proxy": {"namespace": "n", "pod": "p", "ip": 5}}, "proxy.ip"),
        ({"session": 5}, "session"),
        ({"sequence": -1}, "sequence"),
        ({"sequence": True}, "sequence"),
        ({"sequence": 1.5}, "sequence"),
        ({"holdSeconds": 61}, "holdSeconds"),
        ({"holdSeconds": -0.1}, "holdSeconds"),
        ({"holdSeconds": float("nan")}, "holdSeconds"),
        ({"holdSeconds": True}, "holdSeconds"),
        ({"holdSeconds": 10**400}, "holdSeconds"),
        ({"versions": []}, "versions"),
        ({"versions": {"clusters": []}}, "versions.clusters"),
        ({"versions": {"clusters": {"a": 1}}}, "versions.clusters"),
        ({"applied": []}, "applied"),
        ({"applied": {"clusters": 5}}, "applied.clusters"),
        ({"applied": {"clusters": {"sequence": "1"}}}, "applied.clusters.sequence"),
        ({"applied": {"clusters": {"rejected": {}}}}, "applied.clusters.rejected"),
        ({"applied": {"clusters": {"rejected": [5]}}}, "applied.clusters.rejected[0]"),
        ({"applied": {"clusters": {"rejected": [{"message": 5}]}}}, "applied.clusters.rejected[0].message"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as got:
        ConfigRequest.parse({**GOOD, **change})
    assert got.value.field == field


def test_what_an_agent_trusts() -> None:
    trust = TrustReport(3, 1, 4, "aa", "bb", (3, 2))
    request = replace(ConfigRequest.parse(GOOD), trust=trust)
    assert ConfigRequest.parse(request.as_json()) == request
    assert ConfigRequest.parse(GOOD).trust is None  # of an agent that is too old to say


@pytest.mark.parametrize(
    ("trust", "field"),
    [
        (5, "trust"),
        ({"sequence": -1}, "trust.sequence"),
        ({"order": "1"}, "trust.order"),
        ({"root": 5}, "trust.root"),
        ({"known": [1]}, "trust.known"),
        ({"known": [True, 1]}, "trust.known"),
    ],
)
def test_a_wrong_field_of_trust_is_named(trust: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as got:
        ConfigRequest.parse({**GOOD, "trust": trust})
    assert got.value.field == field


def test_envoys_words_are_bounded() -> None:
    rejected = [{"name": "a", "message": "x" * 100_000, "since": ""}]
    request = ConfigRequest.parse({**GOOD, "applied": {"clusters": {"sequence": 1, "rejected": rejected}}})
    assert len(request.applied["clusters"].rejected[0].message) == 4096


def test_an_answer() -> None:
    body = {
        "session": "s",
        "sequence": 7,
        "changed": {"clusters": {"a": {"version": "v", "resource": {"name": "a"}}}},
        "removed": {"routes": ["80"]},
    }
    assert ConfigResponse.parse(body) == ConfigResponse(
        "s", 7, {"clusters": {"a": ("v", {"name": "a"})}}, {"routes": ("80",)}
    )


def test_virtual_hosts_are_named_under_their_route() -> None:
    assert virtual_host_name("80", "reviews.n.svc.cluster.local:80") == "80/reviews.n.svc.cluster.local:80"
