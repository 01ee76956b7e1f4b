"""The certificates of the trust domain: which fields and extensions a root, an intermediate and a leaf have. Pure.

Authorities are made here by the general builder, seldom; leaves by sign.py, from a template that takes its constant
extensions from `leaf_extensions`.
Sources: RFC 5280 sections 4.1 and 4.2; SPIFFE X509-SVID sections 2 to 4 and appendix A.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from ipaddress import ip_network

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ca.settings import dns_suffixes
from ca.signature import IssuerKey, IssuerPublicKey, scheme_of
from mesh.identity import CONTROL_NAMESPACE

# RFC 1123 host names: labels of letters, digits and inner dashes, the last not a number (an IPv4 address has one).
_HOST = re.compile(r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)*(?![0-9]+\Z)[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")


def root_certificate(
    key: IssuerKey, trust_domain: str, serial: int, not_before: int, not_after: int
) -> x509.Certificate:
    """A self-signed root. Its name carries the serial, so that two roots of one trust domain are never confused."""
    name = _name(trust_domain, f"Heddle root {serial:x}"[:64])
    return _authority(name, key.public_key(), name, key, None, trust_domain, serial, not_before, not_after)


def intermediate_certificate(
    public_key: IssuerPublicKey,
    root: x509.Certificate,
    root_key: IssuerKey,
    trust_domain: str,
    serial: int,
    not_before: int,
    not_after: int,
    control_namespace: str = CONTROL_NAMESPACE,
) -> x509.Certificate:
    """An intermediate that may sign leaves of its trust domain, and nothing below them (path length 0).

    It is another key of the same authority and has its root's name (RFC 5280 section 3.2, "self-issued"), so that the
    root's revocation list counts for its leaves (docs/adr/0231). Key identifiers tell the two apart.
    """
    name, constraints = root.subject, _name_constraints(trust_domain, control_namespace)
    return _authority(
        name, public_key, root.subject, root_key, 0, trust_domain, serial, not_before, not_after, constraints
    )


def intermediate_request_extensions(
    trust_domain: str, serial: int, control_namespace: str
) -> tuple[x509.Name, list[x509.Extension[x509.ExtensionType]]]:
    """The subject and the extensions to ask for, where somebody else signs the intermediate."""
    constraints = _name_constraints(trust_domain, control_namespace)
    extensions = [
        _extension(x509.BasicConstraints(ca=True, path_length=0), critical=True),
        _extension(_key_usage(authority=True), critical=True),
        _extension(_trust_domain_name(trust_domain), critical=False),
    ]
    if constraints is not None:
        extensions.append(_extension(constraints, critical=True))
    return _name(trust_domain, f"Heddle intermediate {serial:x}"[:64]), extensions


def leaf_extensions(issuer: x509.Certificate) -> list[x509.Extension[x509.ExtensionType]]:
    """The extensions that every leaf of `issuer` has in common, in the order in which they stand in the certificate."""
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return [
        _extension(_key_usage(authority=False), critical=True),
        _extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        ),
        _extension(x509.BasicConstraints(ca=False, path_length=None), critical=True),
        _extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False),
    ]


def _authority(
    subject: x509.Name,
    public_key: IssuerPublicKey,
    issuer: x509.Name,
    issuer_key: IssuerKey,
    path_length: int | None,
    trust_domain: str,
    serial: int,
    not_before: int,
    not_after: int,
    constraints: x509.NameConstraints | None = None,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(datetime.fromtimestamp(not_before, UTC))
        .not_valid_after(datetime.fromtimestamp(not_after, UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        # X509-SVID 4.1: a signing certificate may carry the SPIFFE ID of its trust domain, without a path.
        .add_extension(_trust_domain_name(trust_domain), critical=False)
    )
    if constraints is not None:
        builder = builder.add_extension(constraints, critical=True)  # RFC 5280 4.2.1.10
    return builder.sign(issuer_key, scheme_of(issuer_key.public_key()).digest)


def _name_constraints(trust_domain: str, control_namespace: str) -> x509.NameConstraints | None:
    """SPIFFE IDs of the trust domain alone, the control plane's DNS names alone, and no IP addresses.

    None for a trust domain that SPIFFE knows and DNS does not (`a_b`, `10.0.0.1`): Envoy and Go refuse every
    certificate under a constraint of such a name (docs/adr/0221).
    """
    if not _HOST.match(trust_domain):
        return None
    permitted = [x509.UniformResourceIdentifier(trust_domain), *map(x509.DNSName, dns_suffixes(control_namespace))]
    return x509.NameConstraints(permitted, [x509.IPAddress(ip_network(every)) for every in ("0.0.0.0/0", "::/0")])


def _trust_domain_name(trust_domain: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")])


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(trust_domain: str, common_name: str) -> x509.Name:
    # RFC 5280 appendix A.1: an organization name has at most 64 characters; a trust domain may have 255.
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _extension(value: x509.ExtensionType, *, critical: bool) -> x509.Extension[x509.ExtensionType]:
    return x509.Extension(value.oid, critical, value)
