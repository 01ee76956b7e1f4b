"""Serial numbers of leaves. Half of one is random, the other half says which pod it was issued to. Pure.

So every replica can tell whose certificate it is shown, without asking anybody or remembering anything: also after a
restart, and while the API server is away (docs/adr/0226).
"""

from __future__ import annotations

import hashlib
import hmac

RANDOM_BYTES, SEAL_BYTES = 10, 10  # together 20 octets, the most that a serial may have (RFC 5280 4.1.2.2)


def leaf_serial(pod_uid: str, random: bytes) -> int:
    """The serial of a certificate for the pod of this uid ("": for none) from `random`, RANDOM_BYTES bytes.

    It is positive and always 20 octets: of `random` 78 bits count.
    """
    head = bytes((random[0] & 0x7F | 0x40,)) + random[1:RANDOM_BYTES]
    return int.from_bytes(head + _seal(head, pod_uid), "big")


def is_of_pod(serial: int, pod_uid: str) -> bool:
    """Whether `leaf_serial` made this serial for that pod. False for serials that something else has made."""
    if serial < 0 or serial.bit_length() > 8 * (RANDOM_BYTES + SEAL_BYTES):
        return False
    octets = serial.to_bytes(RANDOM_BYTES + SEAL_BYTES, "big")
    head, seal = octets[:RANDOM_BYTES], octets[RANDOM_BYTES:]
    return hmac.compare_digest(seal, _seal(head, pod_uid))


def _seal(head: bytes, pod_uid: str) -> bytes:
    # No key: the ca's signature over the certificate keeps the serial as it is, and nobody chooses a pod's uid, so
    # that another pod's would have to fit by chance (one in 2**80).
    return hashlib.sha256(head + pod_uid.encode()).digest()[:SEAL_BYTES]
