"""What the trust domain's state says: the root that signs (its key encrypted) and the bundle that everyone trusts.

Documents, wherever they are kept (`ca.store`):
    root.pem      the encrypted root key (PKCS #8) and the root certificate
    bundle.json   {"trustDomain", "sequence", "roots"}
and, once the root has been rotated, those of `ca.rotation`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ca import pkcs11
from ca.profile import root_certificate
from ca.settings import CaSettings
from ca.store import Documents, Store, Stored
from mesh.errors import HeddleError, InvalidInput, MissingPrerequisite
from svid.material import TrustBundle, bundle_from_json, bundle_to_json

ROOT, BUNDLE = "root.pem", "bundle.json"

_PEM = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True)
class Trust:
    """The state, and the version under which it is stored. The key is encrypted, and left out of `repr` even so."""

    root_pem: str = field(repr=False)
    bundle: TrustBundle
    version: str = ""
    others: Documents = field(default_factory=dict, repr=False)  # what is kept beside these two

    def documents(self) -> Documents:
        return {**self.others, ROOT: self.root_pem, BUNDLE: json.dumps(bundle_json(self.bundle), indent=1) + "\n"}


def open_trust(store: Store, read_passphrase: Callable[[], bytes], settings: CaSettings, now: float) -> Trust:
    """The state in `store`, made where there is none.

    Raises MissingPrerequisite when it cannot be used, InvalidInput when it is another trust domain's.
    """
    stored = store.read()
    if stored is None:
        made = new_trust(read_passphrase(), settings, int(now))
        stored = store.create(made.documents())
        if stored.documents.get(ROOT) != made.root_pem:
            forget_key(made.root_pem, read_passphrase)  # another replica was first
    return trust_from(stored, store.name, settings.trust_domain)


def trust_elsewhere(store: Store, roots_pem: str, trust_domain: str) -> Trust:
    """The state of a trust domain whose roots' keys are elsewhere: the certificates alone.

    Where `roots_pem` are others than those stored, they take their place, as a later bundle.
    """
    try:
        certificates = x509.load_pem_x509_certificates(roots_pem.encode())
    except ValueError as error:
        raise InvalidInput(f"there is no root certificate: {error}", field="rootsFile") from None
    roots = tuple(each.public_bytes(_PEM).decode() for each in certificates)
    stored = store.read() or store.create(Trust(roots[0], TrustBundle(trust_domain, 1, roots)).documents())
    trust = trust_from(stored, store.name, trust_domain)
    if roots_with_keys(trust):
        raise MissingPrerequisite(
            f"{store.name} holds a root with its key", hint="name another place for a root whose key is elsewhere"
        )
    if set(trust.bundle.roots) != set(roots):
        later = replace(trust.bundle, sequence=trust.bundle.sequence + 1, roots=roots)
        changed = replace(trust, root_pem=roots[0], bundle=later)
        trust = trust_from(store.replace(changed.documents(), stored.version), store.name, trust_domain)
    return trust


def trust_from(stored: Stored, where: str, trust_domain: str) -> Trust:
    """The state in these documents; `where` is their place, for the message of an error."""
    missing = [name for name in (ROOT, BUNDLE) if name not in stored.documents]
    if missing:
        has = ", ".join(sorted(stored.documents)) or "nothing"
        raise MissingPrerequisite(
            f"{where} has no {' and no '.join(missing)}, only {has}",
            hint="it is not a root that Heddle made: name another place for it, or remove it for a new root",
        )
    root_pem = stored.documents[ROOT]
    certificate_of(root_pem, where)
    try:
        bundle = bundle_from_json(json.loads(stored.documents[BUNDLE]))
    except (ValueError, HeddleError) as error:
        raise MissingPrerequisite(f"{BUNDLE} in {where} cannot be read: {error}") from None
    if bundle.trust_domain != trust_domain:
        raise InvalidInput(
            f"{where} holds the root of trust domain {bundle.trust_domain}, not {trust_domain}",
            field="trustDomain",
            hint="a trust domain keeps its name; start a new one in an empty place",
        )
    others = {name: text for name, text in stored.documents.items() if name not in (ROOT, BUNDLE)}
    return Trust(root_pem, bundle, stored.version, others)


def roots_with_keys(trust: Trust) -> list[str]:
    """The documents that hold a root and its key: that of the root that signs, and that of one on standby."""
    return [
        text
        for text in (trust.root_pem, *trust.others.values())
        if "PRIVATE KEY-----" in text or text.startswith(pkcs11.SCHEME)
    ]


def new_trust(passphrase: bytes, settings: CaSettings, now: int) -> Trust:
    """A new root, and the first bundle: it alone."""
    serial = new_serial()
    if settings.root_token:
        key, kept = pkcs11.new_key(settings.root_token, passphrase, f"heddle-root-{serial:x}")
        kept += "\n"
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        encryption = serialization.BestAvailableEncryption(passphrase)
        kept = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, encryption).decode()
    certificate = root_certificate(key, settings.trust_domain, serial, now - settings.backdate, now + settings.root_ttl)
    root = certificate.public_bytes(_PEM).decode()
    return Trust(kept + root, TrustBundle(settings.trust_domain, 1, (root,)))


def forget_key(root_pem: str, read_passphrase: Callable[[], bytes]) -> None:
    """Destroy the key of a root that nobody will use, where leaving its document behind does not: in a token."""
    if root_pem.startswith(pkcs11.SCHEME):
        pkcs11.destroy(root_pem.partition("\n")[0], read_passphrase())


def certificate_of(root_pem: str, where: str) -> x509.Certificate:
    """The certificate in `root.pem`."""
    try:
        return x509.load_pem_x509_certificate(root_pem.encode())
    except ValueError as error:
        raise MissingPrerequisite(f"the root certificate ({ROOT}) in {where} cannot be read: {error}") from None


def bundle_json(bundle: TrustBundle) -> dict[str, object]:
    """The trust bundle as it goes over the wire and, without revocation lists, into bundle.json."""
    return bundle_to_json(bundle)


def new_serial() -> int:
    """128 random bits, the highest set so that the number is never short (127 bits of entropy)."""
    return secrets.randbits(127) | 1 << 127
