"""Whether a root that somebody brings can be the trust domain's: every check, before anything is written. Pure.

It comes with its key; or it stays elsewhere ("offline"), and an intermediate of it comes with its key and the chain
between the two. Files are those of Istio's Secret `cacerts`, by which the problems are named:
    root-cert.pem    the root
    ca-cert.pem      the certificate whose key is in ca-key.pem: the root itself, or an intermediate
    cert-chain.pem   certificates between ca-cert.pem and the root; it may name both of them too, or be empty
Sources: https://istio.io/latest/docs/tasks/security/cert-management/plugin-ca-cert/ (the layout); RFC 5280 sections
4.1, 4.2.1 and 6.1; SPIFFE X509-SVID sections 4 and 5 (what a signing certificate may have).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from ca.signature import IssuerKey, scheme_of
from mesh.errors import InvalidInput
from mesh.problems import FieldProblem, ObjectErrors

ROOT, CERTIFICATE, KEY, CHAIN = "root-cert.pem", "ca-cert.pem", "ca-key.pem", "cert-chain.pem"
TLS_NAMES = {"ca.crt": ROOT, "tls.crt": CERTIFICATE, "tls.key": KEY}
"""The names that a Secret of type kubernetes.io/tls has for the same, which Istio reads too."""

LONGEST_CHAIN = 4  # intermediates; each one is sent with every handshake of the mesh
_PEM_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_KNOWN_CRITICAL = frozenset(
    {
        x509.BasicConstraints.oid,
        x509.KeyUsage.oid,
        x509.ExtendedKeyUsage.oid,
        x509.NameConstraints.oid,
        x509.SubjectAlternativeName.oid,
        x509.CertificatePolicies.oid,
    }
)

Extension = TypeVar("Extension", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class ImportedRoot:
    """A root that passed. `chain`: from the certificate that signs to just below the root; empty when that signs.

    `key` belongs to the first of `chain`, or to the root.
    """

    root: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key: IssuerKey = field(repr=False)
    warnings: tuple[FieldProblem, ...] = ()

    @property
    def offline(self) -> bool:
        """Whether the root's own key is not here."""
        return bool(self.chain)


def check_import(
    files: Mapping[str, bytes], passphrase: bytes | None, trust_domain: str, now: float, least_life: float
) -> ImportedRoot:
    """The root in `files`; ObjectErrors with everything that is wrong.

    `passphrase` is that of an encrypted key. `least_life`: seconds that each certificate must have left.
    """
    files = {TLS_NAMES.get(name, name): content for name, content in files.items()}
    problems: list[FieldProblem] = []
    given = {name: _certificates(name, files, problems) for name in (ROOT, CERTIFICATE, CHAIN)}
    key = _key(files, passphrase, problems)
    problems += [found for name, certificates in given.items() for c in certificates for found in _digest(c, name)]
    _stop_at(problems)
    assert key is not None
    path = _path(given[CERTIFICATE][0], given[CHAIN], given[ROOT], problems)
    _stop_at(problems)
    problems += _key_problems(key, path[0])
    for depth, certificate in enumerate(path):
        name = _name(path, depth)
        problems += _as_authority(certificate, name, is_root=depth == len(path) - 1)
        problems += _validity(certificate, name, now, least_life)
        problems += _names(certificate, name, trust_domain)
        problems += _algorithms(certificate, name)
        problems += _path_length(certificate, name, below=_below(path, depth))
    _stop_at(problems)
    assert isinstance(key, IssuerKey)
    return ImportedRoot(path[-1], tuple(path[:-1]), key, tuple(_warnings(given, path)))


def _stop_at(problems: Sequence[FieldProblem]) -> None:
    if problems:
        raise ObjectErrors("the root to import", problems)


def _problem(name: str, message: str, hint: str = "") -> FieldProblem:
    return FieldProblem((name,), message, hint)


# ---- reading


def _certificates(name: str, files: Mapping[str, bytes], problems: list[FieldProblem]) -> list[x509.Certificate]:
    content = files.get(name, b"").strip()
    if not content:
        if name != CHAIN:
            problems.append(_problem(name, "it is missing", "a root is imported from a certificate and a key"))
        return []
    if _PEM_CERTIFICATE not in content:
        problems.append(_problem(name, "there is no PEM certificate in it"))
        return []
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        problems.append(_problem(name, f"a certificate in it cannot be read: {error}"))
        return []


def _key(files: Mapping[str, bytes], passphrase: bytes | None, problems: list[FieldProblem]) -> PrivateKeyTypes | None:
    content = files.get(KEY, b"").strip()
    if not content:
        problems.append(_problem(KEY, "it is missing", "the key of ca-cert.pem; the root's own key is not needed"))
        return None
    encrypted = b"ENCRYPTED" in content
    if encrypted and passphrase is None:
        problems.append(_problem(KEY, "it is encrypted", "name a file with its passphrase"))
        return None
    try:
        return serialization.load_pem_private_key(content, passphrase if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        why = "the passphrase is wrong, or it is damaged" if encrypted else f"it cannot be read as a PEM key: {error}"
        problems.append(_problem(KEY, why))
    return None


# ---- from the certificate that signs up to the root


def _path(
    signing: x509.Certificate,
    chain: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    problems: list[FieldProblem],
) -> list[x509.Certificate]:
    path = [signing]
    links = [certificate for certificate in chain if certificate != signing]
    while path[-1] not in roots:
        above = next((c for c in (*roots, *links) if c not in path and _issued(c, path[-1])), None)
        if above is None:
            problems.append(_no_issuer(path, (*roots, *links)))
            break
        path.append(above)
        if len(path) > LONGEST_CHAIN + 1:
            problems.append(_problem(CHAIN, f"there are more than {LONGEST_CHAIN} certificates below the root"))
            break
    return path


def _no_issuer(path: Sequence[x509.Certificate], candidates: Sequence[x509.Certificate]) -> FieldProblem:
    last, name = path[-1], CERTIFICATE if len(path) == 1 else CHAIN
    named = [c for c in candidates if c.subject == last.issuer and c != last]
    if named:
        return _problem(name, f"its signature is not that of {_subject(named[0])}, which it names as its issuer")
    if last.subject == last.issuer:
        return _problem(name, f"it is a root of its own ({_subject(last)}), and not the one in {ROOT}")
    return _problem(
        name,
        f"its issuer, {last.issuer.rfc4514_string()}, is neither in {CHAIN} nor in {ROOT}",
        f"put every certificate between {CERTIFICATE} and the root into {CHAIN}",
    )


def _issued(above: x509.Certificate, below: x509.Certificate) -> bool:
    try:
        below.verify_directly_issued_by(above)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _name(path: Sequence[x509.Certificate], depth: int) -> str:
    """The file that a certificate of the path is named by."""
    if depth == len(path) - 1:
        return ROOT
    return CERTIFICATE if depth == 0 else CHAIN


def _below(path: Sequence[x509.Certificate], depth: int) -> int:
    """How many authorities stand below this one in a leaf's chain; a root that signs itself has the ca's own below."""
    return 1 if len(path) == 1 else depth


# ---- one certificate


def _key_problems(key: PrivateKeyTypes, signing: x509.Certificate) -> Iterator[FieldProblem]:
    if _spki(key.public_key()) != _spki(signing.public_key()):
        yield _problem(KEY, f"it is not the key of the certificate in {CERTIFICATE}")


def _spki(key: object) -> bytes:
    encoded: bytes = key.public_bytes(  # type: ignore[attr-defined]  # every public key type has it
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def _as_authority(certificate: x509.Certificate, name: str, *, is_root: bool) -> Iterator[FieldProblem]:
    if certificate.version is not x509.Version.v3:
        yield _problem(name, "it is an X.509 certificate of version 1, which says nothing about what it may sign")
        return
    constraints = _critical(certificate, x509.BasicConstraints)
    if constraints is None or not constraints[0].ca:
        yield _problem(name, "it may not sign certificates: basicConstraints does not say CA:TRUE")
    elif not constraints[1]:
        yield _problem(name, "its basicConstraints is not critical, and clients of the mesh verify strictly")
    usage = _extension(certificate, x509.KeyUsage)
    if usage is None or not usage.key_cert_sign:
        yield _problem(name, "it may not sign certificates: keyUsage does not say keyCertSign")
    extended = _extension(certificate, x509.ExtendedKeyUsage)
    if extended is not None and x509.oid.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in extended:
        wanted = {x509.oid.ExtendedKeyUsageOID.SERVER_AUTH, x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH}
        if not wanted <= set(extended):
            yield _problem(name, "its extendedKeyUsage does not let it issue for both servers and clients")
    if _extension(certificate, x509.SubjectKeyIdentifier) is None:
        yield _problem(name, "it has no subjectKeyIdentifier", "make it with `subjectKeyIdentifier = hash`")
    if not is_root and _extension(certificate, x509.AuthorityKeyIdentifier) is None:
        yield _problem(
            name,
            "it has no authorityKeyIdentifier, and clients of the mesh verify strictly",
            "issue it anew with `authorityKeyIdentifier = keyid`",
        )
    if is_root and not _issued(certificate, certificate):
        yield _problem(name, "it is not a root: it has not signed itself")
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _KNOWN_CRITICAL:
            yield _problem(name, f"its critical extension {extension.oid.dotted_string} is known to no proxy")


def _validity(certificate: x509.Certificate, name: str, now: float, least_life: float) -> Iterator[FieldProblem]:
    moment = datetime.fromtimestamp(now, UTC)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if begins > moment:
        yield _problem(name, f"it is not valid before {begins:%Y-%m-%dT%H:%M:%SZ}")
    if ends <= moment:
        yield _problem(name, f"it ended on {ends:%Y-%m-%dT%H:%M:%SZ}")
    elif (ends - moment).total_seconds() < least_life:
        days = least_life / 86400
        yield _problem(name, f"it ends on {ends:%Y-%m-%dT%H:%M:%SZ}, in less than {days:g} days")


def _names(certificate: x509.Certificate, name: str, trust_domain: str) -> Iterator[FieldProblem]:
    if not certificate.subject.rdns:
        yield _problem(name, "it has no subject", "an authority must have one (RFC 5280 section 4.1.2.6)")
    names = _extension(certificate, x509.SubjectAlternativeName)
    if names is not None:
        spiffe = [uri for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if _is_spiffe(uri)]
        if spiffe and spiffe != [f"spiffe://{trust_domain}"]:
            yield _problem(name, f"it is of another trust domain: {', '.join(spiffe)}", f"ours is {trust_domain}")
    constraints = _extension(certificate, x509.NameConstraints)
    if constraints is not None and not _allows(constraints, trust_domain):
        yield _problem(name, f"its nameConstraints do not allow names of the trust domain {trust_domain}")


def _allows(constraints: x509.NameConstraints, trust_domain: str) -> bool:
    permitted = [n.value for n in constraints.permitted_subtrees or () if isinstance(n, x509.UniformResourceIdentifier)]
    excluded = [n.value for n in constraints.excluded_subtrees or () if isinstance(n, x509.UniformResourceIdentifier)]
    if any(_matches(tree, trust_domain) for tree in excluded):
        return False
    return not permitted or any(_matches(tree, trust_domain) for tree in permitted)


def _matches(tree: str, host: str) -> bool:
    """RFC 5280 4.2.1.10: a URI constraint is about the host; one that begins with a period is about its subdomains."""
    return host.endswith(tree) if tree.startswith(".") else host == tree


def _algorithms(certificate: x509.Certificate, name: str) -> Iterator[FieldProblem]:
    try:
        scheme_of(certificate.public_key())
    except InvalidInput as error:
        yield _problem(name, error.message, error.hint or "")


def _digest(certificate: x509.Certificate, name: str) -> Iterator[FieldProblem]:
    digest = certificate.signature_hash_algorithm
    if not isinstance(digest, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
        yield _problem(name, f"it is signed with {digest.name if digest else 'an odd digest'}", "use SHA-256 or better")


def _path_length(certificate: x509.Certificate, name: str, *, below: int) -> Iterator[FieldProblem]:
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is None or constraints.path_length is None or constraints.path_length >= below:
        return
    yield _problem(
        name,
        f"its path length is {constraints.path_length}, and {below} authorit{'y stands' if below == 1 else 'ies stand'}"
        " below it",
    )


def _warnings(
    given: Mapping[str, Sequence[x509.Certificate]], path: Sequence[x509.Certificate]
) -> Iterator[FieldProblem]:
    for name, certificates in given.items():
        for certificate in certificates:
            if certificate not in path:
                says = f"{_subject(certificate)} is not between {CERTIFICATE} and its root, and is left out"
                yield FieldProblem((name,), says, warning=True)
    usage = _extension(path[-1], x509.KeyUsage)
    if len(path) > 1 or (usage and not usage.crl_sign):
        says = "it can sign no revocation lists here: what is revoked is refused at renewal, and trusted until it ends"
        yield FieldProblem((ROOT,), says, warning=True)


def _extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    found = _critical(certificate, kind)
    return found[0] if found else None


def _critical(certificate: x509.Certificate, kind: type[Extension]) -> tuple[Extension, bool] | None:
    try:
        found = certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None
    return found.value, found.critical


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "a certificate without a subject"


def _is_spiffe(uri: str) -> bool:
    return uri.lower().startswith("spiffe:")
