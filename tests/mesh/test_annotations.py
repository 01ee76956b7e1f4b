"""mesh/annotations.py: the table, its parsers and its page."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.annotation_page import reference_page
from mesh.annotation_values import (
    parse_agent_level,
    parse_buckets,
    parse_component_levels,
    parse_names,
    parse_quantity,
    parse_truth,
)
from mesh.annotations import TABLE, PodOptions, parse_options, unheeded_annotations, unheeded_labels
from mesh.errors import InvalidInput
from mesh.problems import ObjectErrors

PAGE = Path(__file__).parents[2] / "docs/reference/annotations.md"


def test_the_page_is_the_table() -> None:
    assert PAGE.read_text() == reference_page(), "run: python -m mesh.annotation_page"


def test_names_are_unique_and_every_option_has_its_row() -> None:
    names = [row.name for row in TABLE]
    assert len(set(names)) == len(names)
    assert {row.field for row in TABLE if row.field} == {f.name for f in dataclasses.fields(PodOptions)}
    assert not [row.name for row in TABLE if row.field and row.unheeded]


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
            "inject.istio.io/templates": "gateway, mine",
            "istio.io/reroute-virtual-interfaces": "net1",
            "sidecar.istio.io/userVolume": '{"certs": {"emptyDir": {}}}',
            "sidecar.istio.io/userVolumeMount": '[{"name": "certs", "mountPath": "/certs"}]',
            "proxy.istio.io/config": "concurrency: 1",
        },
        "Pod",
    )
    assert options.include_inbound_ports == ()
    assert options.include_outbound_cidrs is None
    assert options.proxy_cpu == "100m"
    assert options.rewrite_probes is False
    assert options.templates == ("gateway", "mine")
    assert options.virtual_interfaces == ("net1",)
    assert options.user_volumes == ({"name": "certs", "emptyDir": {}},)
    assert options.user_volume_mounts == ({"name": "certs", "mountPath": "/certs"},)
    assert options.proxy_config == {"concurrency": 1}


WRONG = {
    "inject.istio.io/templates": " , ",
    "sidecar.istio.io/nativeSidecar": "perhaps",
    "traffic.sidecar.istio.io/includeInboundPorts": "http",
    "traffic.sidecar.istio.io/excludeInboundPorts": "*",
    "traffic.sidecar.istio.io/includeOutboundIPRanges": "10.0.0.0/40",
    "traffic.sidecar.istio.io/excludeOutboundIPRanges": "*",
    "traffic.sidecar.istio.io/includeOutboundPorts": "0",
    "traffic.sidecar.istio.io/excludeOutboundPorts": "80;81",
    "traffic.sidecar.istio.io/excludeInterfaces": "a very long interface name",
    "istio.io/reroute-virtual-interfaces": "a/b",
    "traffic.sidecar.istio.io/kubevirtInterfaces": "-x",
    "sidecar.istio.io/interceptionMode": "NONE",
    "sidecar.istio.io/componentLogLevel": "misc",
    "sidecar.istio.io/agentLogLevel": "default:loud",
    "sidecar.istio.io/bootstrapOverride": " ",
    "sidecar.istio.io/statsHistogramBuckets": '{"istiocustom": [5, 1]}',
    "sidecar.istio.io/userVolume": "[1]",
    "sidecar.istio.io/userVolumeMount": "{certs}",
    "prometheus.istio.io/merge-metrics": "sometimes",
    "sidecar.istio.io/proxyImage": "two images",
    "sidecar.istio.io/proxyImageType": "of two",
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


def test_what_is_asked_goes_over_the_base() -> None:
    base = PodOptions(proxy_cpu="1", include_outbound_cidrs=("10.0.0.0/8",))
    assert parse_options({}, "Pod", base) is base
    options = parse_options({"traffic.sidecar.istio.io/includeOutboundIPRanges": "*"}, "Pod", base)
    assert (options.proxy_cpu, options.include_outbound_cidrs) == ("1", None)


@pytest.mark.parametrize(
    ("text", "level"),
    [("debug", "debug"), ("warn", "warning"), ("default:info, xds:debug", "debug"), ("all:none", "error")],
)
def test_levels_of_the_agent(text: str, level: str) -> None:
    assert parse_agent_level(text) == level


def test_lists() -> None:
    assert parse_names("a, b,a") == ("a", "b")
    assert parse_component_levels("misc:error, filter:debug") == "misc:error,filter:debug"
    assert parse_buckets('{"x": [0.5, 1]}') == {"x": (0.5, 1)}


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"x": []}', '{"x": [1, 1]}', '{"x": [true]}', '{"x": [0]}', "[" * 9999]
)
def test_no_buckets(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_buckets(text)


def test_labels_that_have_no_effect_are_named() -> None:
    assert unheeded_labels({"topology.istio.io/network": "n", "app": "web"}) == [
        "label topology.istio.io/network is not acted on: a mesh is one network"
    ]


def test_what_has_no_effect_is_named() -> None:
    given_ = {
        "traffic.sidecar.istio.io/excludeOutboundPort": "1",
        "sidecar.istio.io/discoveryAddress": "istiod:15012",
        "sidecar.istio.io/controlPlaneAuthPolicy": "MUTUAL_TLS",
        "sidecar.istio.io/newThing": "x",
        "sidecar.istio.io/inject": "true",
        "proxy.istio.io/overrides": "{}",
        "prometheus.io/scrape": "true",
        "plain": "x",
    }
    assert unheeded_annotations(given_) == [
        "annotation traffic.sidecar.istio.io/excludeOutboundPort is not acted on; did you mean "
        "traffic.sidecar.istio.io/excludeOutboundPorts?",
        "annotation sidecar.istio.io/discoveryAddress is not acted on: the webhook says where discovery is; a pod "
        "cannot choose another one",
        "annotation sidecar.istio.io/newThing is not acted on",
    ]
