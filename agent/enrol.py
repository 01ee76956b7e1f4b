"""The process that makes a key and has it certified: `python -m agent.enrol`, one run for each certificate.

A process of its own, because it needs `cryptography` for a moment, and the agent would keep its memory for good
(docs/adr/0060). It reads one JSON object from standard input and writes one to standard output: `{"material": ...}` or
`{"error": ...}`. The key is on that pipe and nowhere else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from agent.svid_json import material_from_json, material_to_json
from mesh.errors import HeddleError
from mesh.identity import parse_identity
from svid.client import CaAddress, Refused
from svid.keeper import enrolment
from svid.material import PodRef


def enrol(order: dict[str, Any]) -> dict[str, Any]:
    """Carry out `order` (see `agent.identity.Orders`)."""
    obtain = enrolment(
        CaAddress(order["ca"]["host"], order["ca"]["port"], parse_identity(order["ca"]["identity"])),
        roots=Path(order["rootCertFile"]).read_text,
        token_file=order["tokenFile"],
        pod=PodRef(*order["pod"]),
        ttl_seconds=order["ttlSeconds"],
        key_kind=order["keyKind"],
    )
    current = order["current"]
    try:
        material = obtain(material_from_json(current) if current else None)
    except HeddleError as error:
        told = error.retry_after if isinstance(error, Refused) else 0.0
        return {"error": {**error.as_json(), "status": error.status, "retryAfter": told}}
    return {"material": material_to_json(material)}


if __name__ == "__main__":
    json.dump(enrol(json.load(sys.stdin)), sys.stdout)
