"""Reading a poll of 77 KB without reading its 77 KB."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.xds_server import envoy_version, parse_poll
from mesh.errors import InvalidInput

NODE = {
    "id": "sidecar~10.0.0.1~p.ns~ns.svc.cluster.local",
    "user_agent_name": "envoy",
    "user_agent_build_version": {"version": {"major_number": 1, "minor_number": 40}, "metadata": {"x": "y"}},
    "extensions": [{"name": "envoy.x", "category": "envoy.y", "type_urls": ["a.B"]}] * 50,
}


def poll(version: str, name: str, node: dict[str, object] = NODE) -> bytes:
    body: dict[str, object] = {"version_info": version} if version else {}
    body["node"] = node
    if name:
        body["resource_names"] = [name]
    return orjson.dumps(body | {"type_url": "type.googleapis.com/envoy.config.cluster.v3.Cluster"})


@given(
    st.integers(0, 10**12).map(str) | st.just(""),
    st.text(st.characters(codec="utf-8"), max_size=30) | st.just("outbound|9080|v1|reviews.default.svc.cluster.local"),
)
def test_version_and_name_are_what_a_full_parse_says(version: str, name: str) -> None:
    assert parse_poll(poll(version, name)) == (version, name)


def test_a_node_that_looks_like_the_end_does_not_deceive() -> None:
    node = {"id": ']},"resource_names":["x"],"type_url":"y"}', "extensions": []}
    assert parse_poll(poll("7", "a", node)) == ("7", "a")
    assert parse_poll(poll("", "", node)) == ("", "")


def test_other_spellings_are_parsed_in_full() -> None:
    assert parse_poll(b'{ "resource_names": ["a"], "version_info": "3" }') == ("3", "a")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"resource_names":["a","b"]}', b'{"resource_names":[1]}'])
def test_nonsense_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_poll(body)


def test_envoy_says_its_version_in_every_poll() -> None:
    assert envoy_version(poll("", "")) == "1.40.0"
    assert envoy_version(b"{}") == ""
