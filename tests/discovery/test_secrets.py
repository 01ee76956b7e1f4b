"""From Kubernetes Secrets to Envoy's, and what is said of those that do not fit."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

from discovery.plan.model import GatewayListener, GatewayServer, GatewayTls, PeerTls, Plan, Proxy, Role
from discovery.plan.origins import Origin
from discovery.secrets import secrets_of
from mesh.identity import Identity
from mesh.objects import Key, Meta, Secret
from tests.support.certificates import Authority

PAIR = Authority().issue(dns="shop.example.com")
ORIGIN = Origin("Gateway", "shop", "front", "spec.servers[0].tls.credentialName")
HOME = "ingress"


def plan_with(tls: GatewayTls) -> Plan:
    proxy = Proxy(HOME, "gw-0", "10.0.0.1", Identity("cluster.local", HOME, "gw"), Role.GATEWAY, ())
    server = GatewayServer(sni=("shop.example.com",), tls=tls, origins=(ORIGIN,))
    return Plan(
        proxy=proxy,
        outbound=(),
        inbound=(),
        inbound_default=PeerTls.PERMISSIVE,
        gateways=(GatewayListener("0.0.0.0_8443", 8443, (server,)),),
        route_tables=(),
        destinations=(),
        endpoints=(),
        allow_any=True,
    )


def secret(name: str = "shop-cert", namespace: str = HOME, **data: str) -> dict[Key, Secret]:
    encoded = {key.replace("_", "."): base64.b64encode(text.encode()).decode() for key, text in data.items()}
    return {Key(namespace, name): Secret(Meta(namespace, name), "Opaque", encoded)}


SIMPLE = plan_with(GatewayTls(credential="shop-cert"))
MUTUAL = plan_with(GatewayTls(credential="shop-cert", client_certificates=True))


@pytest.mark.parametrize(
    "stored",
    [
        secret(tls_crt=PAIR.chain_pem, tls_key=PAIR.key_pem),
        secret(cert=PAIR.chain_pem, key=PAIR.key_pem),
    ],
)
def test_a_certificate_and_its_key(stored: dict[Key, Secret]) -> None:
    found, findings = secrets_of(SIMPLE, stored)
    assert not findings
    ((name, (version, raw)),) = found.items()
    assert name == "kubernetes://shop-cert"
    assert len(version) == 16
    assert json.loads(raw)["tls_certificate"]["private_key"]["inline_string"] == PAIR.key_pem


@pytest.mark.parametrize(
    "stored",
    [
        secret(tls_crt=PAIR.chain_pem, tls_key=PAIR.key_pem, ca_crt=PAIR.chain_pem),
        secret(cert=PAIR.chain_pem, key=PAIR.key_pem, cacert=PAIR.chain_pem),
        secret(tls_crt=PAIR.chain_pem, tls_key=PAIR.key_pem) | secret("shop-cert-cacert", cacert=PAIR.chain_pem),
    ],
)
def test_the_bundle_for_clients(stored: dict[Key, Secret]) -> None:
    found, findings = secrets_of(MUTUAL, stored)
    assert not findings
    assert set(found) == {"kubernetes://shop-cert", "kubernetes://shop-cert-cacert"}


def test_a_secret_of_another_namespace_is_never_served() -> None:
    found, findings = secrets_of(SIMPLE, secret(namespace="shop", tls_crt=PAIR.chain_pem, tls_key=PAIR.key_pem))
    assert not found
    assert "ingress/shop-cert" in findings[0].message
    assert (findings[0].kind, findings[0].name, findings[0].field) == ("Gateway", "front", ORIGIN.field)


def test_a_secret_that_no_gateway_uses_is_not_sent() -> None:
    plan = replace(SIMPLE, gateways=())
    assert secrets_of(plan, secret(tls_crt=PAIR.chain_pem, tls_key=PAIR.key_pem)) == ({}, ())


OTHER = Authority().issue(dns="other.example.com")


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        ({}, "there is no Secret ingress/shop-cert"),
        (secret(ca_crt=PAIR.chain_pem), "has no certificate"),
        (secret(tls_crt=PAIR.chain_pem), "has no tls.key"),
        (secret(tls_crt="nonsense", tls_key=PAIR.key_pem), "the certificate in the Secret"),
        (secret(tls_crt=PAIR.chain_pem, tls_key="nonsense"), "the private key in the Secret"),
        (secret(tls_crt=PAIR.chain_pem, tls_key=OTHER.key_pem), "is not that of its certificate"),
        (secret(tls_crt="\u00e9", tls_key=PAIR.key_pem), "is not PEM in base64"),
    ],
)
def test_what_does_not_fit_is_named(stored: dict[Key, Secret], says: str) -> None:
    found, findings = secrets_of(SIMPLE, stored)
    assert not found
    assert says in findings[0].message
    assert findings[0].hint
    assert PAIR.key_pem not in str(findings)


def test_what_the_plan_has_told_is_not_told_again() -> None:
    assert secrets_of(SIMPLE, {}, tell_missing=False) == ({}, ())


def test_not_base64() -> None:
    stored = {Key(HOME, "shop-cert"): Secret(Meta(HOME, "shop-cert"), "Opaque", {"tls.crt": "%%%", "tls.key": "%%%"})}
    assert "not PEM in base64" in secrets_of(SIMPLE, stored)[1][0].message


def test_a_missing_bundle_does_not_take_the_certificate_away() -> None:
    found, findings = secrets_of(MUTUAL, secret(tls_crt=PAIR.chain_pem, tls_key=PAIR.key_pem))
    assert set(found) == {"kubernetes://shop-cert"}
    assert "ca.crt or cacert" in findings[0].message
