"""The kinds of key that a workload's certificate may have, and how Istio's words ask for one.

They are those that Envoy both serves and verifies: it serves Ed25519 and P-521 too, but as a peer it refuses them, so
that two proxies could not speak (docs/adr/0220).
Source of the words: Istio's agent (ECC_SIGNATURE_ALGORITHM, ECC_CURVE, WORKLOAD_RSA_KEY_SIZE), which are set in
`proxyMetadata`. Istio's default is RSA-2048; Heddle's is P-256, which signs at a fourteenth of the cost.
"""

from __future__ import annotations

from mesh.errors import InvalidInput

DEFAULT_KEY = "P-256"
CURVES = {"P256": "P-256", "P384": "P-384"}  # by Istio's name
RSA_SIZES = (2048, 3072, 4096)  # bits; above, verifying costs every peer at every handshake
KEY_KINDS = (*CURVES.values(), *(f"RSA-{bits}" for bits in RSA_SIZES))
WAY_OUT = "use P-256, P-384, or RSA of 2048, 3072 or 4096 bits"


def key_kind(ecc_signature_algorithm: str, ecc_curve: str, workload_rsa_key_size: str) -> str:
    """The kind that these settings ask for, each "" where it is not set; InvalidInput names the one that is wrong.

    As in Istio, ECDSA goes before an RSA size, and a curve alone does not go before it.
    """
    if ecc_signature_algorithm not in ("", "ECDSA"):
        raise InvalidInput(
            f"{ecc_signature_algorithm!r} is not an algorithm that Envoy can use",
            field="ECC_SIGNATURE_ALGORITHM",
            hint="set ECDSA, or WORKLOAD_RSA_KEY_SIZE for RSA",
        )
    if ecc_curve and ecc_curve not in CURVES:
        raise InvalidInput(f"{ecc_curve!r} is not a curve that Envoy can use", field="ECC_CURVE", hint="P256 or P384")
    if workload_rsa_key_size and not ecc_signature_algorithm:
        if workload_rsa_key_size not in map(str, RSA_SIZES):
            raise InvalidInput(
                f"an RSA key of {workload_rsa_key_size!r} bits is not accepted",
                field="WORKLOAD_RSA_KEY_SIZE",
                hint=f"set one of {', '.join(map(str, RSA_SIZES))}",
            )
        return f"RSA-{workload_rsa_key_size}"
    return CURVES[ecc_curve] if ecc_curve else DEFAULT_KEY
