"""Who would fail if a root went now, by what each proxy's Envoy serves and trusts at this moment. Pure."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from ca.rotation.documents import fingerprint
from mesh.errors import InvalidInput

SECRETS = "/config_dump?resource=dynamic_active_secrets"
"""Where Envoy tells of the certificates that it uses; private keys are left out by Envoy itself."""
_TRUSTED = ("trusted_ca", "trust_bundle")


@dataclass(frozen=True, slots=True)
class Roots:
    """The root that would go, and those that would be left."""

    leaving: x509.Certificate
    left: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class InUse:
    """What an Envoy uses: each chain that it shows, leaf first, and each set of roots that it trusts."""

    chains: tuple[tuple[x509.Certificate, ...], ...]
    trusted: tuple[tuple[x509.Certificate, ...], ...]


def choose(bundle: Sequence[str], rotation: Mapping[str, Any], without: str) -> Roots:
    """The root that is meant: the one whose fingerprint begins so, or the one that the rotation takes away.

    InvalidInput where there is no such root, or none would be left.
    """
    certificates = [x509.load_pem_x509_certificate(pem.encode()) for pem in bundle]
    wanted = without.lower().replace(":", "") or _leaving(rotation["roots"])
    if not wanted:
        raise InvalidInput(
            "no rotation is under way, so that it is not clear which root is meant", hint="name it by --without"
        )
    chosen = [each for each in certificates if fingerprint(each).startswith(wanted)]
    if len(chosen) != 1:
        names = ", ".join(fingerprint(each)[:16] for each in certificates)
        which = "no root" if not chosen else "more than one root"
        raise InvalidInput(f"{which} of the bundle begins with {wanted[:16]}: there are {names}", field="--without")
    left = tuple(each for each in certificates if each != chosen[0])
    if not left:
        raise InvalidInput(
            "it is the only root: without it, everybody fails", hint="`heddle rotate start` brings another one first"
        )
    return Roots(chosen[0], left)


def _leaving(roots: Sequence[Mapping[str, str]]) -> str:
    by_role = {root["role"]: root["fingerprint"] for root in roots}
    return by_role.get("outgoing") or (by_role.get("active", "") if "incoming" in by_role else "")


def in_use(dump: Mapping[str, Any]) -> InUse:
    """From Envoy's answer to `SECRETS`: workloads' certificates alone, not those of a gateway's hosts."""
    chains: list[tuple[x509.Certificate, ...]] = []
    trusted: list[tuple[x509.Certificate, ...]] = []
    for config in dump.get("configs", ()):
        secret = config.get("secret") or {}
        if "tls_certificate" in secret:
            chain = tuple(_certificates(secret["tls_certificate"].get("certificate_chain") or {}))
            if chain and _is_svid(chain[0]):
                chains.append(chain)
        sources = _sources(secret.get("validation_context") or {})
        trusted.extend(tuple(_certificates(source)) for source in sources)
    return InUse(tuple(chains), tuple(roots for roots in trusted if roots))


def failures(used: InUse, roots: Roots) -> list[str]:
    """Why this proxy would fail without the root, in sentences; none when it would not."""
    said = []
    if not used.chains:
        said.append("it serves no certificate of the mesh")
    for chain in used.chains:
        if not _leads_to(chain, roots.left):
            where = "to the root that would go" if _leads_to(chain, (roots.leaving,)) else "to no root of the bundle"
            said.append(f"its certificate {chain[0].serial_number:x} leads {where}: every peer would refuse it")
    ours = [trusted for trusted in used.trusted if {*trusted} & {roots.leaving, *roots.left}]
    if not ours:
        said.append("it trusts no root of the mesh")
    for trusted in ours:
        missing = [each for each in roots.left if each not in trusted]
        if missing:
            names = ", ".join(fingerprint(each)[:16] for each in missing)
            said.append(f"it does not trust {names}: it would refuse every peer with a certificate of it")
    return list(dict.fromkeys(said))


def _leads_to(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]) -> bool:
    return all(_issued(above, below) for below, above in itertools.pairwise(chain)) and any(
        _issued(root, chain[-1]) for root in roots
    )


def _issued(above: x509.Certificate, below: x509.Certificate) -> bool:
    try:
        below.verify_directly_issued_by(above)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _is_svid(leaf: x509.Certificate) -> bool:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return any(uri.startswith("spiffe://") for uri in names.get_values_for_type(x509.UniformResourceIdentifier))


def _sources(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every data source of trusted certificates within a validation context, also in one of SPIFFE's validator."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name in _TRUSTED:
                yield inner
            else:
                yield from _sources(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _sources(inner)


def _certificates(source: Mapping[str, Any]) -> list[x509.Certificate]:
    text = source.get("inline_string", "").encode() or base64.b64decode(source.get("inline_bytes", ""))
    return x509.load_pem_x509_certificates(text) if b"BEGIN CERTIFICATE" in text else []
