"""Secrets as Envoy's SDS wants them: certificates with their keys, and trust bundles. PEM texts in, plain dicts out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mesh.wire import ResourceType
from mesh.xds import TYPE_URLS, config_source

DEFAULT = "default"
"""The workload's own SVID: certificate chain and key."""
ROOTCA = "ROOTCA"
"""The trust bundle, as a validation context."""

_SPIFFE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
_TYPE = TYPE_URLS[ResourceType.SECRETS]
_KUBERNETES = "kubernetes://"
_CACERT = "-cacert"


def credential_name(credential: str) -> str:
    """The secret's name for a gateway's `credentialName`."""
    return _KUBERNETES + credential


def credential_ca_name(credential: str) -> str:
    """The name of the bundle that a gateway's clients are checked with."""
    return _KUBERNETES + credential + _CACERT


def tls_secret(name: str, certificate_chain_pem: str, private_key_pem: str) -> dict[str, Any]:
    """A `Secret` with a certificate chain (leaf first) and its key. Never log it."""
    return {
        "@type": _TYPE,
        "name": name,
        "tls_certificate": {
            "certificate_chain": {"inline_string": certificate_chain_pem},
            "private_key": {"inline_string": private_key_pem},
        },
    }


def validation_secret(name: str, roots_pem: Iterable[str], crls_pem: Iterable[str] = ()) -> dict[str, Any]:
    """A `Secret` with the roots that peers are checked with. What names they may carry is said where it is used.

    `crls_pem`: of every root and intermediate that may be in a peer's chain, or none at all: Envoy refuses a chain of
    which one list is missing (CertificateValidationContext.crl).
    """
    context = {"trusted_ca": {"inline_string": _joined(roots_pem)}}
    lists = _joined(crls_pem)
    if lists:
        context["crl"] = {"inline_string": lists}
    return {"@type": _TYPE, "name": name, "validation_context": context}


def federated_validation_secret(
    name: str, roots_pem: Mapping[str, Iterable[str]], crls_pem: Mapping[str, Iterable[str]] | None = None
) -> dict[str, Any]:
    """A `Secret` with the roots of several trust domains, by their names: a peer is checked with those of the trust
    domain that its SPIFFE ID names, so that no authority can speak for another's (SPIFFE Federation section 7.3).

    `crls_pem`: by trust domain, as in `validation_secret`. Envoy's validator takes no list from the validation context,
    but those that stand among the roots, and checks peers of that trust domain by them alone (docs/adr/0227).
    """
    lists = crls_pem or {}
    domains = [
        {"name": domain, "trust_bundle": {"inline_string": _joined([*roots, *lists.get(domain, ())])}}
        for domain, roots in roots_pem.items()
    ]
    validator = {
        "name": "envoy.tls.cert_validator.spiffe",
        "typed_config": {"@type": _SPIFFE, "trust_domains": domains},
    }
    return {"@type": _TYPE, "name": name, "validation_context": {"custom_validator_config": validator}}


def _joined(pems: Iterable[str]) -> str:
    return "".join(pem if pem.endswith("\n") else pem + "\n" for pem in pems)


def secret_config(name: str) -> dict[str, Any]:
    """An `SdsSecretConfig`: the secret `name`, polled from the agent."""
    return {"name": name, "sds_config": config_source()}
