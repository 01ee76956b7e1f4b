"""An SVID as JSON: between the agent and the process that fetches it, and in the agent's memory-backed store."""

from __future__ import annotations

from typing import Any

from mesh.identity import parse_identity
from svid.material import SvidMaterial, bundle_from_json, bundle_to_json


def material_to_json(material: SvidMaterial) -> dict[str, Any]:
    """Holds the private key: for a pipe or a file in memory, never for a log."""
    return {
        "identity": str(material.identity),
        "serial": material.serial,
        "notBefore": material.not_before,
        "notAfter": material.not_after,
        "key": material.key_pem.decode(),
        "chain": material.chain_pem.decode(),
        "root": material.root,
        "bundle": bundle_to_json(material.bundle),
    }


def material_from_json(raw: dict[str, Any]) -> SvidMaterial:
    """The inverse of `material_to_json`; KeyError, TypeError or InvalidInput when it is something else."""
    return SvidMaterial(
        identity=parse_identity(raw["identity"]),
        serial=raw["serial"],
        not_before=float(raw["notBefore"]),
        not_after=float(raw["notAfter"]),
        key_pem=raw["key"].encode(),
        chain_pem=raw["chain"].encode(),
        bundle=bundle_from_json(raw["bundle"]),
        root=raw.get("root", ""),  # not kept by an older agent
    )
