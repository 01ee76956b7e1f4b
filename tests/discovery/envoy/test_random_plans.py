"""Whatever a plan holds, what is rendered from it parses strictly, and whatever Envoy refers to is there."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from discovery.envoy.render import render
from discovery.plan import model, reporting
from mesh.wire import ResourceType
from tests.support import envoy, plans, protos

NAMES = st.sampled_from([f"outbound|80|{subset}|{host}" for subset in ("", "v1") for host in ("a.b", "c.d")])
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
HEADER = st.from_regex(r"\A[a-z][a-z0-9-]{0,10}\Z")
PORT = st.integers(1, 65535)
SECONDS = st.floats(0, 100_000, allow_nan=False)
HOSTS = st.from_regex(r"\A[a-z]{1,8}(\.[a-z]{1,8}){0,2}\Z")
COUNT = st.none() | st.integers(0, 2**31)
PERCENT = st.floats(0, 100)

MATCHES = st.builds(
    model.TextMatch, st.sampled_from(model.MatchKind), TEXT, ignore_case=st.booleans(), invert=st.booleans()
)
NAMED = st.builds(model.NamedMatch, HEADER | st.sampled_from([":method", ":authority"]), MATCHES)
PAIRS = st.lists(st.tuples(HEADER | st.sampled_from(["host", ":authority"]), TEXT), max_size=2).map(tuple)
CHANGES = st.builds(model.HeaderChanges, PAIRS, PAIRS, st.lists(HEADER, max_size=2).map(tuple))
TARGETS = st.lists(st.builds(model.Target, NAMES, st.integers(0, 100), CHANGES, CHANGES), max_size=3).map(tuple)
HASHES = st.one_of(
    st.builds(model.HashBy, header=HEADER),
    st.builds(model.HashBy, cookie=HEADER, cookie_path=st.just("/"), cookie_ttl=st.none() | SECONDS),
    st.builds(model.HashBy, query_parameter=HEADER),
    st.builds(model.HashBy, source_ip=st.just(True)),
)
ROUTES = st.builds(
    model.Route,
    name=HEADER,
    match=st.builds(
        model.RequestMatch, MATCHES, st.lists(NAMED, max_size=2).map(tuple), st.lists(NAMED, max_size=1).map(tuple)
    ),
    targets=TARGETS,
    redirect=st.none() | st.builds(model.Redirect, HEADER, HOSTS, TEXT, PORT, st.sampled_from([301, 302, 307, 308])),
    response=st.none() | st.builds(model.DirectResponse, st.integers(200, 599), TEXT),
    rewrite=st.none() | st.builds(model.Rewrite, TEXT | st.just("/"), HOSTS),
    timeout=st.none() | SECONDS,
    retries=st.none()
    | st.builds(model.Retries, st.integers(0, 5), st.sampled_from(["5xx", "503,reset", ""]), st.none() | SECONDS),
    request_headers=CHANGES,
    response_headers=CHANGES,
    fault=st.none() | st.builds(model.Fault, SECONDS, PERCENT, st.none() | st.integers(200, 599), PERCENT),
    hash_by=st.none() | HASHES,
)
VIRTUAL_HOSTS = st.builds(
    model.VirtualHost,
    HEADER,
    st.just(("*",)) | HOSTS.map(lambda host: (host,)),
    st.lists(ROUTES, max_size=3).map(tuple),
)
TABLES = st.lists(VIRTUAL_HOSTS, max_size=2).map(lambda hosts: (model.RouteTable("80", tuple(hosts)),))
CLIENT_TLS = st.builds(
    model.ClientTls,
    st.sampled_from(model.TlsMode),
    automatic=st.booleans(),
    sni=st.just("") | HOSTS,
    subject_alt_names=st.lists(HOSTS, max_size=2).map(tuple),
    skip_verification=st.booleans(),
)
DESTINATIONS = st.builds(
    model.Destination,
    NAMES,
    st.sampled_from(model.Resolution),
    st.sampled_from(model.Protocol),
    HOSTS,
    st.just("127.0.0.1"),
    PORT,
    st.none() | CLIENT_TLS,
    st.sampled_from(model.Balance),
    st.none() | HASHES,
    st.builds(model.ConnectionLimits, SECONDS, *[COUNT] * 5, st.none() | SECONDS, st.none() | SECONDS),
    st.none()
    | st.builds(model.OutlierDetection, COUNT, COUNT, SECONDS, SECONDS, st.integers(0, 100), st.integers(0, 100)),
)
INBOUND = st.builds(
    model.InboundPort, PORT, st.sampled_from(model.Protocol), st.sampled_from(model.PeerTls), NAMES, st.just("80")
)
OUTBOUND = st.builds(
    model.OutboundListener, HEADER, st.just("0.0.0.0"), PORT, st.sampled_from(model.Protocol), st.just("80"), TARGETS
)
GATEWAY_TLS = st.builds(
    model.GatewayTls,
    st.just("") | HEADER,
    client_certificates=st.booleans(),
    passthrough=st.booleans(),
    mesh=st.booleans(),
    min_version=st.sampled_from(["", "TLS_AUTO", "TLSV1_2", "TLSV1_3"]),
)
SERVERS = st.builds(
    model.GatewayServer,
    st.lists(HOSTS, max_size=2).map(tuple),
    st.none() | GATEWAY_TLS,
    st.sampled_from(model.Protocol),
    st.just("80"),
    TARGETS,
)
GATEWAYS = st.builds(model.GatewayListener, HEADER, PORT, st.lists(SERVERS, min_size=1, max_size=2).map(tuple))
ENDPOINTS = st.builds(model.Endpoint, st.just("10.0.0.1"), PORT, st.booleans())
ENDPOINT_SETS = st.builds(model.EndpointSet, NAMES, st.lists(ENDPOINTS, max_size=3).map(tuple))


def _tuples(elements: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(elements, max_size=3).map(tuple)


METRICS = _tuples(
    st.builds(
        reporting.Metric,
        st.sampled_from(reporting.MetricName),
        st.sampled_from([(), (("request_host", "request.host"),)]),
        st.sampled_from([(), ("response_flags", "source_app")]),
    )
)
LOGS = _tuples(
    st.builds(
        reporting.AccessLog,
        st.just("/dev/stdout"),
        st.sampled_from(["", "%REQ(:PATH)%"]),
        st.sampled_from([(), (("path", "%REQ(:PATH)%"),)]),
        st.sampled_from(["", "response.code >= 400"]),
    )
)
REPORTING = st.builds(reporting.Reporting, METRICS, METRICS, LOGS, LOGS)
PLANS = st.builds(
    model.Plan,
    proxy=st.sampled_from([plans.plan({"proxy": {"role": role}}).proxy for role in ("sidecar", "gateway")]),
    outbound=_tuples(OUTBOUND),
    inbound=_tuples(INBOUND),
    inbound_default=st.sampled_from(model.PeerTls),
    gateways=_tuples(GATEWAYS),
    route_tables=TABLES,
    destinations=_tuples(DESTINATIONS),
    endpoints=_tuples(ENDPOINT_SETS),
    allow_any=st.booleans(),
    reporting=REPORTING,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(PLANS)
def test_parses_strictly_and_is_complete(plan: model.Plan) -> None:
    resources = render(plan)
    for kind, named in resources.items():
        for name, (_, text) in named.items():
            protos.parse(text, protos.VIRTUAL_HOST if kind is ResourceType.VIRTUAL_HOSTS else "")
            if kind is ResourceType.CLUSTERS and json.loads(text).get("type") == "EDS":
                assert name in resources[ResourceType.ENDPOINTS]
    protos.parse(envoy.assembled_routes(resources, "80"))
