"""mesh/annotations.py: the table, its parsers and its page."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.annotations import (
    TABLE,
    PodOptions,
    parse_options,
    parse_quantity,
    parse_truth,
    reference_page,
    unknown_annotations,
)
from mesh.errors import InvalidInput
from mesh.problems import ObjectErrors

PAGE = Path(__file__).parents[2] / "docs/reference/annotations.md"


def test_the_page_is_the_table() -> None:
    assert PAGE.read_text() == reference_page(), "run: python -m mesh.annotations"


def test_names_are_unique_and_every_option_has_its_row() -> None:
    names = [row.name for row in TABLE]
    assert len(set(names)) == len(names)
    assert {row.field for row in TABLE if row.field} == {f.name for f in dataclasses.fields(PodOptions)}


def test_nothing_asked() -> None:
    assert parse_options({}, "Pod") == PodOptions()
    assert parse_options({"example.com/x": "y", "sidecar.istio.io/inject": "perhaps"}, "Pod") == PodOptions()


def test_values() -> None:
    options = parse_options(
        {
            "traffic.sidecar.istio.io/includeInboundPorts": "",
            "traffic.sidecar.istio.io/includeOutboundIPRanges": "*",
            "sidecar.istio.io/proxyCPU": "100m",
            "sidecar.istio.io/rewriteAppHTTPProbers": "false",
            "inject.istio.io/templates": "gateway",
            "proxy.istio.io/config": "concurrency: 1",
        },
        "Pod",
    )
    assert options.include_inbound_ports == ()
    assert options.include_outbound_cidrs is None
    assert options.proxy_cpu == "100m"
    assert options.rewrite_probes is False
    assert options.template == "gateway"
    assert options.proxy_config == {"concurrency": 1}


WRONG = {
    "inject.istio.io/templates": "grpc-agent",
    "sidecar.istio.io/nativeSidecar": "perhaps",
    "traffic.sidecar.istio.io/includeInboundPorts": "http",
    "traffic.sidecar.istio.io/excludeInboundPorts": "*",
    "traffic.sidecar.istio.io/includeOutboundIPRanges": "10.0.0.0/40",
    "traffic.sidecar.istio.io/excludeOutboundIPRanges": "*",
    "traffic.sidecar.istio.io/includeOutboundPorts": "0",
    "traffic.sidecar.istio.io/excludeOutboundPorts": "80;81",
    "traffic.sidecar.istio.io/excludeInterfaces": "a very long interface name",
    "sidecar.istio.io/interceptionMode": "NONE",
    "sidecar.istio.io/proxyImage": "two images",
    "sidecar.istio.io/proxyCPU": "lots",
    "sidecar.istio.io/proxyCPULimit": "-1",
    "sidecar.istio.io/proxyMemory": "1 GB",
    "sidecar.istio.io/proxyMemoryLimit": "",
    "sidecar.istio.io/logLevel": "loud",
    "proxy.istio.io/config": "- a list",
    "sidecar.istio.io/rewriteAppHTTPProbers": "2",
    "status.sidecar.istio.io/port": "80,81",
    "readiness.status.sidecar.istio.io/initialDelaySeconds": "-1",
    "readiness.status.sidecar.istio.io/periodSeconds": "0",
    "readiness.status.sidecar.istio.io/failureThreshold": "1.5",
}


@pytest.mark.parametrize(("name", "value"), WRONG.items())
def test_a_wrong_value_names_pod_annotation_and_way_out(name: str, value: str) -> None:
    with pytest.raises(ObjectErrors) as caught:
        parse_options({name: value}, "Pod shop/web")
    (problem,) = caught.value.problems
    assert problem.path == ("metadata", "annotations", name)
    assert problem.hint
    assert "Pod shop/web" in str(caught.value)
    assert name in str(caught.value)


def test_every_parser_that_can_fail_is_tried() -> None:
    assert set(WRONG) == {row.name for row in TABLE if row.field}


def test_all_that_is_wrong_at_once() -> None:
    with pytest.raises(ObjectErrors) as caught:
        parse_options(WRONG, "Pod")
    assert len(caught.value.problems) == len(WRONG)


@given(st.sampled_from([row for row in TABLE if row.field]), st.text())
def test_any_text_is_a_value_or_a_problem(row: object, text: str) -> None:

    with contextlib.suppress(ObjectErrors):
        parse_options({row.name: text}, "Pod")  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["0", "100m", "1.5", ".5", "128Mi", "1Gi", "2k", "1e3", "12E", "1E"])
def test_quantities(text: str) -> None:
    assert parse_quantity(text) == text


@pytest.mark.parametrize("text", ["", "1MB", "Mi", "1.2.3", "one", "1 Gi", "+-1", "0x10"])
def test_no_quantities(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("true", True), ("Yes", True), ("on", True), ("FALSE", False), ("n", False)]
)
def test_truth(text: str, expected: bool) -> None:
    assert parse_truth(text) is expected


def test_what_is_not_acted_on_is_named() -> None:
    given_ = {
        "traffic.sidecar.istio.io/excludeOutboundPort": "1",
        "sidecar.istio.io/componentLogLevel": "x",
        "sidecar.istio.io/inject": "true",
        "proxy.istio.io/overrides": "{}",
        "prometheus.io/scrape": "true",
        "plain": "x",
    }
    assert unknown_annotations(given_) == [
        "annotation traffic.sidecar.istio.io/excludeOutboundPort is not acted on; did you mean "
        "traffic.sidecar.istio.io/excludeOutboundPorts?",
        "annotation sidecar.istio.io/componentLogLevel is not acted on",
    ]
