"""meshConfig: real ones are read, wrong ones name every field."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import InvalidInput
from mesh.settings import MeshSettings, OutboundMode, parse_mesh_settings


def test_nothing_is_the_defaults() -> None:
    for text in ("", "{}", "# nothing\n"):
        assert parse_mesh_settings(text) == MeshSettings()


def test_the_root_namespace_is_the_control_planes_unless_it_is_named() -> None:
    for text in ("", "accessLogFile: /dev/stdout"):
        assert parse_mesh_settings(text, "mesh").root_namespace == "mesh"
    assert parse_mesh_settings("rootNamespace: policy", "mesh").root_namespace == "policy"


def test_a_real_one() -> None:
    settings = parse_mesh_settings(
        """
accessLogFile: /dev/stdout
trustDomain: example.org
outboundTrafficPolicy: {mode: REGISTRY_ONLY, extra: 1}
enablePrometheusMerge: true
defaultConfig:
  discoveryAddress: istiod.istio-system.svc:15012
  concurrency: 0
  terminationDrainDuration: 1m30s
  proxyMetadata: {ISTIO_META_DNS_CAPTURE: "true"}
heddle: {nativeSidecars: false}
"""
    )
    assert settings.trust_domain == "example.org"
    assert settings.outbound_traffic_policy.mode is OutboundMode.REGISTRY_ONLY
    assert settings.default_config.concurrency == 0
    assert settings.default_config.proxy_metadata == {"ISTIO_META_DNS_CAPTURE": "true"}
    assert settings.heddle.native_sidecars is False
    assert sorted(settings.ignored_fields()) == [
        "defaultConfig.discoveryAddress",
        "outboundTrafficPolicy.extra",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trustDomain: Example.org", "trustDomain: 'Example.org' is not a SPIFFE trust domain (use 1 to 255"),
        ("trustDomain: 5", "trustDomain: Input should be a valid string (got 5)"),
        ("rootNamespace: Istio", "rootNamespace: 'Istio' is not the name of a namespace"),
        ("outboundTrafficPolicy: {mode: NONE}", "outboundTrafficPolicy.mode: Input should be 'ALLOW_ANY' or 'REGIS"),
        ("outboundTrafficPolicy: ALLOW_ANY", "outboundTrafficPolicy: Input should be a valid dictionary"),
        ("enableAutoMtls: perhaps", "enableAutoMtls: Input should be a valid boolean"),
        ("defaultConfig: {concurrency: -1}", "defaultConfig.concurrency: Input should be greater than or equal to 0"),
        ("defaultConfig: {statusPort: 70000}", "defaultConfig.statusPort: Input should be less than or equal to 65535"),
        ("defaultConfig: {drainDuration: '45'}", "defaultConfig.drainDuration: '45' has no unit: write 45s"),
        ("defaultConfig: {drainDuration: -5s}", "defaultConfig.drainDuration: a duration is not less than 0"),
        ("defaultConfig: {proxyMetadata: {A: 5}}", "defaultConfig.proxyMetadata.A: Input should be a valid string"),
        ("heddle: {certificateTtl: long}", "heddle.certificateTtl: 'long' is not a duration"),
        ("accessLogFormat: 'a %RESPONSE_CODES%'", "accessLogFormat: there is no command %RESPONSE_CODES% (column 3)"),
        ("accessLogFormat: '100% of'", "accessLogFormat: what begins with '% of' (column 4) is no command"),
        ("accessLogEncoding: JSON\naccessLogFormat: '{'", "accessLogFormat: accessLogFormat is not JSON"),
        ("accessLogEncoding: JSON\naccessLogFormat: '{a: 5}'", "accessLogFormat: accessLogFormat is not JSON"),
        ("accessLogEncoding: JSON\naccessLogFormat: '{\"a\": 5}'", "accessLogFormat: accessLogFormat with accessLogEn"),
        ('accessLogEncoding: JSON\naccessLogFormat: \'{"a": "%NO%"}\'', "accessLogFormat: field 'a': there is no"),
        (
            "extensionProviders: [{name: a, envoyFileAccessLog: {logFormat: {labels: {x: '%DURATION(a)%'}}}}]",
            "extensionProviders.0.envoyFileAccessLog.logFormat.labels.x: %DURATION% takes no argument",
        ),
        ("extensionProviders: [{name: a, zipkin: {service: a, port: 1, traceContextOption: W3C}}]", "traceContextOpt"),
        ("defaultConfig: {tracing: {sampling: 200}}", "defaultConfig.tracing.sampling: Input should be less"),
        ("- a", "meshConfig is a mapping, and this is a list"),
        ("text", "meshConfig is a mapping, and this is 'text'"),
        ("a: [", "meshConfig cannot be read at line 2"),
        ("a: 1\na: 2", "meshConfig cannot be read at line 2"),
        ("a: 1\n---\nb: 2", "meshConfig cannot be read at line 2"),
        ("a: !!python/object:os.system x", "meshConfig cannot be read at line 1"),
        ("[" * 1000, "meshConfig cannot be read at line 1"),
    ],
)
def test_a_wrong_one_names_its_field(text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as got:
        parse_mesh_settings(text)
    assert got.value.field == "data.mesh"
    assert words in str(got.value)


def test_all_errors_come_at_once() -> None:
    with pytest.raises(InvalidInput) as got:
        parse_mesh_settings("trustDomain: A\nenableAutoMtls: 7\ndefaultConfig: {concurrency: x}\n")
    for field in ("trustDomain: ", "enableAutoMtls: ", "defaultConfig.concurrency: "):
        assert field in str(got.value)


FIELDS = [
    "trustDomain",
    "rootNamespace",
    "outboundTrafficPolicy",
    "defaultConfig",
    "heddle",
    "mode",
    "concurrency",
    "x",
]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3),
    max_leaves=6,
)


@given(st.text() | values.map(repr))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        parse_mesh_settings(text).ignored_fields()


CA_CERTIFICATES = """
trustDomain: cluster.local
trustDomainAliases: [old.example, cluster.local]
caCertificates:
- pem: PEM
  trustDomains: [partner.example, sister.example]
- spiffeBundleUrl: https://spire.other.example/bundle
  trustDomains: [other.example]
- spiffeBundleUrl: https://heddle.third.example:15013/v1/spiffe-bundle
  endpointSpiffeId: spiffe://third.example/ns/istio-system/sa/heddle-ca
  pem: PEM
  trustDomains: [third.example]
"""


def test_other_trust_domains() -> None:
    settings = parse_mesh_settings(CA_CERTIFICATES)
    assert settings.other_trust_domains == (
        "old.example",
        "partner.example",
        "sister.example",
        "other.example",
        "third.example",
    )
    assert settings.ignored_fields() == []
    assert parse_mesh_settings("").other_trust_domains == ()


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{pem: PEM}", "trustDomains: Field required"),
        ("{pem: PEM, trustDomains: []}", "at least 1 item"),
        ("{pem: PEM, trustDomains: [A]}", "not a SPIFFE trust domain"),
        ("{pem: PEM, trustDomains: [cluster.local]}", "the roots of cluster.local are the ca's"),
        ("{trustDomains: [a]}", "pem is needed"),
        ("{spiffeBundleUrl: 'http://a', trustDomains: [a]}", "an https:// address"),
        ("{spiffeBundleUrl: 'https://me@a', trustDomains: [a]}", "an https:// address"),
        ("{spiffeBundleUrl: 'https://a', trustDomains: [a, b]}", "that of one trust domain"),
        ("{spiffeBundleUrl: 'https://a', endpointSpiffeId: 'spiffe://a/b', trustDomains: [a]}", "known by at first"),
        ("{pem: PEM, endpointSpiffeId: 'spiffe://a/b', trustDomains: [a]}", "belongs to a spiffeBundleUrl"),
    ],
)
def test_roots_of_others_that_cannot_be(entry: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        parse_mesh_settings(f"caCertificates: [{entry}]")
