"""A root that an operator has put beside the state, for the next rotation to take (docs/adr/0211). Pure.

It comes there by a write to the store, not over HTTP: whoever imports it may write where the roots are kept anyway.
"""

from __future__ import annotations

from dataclasses import replace

from ca.root_document import root_of
from ca.rotation.documents import root_facts
from ca.trust import Trust
from mesh.errors import Conflict, NotFound

SHELF = "root-imported.pem"


def put_on_shelf(trust: Trust, document: str) -> Trust:
    """`trust` with the root of `document` on the shelf, in the place of one that is there.

    Conflict when it is the root that signs now, or is trusted already.
    """
    fingerprint = root_facts(document).fingerprint
    if fingerprint in {root_facts(root).fingerprint for root in trust.bundle.roots}:
        raise Conflict(
            f"root {fingerprint[:16]} is trusted already", field="root", hint="there is nothing to rotate to"
        )
    return replace(trust, others={**trust.others, SHELF: document})


def with_other_signer(trust: Trust, document: str) -> Trust:
    """`trust` with another intermediate of the root that signs now: everyone goes on trusting what they trust."""
    return replace(trust, root_pem=document)


def from_shelf(trust: Trust, fingerprint: str) -> tuple[Trust, str]:
    """`trust` without the root on the shelf, and that root's document; NotFound unless it has this fingerprint."""
    document = trust.others.get(SHELF, "")
    if not document or root_facts(root_of(document)).fingerprint != fingerprint:
        raise NotFound(
            f"no root {fingerprint[:16]} has been put there to rotate to",
            field="root",
            hint="put it there with scripts/import-root",
        )
    return replace(trust, others={name: text for name, text in trust.others.items() if name != SHELF}), document
