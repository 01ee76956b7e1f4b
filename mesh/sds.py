"""Secrets as Envoy's SDS wants them: certificates with their keys, and trust bundles. PEM texts in, plain dicts out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mesh.wire import ResourceType
from mesh.xds import TYPE_URLS, config_source

DEFAULT = "default"
"""The workload's own SVID: certificate chain and key."""
ROOTCA = "ROOTCA"
"""The trust bundle, as a validation context."""

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


def validation_secret(name: str, roots_pem: Iterable[str]) -> dict[str, Any]:
    """A `Secret` with the roots that peers are checked with. What names they may carry is said where it is used."""
    bundle = "".join(root if root.endswith("\n") else root + "\n" for root in roots_pem)
    return {"@type": _TYPE, "name": name, "validation_context": {"trusted_ca": {"inline_string": bundle}}}


def secret_config(name: str) -> dict[str, Any]:
    """An `SdsSecretConfig`: the secret `name`, polled from the agent."""
    return {"name": name, "sds_config": config_source()}
