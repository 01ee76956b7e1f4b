"""The certificate revocation list of a root. Pure.

Leaves are signed by intermediates that live in the memory of one replica each, so that nobody could sign a list of a
replica's that has ended. But an intermediate has the name of its root (ca/profile.py): leaves name the root as their
issuer, and the list that the root's own key signs is complete for all of them, the intermediates included
(docs/adr/0231). RFC 5280 section 6.3.3 wants just that: the issuer's name, and a path to the same trust anchor.
Sources: RFC 5280 sections 5 and 6.3.3.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ca.revocation import Revocations
from ca.root_document import Signer
from ca.signature import IssuerKey, scheme_of

BACKDATE = 3600  # seconds: a peer whose clock is behind refuses everybody by a list that is not valid yet


def may_list(signer: Signer) -> bool:
    """Whether peers accept lists of this root: its own key is here, and its certificate says that it signs them."""
    usage = signer.root.extensions.get_extension_for_class(x509.KeyUsage).value
    return not signer.chain and usage.crl_sign


def revocation_list(root: x509.Certificate, key: IssuerKey, revocations: Revocations) -> str:
    """The list (PEM) of `root`, whose key is `key`.

    It is valid until the root ends: a list that runs out would make every proxy refuse every peer, and who must not
    miss a newer one is told, not left to the date.
    """
    identifier = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(root.subject)
        .last_update(datetime.fromtimestamp(revocations.updated - BACKDATE, UTC))
        .next_update(root.not_valid_after_utc)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .add_extension(x509.CRLNumber(revocations.number), critical=False)
    )
    for serial, entry in revocations.serials():
        one = (
            x509.RevokedCertificateBuilder()
            .serial_number(int(serial, 16))
            .revocation_date(datetime.fromtimestamp(entry.at, UTC))
        )
        if entry.reason != "unspecified":  # RFC 5280 5.3.1: then the extension is left out
            one = one.add_extension(x509.CRLReason(x509.ReasonFlags(entry.reason)), critical=False)
        builder = builder.add_revoked_certificate(one.build())
    return builder.sign(key, scheme_of(key.public_key()).digest).public_bytes(serialization.Encoding.PEM).decode()
