"""One trace through a real mesh: gateway, the sidecar of an app that asks on, the sidecar of the app that it asks."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import yaml

from tests.behaviour.conftest import Put
from tests.behaviour.world import Answer, World, echo, eventually, thing
from tests.support.collector import Span, spans_of

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
HOST = "traced.example"
PATH = "/?to=http://echo.mesh/"
FILE = "/tmp/spans"
HOPS = (
    ("CLIENT", "gateway.mesh"),
    ("SERVER", "middle.mesh"),
    ("CLIENT", "middle.mesh"),
    ("SERVER", "echo.mesh"),
)
SPAN = "b7ad6b7169203331"
WAYS = {"otel": "grpc", "zipkin": "zipkin", "b3": "zipkin"}


def w3c(trace: str) -> dict[str, str]:
    return {"traceparent": f"00-{trace}-{SPAN}-01"}


def b3(trace: str) -> dict[str, str]:
    return {"x-b3-traceid": trace, "x-b3-spanid": SPAN, "x-b3-sampled": "1"}


FORMS = {"otel": (w3c,), "zipkin": (w3c, b3), "b3": (b3,)}
SERVICE = "collector.plain.svc.cluster.local"
PROVIDERS = [
    {"name": "otel", "opentelemetry": {"service": SERVICE, "port": 4317}},
    {"name": "zipkin", "zipkin": {"service": SERVICE, "port": 9411}},
    {"name": "b3", "zipkin": {"service": SERVICE, "port": 9411, "traceContextOption": "USE_B3"}},
]


def _collector() -> list[Answer]:
    container = {
        "name": "collector",
        "image": "test/collector:1",
        "env": [{"name": "SPANS", "value": FILE}],
        "readinessProbe": {"tcpSocket": {"port": 4317}, "periodSeconds": 1},
    }
    labels = {"app": "collector"}
    return [thing("Pod", "collector", {"containers": [container]}, namespace="plain", metadata={"labels": labels})]


def _rest(*more: Answer, annotations: Mapping[str, str] | None = None) -> list[Answer]:
    web = [{"name": "http", "port": 80, "targetPort": "web"}]
    ports = [{"name": "grpc-otlp", "port": 4317}, {"name": "http-zipkin", "port": 9411}]
    settings = yaml.safe_dump({"extensionProviders": PROVIDERS})
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": [HOST]}
    way = [{"route": [{"destination": {"host": "middle.mesh.svc.cluster.local", "port": {"number": 80}}}]}]
    return [
        thing("ConfigMap", "istio", namespace="istio-system", data={"mesh": settings}),
        thing("Service", "collector", {"selector": {"app": "collector"}, "ports": ports}, namespace="plain"),
        echo("middle", {"app": "middle"}, annotations=annotations),
        thing(
            "Service",
            "middle",
            {"selector": {"app": "middle"}, "ports": web},
        ),
        thing("Gateway", "traced", {"selector": {"istio": "ingressgateway"}, "servers": [server]}),
        thing("VirtualService", "traced", {"hosts": [HOST], "gateways": ["traced"], "http": way}),
        *more,
    ]


def _traces(provider: str, **spec: Any) -> Answer:
    traces = {
        "providers": [{"name": provider}],
        "randomSamplingPercentage": 100,
        "customTags": {"user": {"header": {"name": "end-user", "defaultValue": "nobody"}}},
    }
    return thing("Telemetry", "traced", {**spec, "tracing": [traces]})


class Traced:
    """The way through the mesh, and what the collector has of it."""

    def __init__(self, world: World, put: Put) -> None:
        self._world, self._put = world, put

    def by(self, provider: str, *, collector: bool = True) -> None:
        """From now on spans go to `provider`."""
        self._put(*(_collector() if collector else ()), *_rest(_traces(provider)))

    def by_gateway(self, provider: str, name: str) -> None:
        """From now on the Gateway `name` alone sends spans."""
        target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name}
        self._put(*_collector(), *_rest(_traces(provider, targetRefs=[target])))

    def by_pod(self, tracing: Mapping[str, Any]) -> None:
        """From now on the first app's sidecar alone sends spans, as its pod's annotation says."""
        annotations = {"proxy.istio.io/config": yaml.safe_dump({"tracing": tracing})}
        self._put(*_collector(), *_rest(annotations=annotations))

    def ask(self, **headers: str) -> Answer:
        """What the first app saw, with what the second saw as `next`."""
        status, body = self._world.mesh.get(PATH, {"host": HOST, **headers})
        assert status == 200, body
        return dict(body)

    def spans(self) -> list[Span]:
        return spans_of(self._world.inside("plain/collector", "cat", FILE))

    def part(self, hops: Sequence[tuple[str, str]]) -> tuple[list[Span], list[Answer]]:
        """The spans of one request of a caller who traces, which are those of `hops`, and what the apps saw of it."""
        asked: dict[str, list[Answer]] = {}

        def found() -> tuple[list[Span], list[Answer]] | None:
            trace = secrets.token_hex(16)
            answer = self.ask(**b3(trace))
            asked[trace] = [answer, answer["next"]]
            spans = self.spans()
            for trace, seen in asked.items():
                mine = [span for span in spans if span.trace == trace]
                if sorted((span.kind, span.service) for span in mine) == sorted(hops):
                    return in_order(mine), seen
            return None

        return eventually(found, f"no trace has {hops}")

    def whole(self, provider: str, headers: Callable[[str], dict[str, str]]) -> tuple[list[Span], list[Answer]]:
        """The spans of one request, and what the apps saw of it, once there are all of them, by `provider`.

        Proxies keep spans until they have some, and connections that are open keep the provider before it: requests go
        on meanwhile. `headers` makes those of a request of the identifier of a trace.
        """
        asked: dict[str, list[Answer]] = {}

        def found() -> tuple[list[Span], list[Answer]] | None:
            answer = self.ask(**headers(secrets.token_hex(16)))
            asked[_trace_of(answer["headers"])] = [answer, answer["next"]]
            spans = [span for span in self.spans() if span.way == WAYS[provider]]
            for trace, seen in asked.items():
                mine = [span for span in spans if span.trace == trace]
                if len(mine) >= len(HOPS) and all(_passed_on(provider, each["headers"]) for each in seen):
                    return mine, seen
            return None

        spans, seen = eventually(found, "no trace is whole")
        return in_order(spans), seen


def _passed_on(provider: str, headers: dict[str, str]) -> bool:
    """Whether an app got its trace by the headers that belong to `provider`, and by no others."""
    return (("traceparent" in headers), ("x-b3-traceid" in headers)) == (provider != "b3", provider != "otel")


def _trace_of(headers: dict[str, str]) -> str:
    return headers["traceparent"].split("-")[1] if "traceparent" in headers else headers["x-b3-traceid"]


@pytest.fixture(scope="module")
def traced(world: World, module_case: Put) -> Iterator[Traced]:
    with world.explained.outside("these tests ask by themselves"):
        yield Traced(world, module_case)


def in_order(spans: list[Span]) -> list[Span]:
    """From the one whose parent is none of them, each the parent of the next."""
    by_parent = {span.parent: span for span in spans}
    assert len(by_parent) == len(spans) == len({span.id for span in spans})
    (first,) = (span for span in spans if span.parent not in {each.id for each in spans})
    found = [first]
    while found[-1].id in by_parent:
        found.append(by_parent[found[-1].id])
    return found


@pytest.mark.parametrize("provider", WAYS)
def test_one_trace_has_the_gateway_and_both_sidecars(traced: Traced, provider: str) -> None:
    traced.by(provider)
    spans, seen = traced.whole(provider, lambda _: {"end-user": "jason"})
    assert [(span.kind, span.service) for span in spans] == list(HOPS)
    assert spans[0].parent == ""
    assert [span.tags["user"] for span in spans] == ["jason", "jason", "nobody", "nobody"]  # the app did not pass it on
    for span in spans:
        own = {"istio.canonical_service": span.service.removesuffix(".mesh"), "istio.namespace": "mesh"}
        assert span.tags.items() >= {**own, "istio.mesh_id": "cluster.local"}.items()
    for each, span in zip(seen, (spans[1], spans[3]), strict=True):
        headers = each["headers"]
        if "x-b3-traceid" in headers:
            assert (headers["x-b3-traceid"], headers["x-b3-spanid"]) == (span.trace, span.id)
        if "traceparent" in headers:
            assert headers["traceparent"] == f"00-{span.trace}-{span.id}-01"
    # A caller's trace goes on.
    for form in FORMS[provider]:
        spans, _ = traced.whole(provider, form)
        assert spans[0].parent == SPAN
        assert [(span.kind, span.service) for span in spans] == list(HOPS)


def test_a_pods_own_tracing_is_its_alone(traced: Traced) -> None:
    """Who makes a span passes on another than it got: what the apps saw tells that nobody else did."""
    traced.by_pod(
        {
            "zipkin": {"address": f"{SERVICE}:9411"},
            "sampling": 100,
            "custom_tags": {"by": {"literal": {"value": "pod"}}},
        }
    )
    (server, client), (first, second) = traced.part(HOPS[1:3])
    assert server.parent == SPAN
    assert first["headers"]["x-b3-spanid"] == server.id
    assert second["headers"]["x-b3-spanid"] == client.id
    assert {span.tags["by"] for span in (server, client)} == {"pod"}


def test_telemetry_for_a_gateway_is_its_alone(traced: Traced) -> None:
    traced.by_gateway("b3", "edge")
    (span,), seen = traced.part(HOPS[:1])
    assert span.parent == SPAN
    assert [each["headers"]["x-b3-spanid"] for each in seen] == [span.id, span.id]


def test_without_a_collector_every_request_is_answered(traced: Traced) -> None:
    for provider in ("otel", "zipkin"):
        traced.by(provider, collector=False)
        for _ in range(30):
            assert traced.ask()["next"]["headers"]
