"""A trial of an imported root: a certificate under it is shown and checked, in a handshake as between two agents."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ca.issue import pem
from ca.policy import Grant
from ca.profile import intermediate_certificate
from ca.request import SignableKey
from ca.root_import import ROOT, ImportedRoot
from ca.settings import CA, HOUR
from ca.sign import issuer_of, prepare, sign
from ca.trust import new_serial
from mesh.errors import InvalidInput
from mesh.identity import CONTROL_NAMESPACE, Identity
from svid.material import SvidMaterial, TrustBundle
from svid.tls import client_context, server_context

_PEM = serialization.Encoding.PEM


def try_out(imported: ImportedRoot, trust_domain: str, now: float) -> None:
    """InvalidInput when a peer that trusts the root refuses a certificate under it. `now`: by the clock, as in TLS."""
    material = _material(imported, trust_domain, int(now))
    client = _Side(lambda i, o: client_context(material.bundle.pem, material).wrap_bio(i, o, server_side=False))
    server = _Side(lambda i, o: server_context(material).wrap_bio(i, o, server_side=True))
    try:
        for _ in range(4):
            server.incoming.write(client.go_on())
            client.incoming.write(server.go_on())
    except ssl.SSLError as error:
        raise InvalidInput(
            f"a certificate under it was tried, and a peer refuses it: {error.verify_message}"
            if isinstance(error, ssl.SSLCertVerificationError)
            else f"a certificate under it was tried, and the handshake failed: {error.reason}",
            field=ROOT,
        ) from None


class _Side:
    """One end of a connection through memory."""

    def __init__(self, wrap: Callable[[ssl.MemoryBIO, ssl.MemoryBIO], ssl.SSLObject]) -> None:
        self.incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = wrap(self.incoming, self._outgoing)
        self._shaken = False

    def go_on(self) -> bytes:
        """What it sends after what has come in. Raises SSLError when it refuses the other."""
        try:
            if not self._shaken:
                self._tls.do_handshake()
                self._shaken = True
            self._tls.read(1)  # in TLS 1.3 a client learns of the refusal of its certificate here
        except ssl.SSLWantReadError:
            pass
        return self._outgoing.read()


def _material(imported: ImportedRoot, trust_domain: str, now: int) -> SvidMaterial:
    issuing, key = (imported.chain[0] if imported.chain else imported.root), imported.key
    chain = list(imported.chain)
    if not imported.chain:
        own = ec.generate_private_key(ec.SECP256R1())
        issuing = intermediate_certificate(
            own.public_key(), imported.root, key, trust_domain, new_serial(), now - HOUR, now + HOUR
        )
        key, chain = own, [issuing]
    identity = Identity(trust_domain, CONTROL_NAMESPACE, CA)
    leaf_key = ec.generate_private_key(ec.SECP256R1())
    spki = leaf_key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    issuer = issuer_of(issuing)
    prepared = prepare(
        issuer, Grant(identity, (), max(now - 60, issuer.not_before), now + HOUR), SignableKey(spki, ""), new_serial()
    )
    chain_pem = pem(sign(key, prepared)) + "".join(each.public_bytes(_PEM).decode() for each in chain)
    root_pem = imported.root.public_bytes(_PEM).decode()
    return SvidMaterial(
        identity=identity,
        serial=f"{prepared.serial:x}",
        not_before=now - 60,
        not_after=now + HOUR,
        key_pem=leaf_key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        chain_pem=chain_pem.encode(),
        bundle=TrustBundle(trust_domain, 1, (root_pem,)),
    )
