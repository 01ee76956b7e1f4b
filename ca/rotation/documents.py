"""A rotation's state and the roots, as documents of the ca's store: each step is one set of documents.

    root.pem           the root that signs now: its key, encrypted, and its certificate
    root-standby.pem   the other one, from the start of a rotation until its key is destroyed
    bundle.json        what everyone trusts
    rotation.json      where the rotation stands
Since all of them change in one write, a ca that dies between two steps leaves a state that the next one goes on from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from ca.root_document import root_of
from ca.rotation.state import Phase, Rotation, rotation_from, rotation_json
from ca.store import Documents
from ca.trust import Trust, certificate_of
from mesh.errors import MissingPrerequisite
from svid.material import TrustBundle
from svid.trust import NO_ORDER, Order

STANDBY, ROTATION = "root-standby.pem", "rotation.json"


@dataclass(frozen=True, slots=True)
class RootFacts:
    """A root as people know it. `serial` as in the ledger; times are Unix seconds."""

    fingerprint: str
    serial: str
    not_before: int
    not_after: int
    certificate: str


def root_facts(pem: str, where: str = "the bundle") -> RootFacts:
    """The facts of the certificate in `pem`, beside which there may be a key."""
    certificate = certificate_of(pem, where)
    return RootFacts(
        fingerprint=fingerprint(certificate),
        serial=f"{certificate.serial_number:x}",
        not_before=int(certificate.not_valid_before_utc.timestamp()),
        not_after=int(certificate.not_valid_after_utc.timestamp()),
        certificate=root_of(pem),
    )


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate, hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def rotation_of(trust: Trust) -> Rotation:
    """The state that is stored; without one, nothing has ever been rotated. MissingPrerequisite when it is damaged."""
    text = trust.others.get(ROTATION)
    if text is None:
        return Rotation(sequence=trust.bundle.sequence, stays=root_facts(trust.root_pem).fingerprint)
    try:
        state = rotation_from(json.loads(text))
    except (KeyError, TypeError, ValueError) as error:
        raise MissingPrerequisite(f"{ROTATION} beside the root cannot be read: {error}") from None
    if state.phase is Phase.IDLE:  # whoever replaced root or bundle meanwhile did not know of this document
        return replace(state, sequence=trust.bundle.sequence, stays=root_facts(trust.root_pem).fingerprint)
    return state


def order_of(trust: Trust) -> Order:
    """What everyone is told to renew."""
    try:
        return rotation_of(trust).order
    except MissingPrerequisite:
        return NO_ORDER


def with_new_root(trust: Trust, root_pem: str) -> Trust:
    """`trust` with `root_pem` (key and certificate) on standby."""
    return replace(trust, others={**trust.others, STANDBY: root_pem})


def documents_of(trust: Trust, state: Rotation) -> Documents:
    """`trust` as `state` wants it. `trust` is as it was stored before, with both keys while a rotation runs."""
    pems = {root_facts(pem).fingerprint: pem for pem in (trust.root_pem, trust.others.get(STANDBY, "")) if pem}
    kept = {name: text for name, text in trust.others.items() if name not in (STANDBY, ROTATION)}
    standby = [pem for root, pem in pems.items() if state.running and root != state.signs]
    bundle = trust.bundle
    if state.sequence != bundle.sequence:
        roots = tuple(root_facts(pems[root]).certificate for root in state.trusted)
        bundle = TrustBundle(bundle.trust_domain, state.sequence, roots)
    others = {**kept, **({STANDBY: standby[0]} if standby else {}), ROTATION: rotation_json(state)}
    return replace(trust, root_pem=pems[state.signs], bundle=bundle, others=others).documents()
