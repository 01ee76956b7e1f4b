"""Keys whose private half is no secret, because a standard prints it or because anybody counts up to it. Pure.

Examples are copied: a program that was tried out with one may keep it. Small scalars are what a generator makes that
has no randomness. CA/Browser Forum Baseline Requirements 6.1.1.3 (4): keys that are known to be compromised.
"""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec

# SHA-256 of the SubjectPublicKeyInfo, as in the ledger.
PRINTED = {
    "5a7a78cca4a0f420d9bc62bb669c3c2759e39f723d3ae10dcbe0f0815a07ecd4": "RFC 6979 A.2.5",
    "2f95601fa82060b909bfc6b979dbd303d34d34e0afb27ea496beac362f242a4b": "RFC 6979 A.2.6",
    "6fd13c2435a361e7c588cd17f55f5ad3df0177a66c1727a6a200845f4d7ab88c": "RFC 7515 A.2",
    "2bd1bb0c44a897c30a7aa0991cde38d8062fe441de50da0f46825344f602e827": "RFC 7515 A.3",
    "51b944cdfa544d4c3273aa6bf350625a7dd53bbb6a71723274f538b19a207760": "RFC 7517 A.2",
    "ad32320cf6c596d884b05381ba573aba8ddd5749b4de8f4a23a79f9a89ddaeb2": "RFC 7517 A.2",
}
SMALLEST = 64  # scalars below that, and what is as far from the group's order: they have the same x


def whose(fingerprint: str, key: object) -> str:
    """Where everybody has the private half of this key from; "" if nowhere that is known here."""
    if fingerprint in PRINTED:
        return f"its private half is printed in {PRINTED[fingerprint]}"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.public_numbers().x in _small(key.curve.name):
        return "its private half is a small number"
    return ""


@cache
def _small(curve: str) -> frozenset[int]:
    made = {"secp256r1": ec.SECP256R1, "secp384r1": ec.SECP384R1}[curve]()
    keys = (ec.derive_private_key(scalar, made) for scalar in range(1, SMALLEST))
    return frozenset(key.public_key().public_numbers().x for key in keys)
