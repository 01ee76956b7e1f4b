"""What a document of a root holds (`ca.store`), with the key of the root or, for one that is kept offline, without it.

    of its own      the root's key, encrypted (PKCS #8), and its certificate
    in a token      the PKCS #11 URI of the root's key (`ca.pkcs11`), and its certificate
    imported        the root's certificate; the key of what signs, encrypted; and, where that is not the root itself,
                    the certificates from the one that signs up to just below the root
The first certificate is the root's in both, so that whoever asks for it alone needs to know of neither.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ca import pkcs11
from ca.root_import import ImportedRoot
from ca.signature import IssuerKey
from ca.trust import certificate_of
from mesh.errors import MissingPrerequisite

_PEM = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True)
class Signer:
    """What signs in the name of `root`: the root's own key, or that of the first certificate in `chain`."""

    root: x509.Certificate
    key: IssuerKey = field(repr=False)
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def chain_pem(self) -> str:
        """What a peer needs between a leaf and the root."""
        return "".join(certificate.public_bytes(_PEM).decode() for certificate in self.chain)


def document_of(imported: ImportedRoot, passphrase: bytes) -> str:
    """The document of an imported root."""
    key = imported.key.private_bytes(
        _PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(passphrase)
    )
    chain = b"".join(certificate.public_bytes(_PEM) for certificate in imported.chain)
    return (imported.root.public_bytes(_PEM) + key + chain).decode()


def signer_of(document: str, passphrase: bytes, where: str) -> Signer:
    """What signs by this document. MissingPrerequisite when it cannot be opened, or does not belong together."""
    root = certificate_of(document, where)
    try:
        key: object
        if document.startswith(pkcs11.SCHEME):
            key = pkcs11.key_at(document.partition("\n")[0], passphrase)
        else:
            key = serialization.load_pem_private_key(document.encode(), passphrase)
    except (ValueError, TypeError) as error:
        raise MissingPrerequisite(
            f"the root key in {where} cannot be opened: {error}",
            field="rootPassphraseFile",
            hint="is it the passphrase that this root was made with?",
        ) from None
    if isinstance(key, IssuerKey):
        if key.public_key() == root.public_key():
            return Signer(root, key)
        chain = tuple(x509.load_pem_x509_certificates(document.encode())[1:])
        if chain and key.public_key() == chain[0].public_key():
            return Signer(root, key, chain)
    raise MissingPrerequisite(f"the key in {where} is not that of the certificate beside it")


def root_of(document: str) -> str:
    """The root's certificate alone (PEM), as it goes into bundles: never the key beside it."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----\n"
    start = document.index(begin)
    return document[start : document.index(end, start) + len(end)]
