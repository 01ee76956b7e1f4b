"""TLS certificates of gateways: from Kubernetes Secrets to Envoy's. Pure.

A gateway's `credentialName` names a Secret in the namespace of the gateway's own pod, never in another: whoever may
write a Gateway must not be able to have somebody else's key served. Only a plan that uses a Secret is given it.
Sources: Istio's Gateway reference (ServerTLSSettings.credentialName: keys `tls.crt`, `tls.key`, `ca.crt` of a
`kubernetes.io/tls` Secret, or `cert`, `key`, `cacert` of a generic one; the bundle for clients may be in a Secret of
its own, named `<credentialName>-cacert`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from functools import lru_cache

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from discovery.findings import Finding
from discovery.layers import Entries, Resource
from discovery.plan.model import GatewayServer, Plan
from mesh.errors import InvalidInput
from mesh.objects import Key, Secret
from mesh.sds import credential_ca_name, credential_name, tls_secret, validation_secret

_CERTIFICATE_KEYS = (("tls.crt", "tls.key"), ("cert", "key"))
_BUNDLE_KEYS = ("ca.crt", "cacert")
CA_SUFFIX = "-cacert"
_HINT = "a kubernetes.io/tls Secret has tls.crt and tls.key; a generic one cert and key, and cacert for MUTUAL"
_EFFECT = "connections that need it are refused"


def secrets_of(
    plan: Plan, secrets: Mapping[Key, Secret], *, tell_missing: bool = True
) -> tuple[Entries, tuple[Finding, ...]]:
    """The Envoy secrets that the plan's gateway servers refer to, and what is wrong with those that cannot be given.

    `tell_missing`: of certificates whose Secret is not known too, as the plan's own problems do.
    """
    found: dict[str, Resource] = {}
    findings: list[Finding] = []
    for server in _servers(plan):
        assert server.tls is not None
        credential, namespace = server.tls.credential, plan.proxy.identity.namespace
        secret = secrets.get(Key(namespace, credential))
        needs = [(credential_name(credential), secret, _certificate)]
        if server.tls.client_certificates:
            needs.append(
                (credential_ca_name(credential), secrets.get(Key(namespace, credential + CA_SUFFIX), secret), _bundle)
            )
        for name, source, render in needs:
            if name in found:
                continue
            if source is None and render is _certificate and not tell_missing:
                continue
            try:
                if source is None:
                    raise InvalidInput(
                        f"there is no Secret {namespace}/{credential} with a certificate",
                        hint="it must be in the namespace of the gateway's pods",
                    )
                found[name] = render(name, source)
            except InvalidInput as error:
                findings.extend(_findings(server, namespace, credential, error))
    return found, tuple(dict.fromkeys(findings))


def _servers(plan: Plan) -> Iterator[GatewayServer]:
    for listener in plan.gateways:
        for server in listener.servers:
            if server.tls is not None and server.tls.credential:
                yield server


def _findings(server: GatewayServer, namespace: str, credential: str, error: InvalidInput) -> Iterator[Finding]:
    if not server.origins:
        yield Finding("Secret", namespace, credential, "", error.message, error.hint or _HINT, _EFFECT)
    for origin in server.origins:
        where = (origin.kind, origin.namespace, origin.name, origin.field)
        yield Finding(*where, f"credentialName {credential}: {error.message}", error.hint or _HINT, _EFFECT)


@lru_cache(maxsize=1024)
def _certificate(name: str, secret: Secret) -> Resource:
    for certificate_key, private_key in _CERTIFICATE_KEYS:
        if certificate_key in secret.data:
            chain = _decoded(secret, certificate_key)
            key = _decoded(secret, private_key)
            _check_pair(secret, chain, key)
            return _versioned(tls_secret(name, chain.decode(), key.decode()))
    raise InvalidInput(f"the Secret {secret.meta.key} has no certificate")


@lru_cache(maxsize=1024)
def _bundle(name: str, secret: Secret) -> Resource:
    for key in _BUNDLE_KEYS:
        if key in secret.data:
            bundle = _decoded(secret, key)
            try:
                x509.load_pem_x509_certificates(bundle)
            except ValueError:
                raise InvalidInput(f"{key} of the Secret {secret.meta.key} holds no certificates") from None
            return _versioned(validation_secret(name, [bundle.decode()]))
    raise InvalidInput(f"the Secret {secret.meta.key} has no ca.crt or cacert to check clients with")


def _decoded(secret: Secret, key: str) -> bytes:
    if not secret.data.get(key):
        raise InvalidInput(f"the Secret {secret.meta.key} has no {key}")
    try:
        raw = base64.b64decode(secret.data[key], validate=True)
        raw.decode("ascii")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise InvalidInput(f"{key} of the Secret {secret.meta.key} is not PEM in base64") from None
    return raw


def _check_pair(secret: Secret, chain: bytes, key: bytes) -> None:
    """Envoy refuses the whole secret when key and certificate do not fit; say it here, with the Secret's name."""
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0].public_key()
    except ValueError:
        raise InvalidInput(f"the certificate in the Secret {secret.meta.key} cannot be read") from None
    try:
        public = serialization.load_pem_private_key(key, password=None).public_key()
    except (ValueError, TypeError):
        raise InvalidInput(
            f"the private key in the Secret {secret.meta.key} cannot be read", hint="PEM, without a passphrase"
        ) from None
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if leaf.public_bytes(*form) != public.public_bytes(*form):
        raise InvalidInput(f"the key in the Secret {secret.meta.key} is not that of its certificate")


def _versioned(resource: Mapping[str, object]) -> Resource:
    raw = orjson.dumps(resource)
    return hashlib.blake2b(raw, digest_size=8).hexdigest(), raw
