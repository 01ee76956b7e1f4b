"""Istio's metrics out of Envoy's packed labels. What Envoy says is in tests/discovery/envoy/test_metrics.py."""

from __future__ import annotations

import re

import pytest

from agent.istio_metrics import IstioMetrics
from agent.workload import read_labels
from mesh.reported import packed
from mesh.workloads import Workload, workload_of

OWN = Workload("client-v2", "shop", "client", "v2", "client", "v2")
PEER = Workload("server-v1", "shop", "server", "v1", "server")


def rewritten(*lines: str) -> str:
    rewrite = IstioMetrics(OWN).rewriter()
    return b"".join([*(rewrite(f"{line}\n".encode()) for line in lines), rewrite(b"")]).decode()


def series(
    name: str, fields: list[tuple[str, str]], value: str, *, without: tuple[str, ...] = (), more: str = ""
) -> str:
    return f'envoy_istio_{name}{{istio="{packed(fields, without)}"{more}}} {value}'


def labels(text: str) -> dict[str, str]:
    return dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', text))


def test_everything_else_stays_as_it_is() -> None:
    lines = ["# TYPE envoy_cluster_x counter", 'envoy_cluster_x{a="b"} 1', "own 1", 'envoy_istio_odd{a="b"} 1']
    assert rewritten(*lines) == "\n".join(lines) + "\n"


def test_types_and_buckets_have_istios_names() -> None:
    bucket = series("request_bytes_bucket", [("reporter", "source")], "3", more=',le="0.5"')
    text = rewritten("# TYPE envoy_istio_request_bytes histogram", bucket)
    assert text.startswith("# TYPE istio_request_bytes histogram\nistio_request_bytes_bucket{")
    assert labels(text)["le"] == "0.5"
    assert text.endswith("} 3\n")


@pytest.mark.parametrize(
    ("reporter", "here", "there"), [("source",) * 2 + ("destination",), ("destination",) * 2 + ("source",)]
)
def test_each_end_has_its_workload(reporter: str, here: str, there: str) -> None:
    found = labels(rewritten(series("requests_total", [("reporter", reporter), (there, PEER.packed)], "1")))
    assert (found[f"{here}_workload"], found[f"{here}_canonical_revision"]) == ("client-v2", "v2")
    assert (found[f"{there}_workload"], found[f"{there}_version"]) == ("server-v1", "unknown")


@pytest.mark.parametrize("said", ["", "no workload", "a~b", "a~b~c~d~e~f~g", r"a~b~\"c\"~d~e"])
def test_what_is_no_workload_is_unknown(said: str) -> None:
    found = labels(rewritten(series("requests_total", [("reporter", "destination"), ("source", said)], "1")))
    assert {found[name] for name in found if name.startswith("source_")} == {"unknown"}


def test_a_quote_in_a_value_ends_no_label() -> None:
    text = rewritten(series("requests_total", [("reporter", "source"), ("who", r"\"} 7")], "1"))
    assert labels(text)["who"] == r"\"} 7"
    assert text.endswith("} 1\n")


def test_grpc_is_told_by_its_status() -> None:
    for status, protocol in (("", "http"), ("0", "grpc")):
        found = labels(
            rewritten(series("requests_total", [("reporter", "source"), ("grpc_response_status", status)], "1"))
        )
        assert (found["request_protocol"], found["grpc_response_status"]) == (protocol, status)


def test_series_without_a_label_are_one() -> None:
    def one(version: str, value: str) -> str:
        peer = workload_of("server", "shop", {"app": "server", "version": version})
        fields = [("reporter", "source"), ("destination", peer.packed)]
        left_out = ("destination_version", "destination_canonical_revision")
        return series("requests_total", fields, value, without=left_out)

    text = rewritten("# TYPE envoy_istio_requests_total counter", one("v1", "2"), one("v2", "3"), "# TYPE b counter")
    assert text.splitlines()[-1] == "# TYPE b counter"
    (line,) = text.splitlines()[1:-1]
    assert line.endswith(" 5")
    assert not {"destination_version", "destination_canonical_revision"} & labels(line).keys()


def test_the_sum_is_there_when_the_exposition_ends_with_it() -> None:
    text = rewritten(series("requests_total", [("reporter", "source")], "2", without=("source_app",)))
    assert text.endswith(" 2\n")


def test_labels_of_the_downward_api() -> None:
    text = 'app="reviews"\nservice.istio.io/canonical-name="r\\"x"\nbroken\nnumber=1\nempty=""\n'
    assert read_labels(text) == {"app": "reviews", "service.istio.io/canonical-name": 'r"x', "empty": ""}
