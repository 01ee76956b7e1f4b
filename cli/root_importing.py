"""What an import would do, by what is there: pure; and how it is done."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

from ca.root_document import document_of, root_of, signer_of
from ca.root_import import ImportedRoot
from ca.rotation.documents import fingerprint, root_facts, rotation_of
from ca.rotation.shelf import put_on_shelf, with_other_signer
from ca.store import Documents, Store
from ca.trust import BUNDLE, Trust, trust_from
from mesh.errors import Conflict
from mesh.identity import DEFAULT_TRUST_DOMAIN
from svid.material import TrustBundle


class Step(StrEnum):
    """What there is to do."""

    nothing = "nothing"  # it signs already
    create = "create"  # it becomes the first root
    resign = "resign"  # the same root, with another intermediate
    rotate = "rotate"  # the mesh has another root, and is rotated to this one
    follow = "follow"  # just that is under way


@dataclass(frozen=True, slots=True)
class Plan:
    """The step, and in words what it means."""

    step: Step
    says: str


def plan(imported: ImportedRoot, trust: Trust | None, passphrase: bytes | None) -> Plan:
    """What to do with `imported`; `trust` is what is stored now. Conflict while another rotation runs."""
    new = fingerprint(imported.root)
    if trust is None:
        return Plan(Step.create, "nothing is there yet: it becomes the first root of the trust domain")
    state = rotation_of(trust)
    active = root_facts(root_of(trust.root_pem)).fingerprint
    if state.running and new == state.stays:
        return Plan(Step.follow, f"the rotation to it is under way, in phase {state.phase}")
    if state.running:
        raise Conflict(
            f"a rotation to another root is under way, in phase {state.phase}",
            hint="import after its end; `heddle rotate status` says where it stands",
        )
    if new != active:
        return Plan(Step.rotate, f"the mesh is rotated to it from root {active[:16]}, step by step")
    assert passphrase is not None
    if signer_of(trust.root_pem, passphrase, "the store").chain == imported.chain:
        return Plan(Step.nothing, "it signs already: there is nothing to do")
    signing = "another intermediate of it signs" if imported.offline else "it signs with its own key"
    return Plan(Step.resign, f"the root is trusted already: from now on, {signing}")


def stored_trust(store: Store, trust_domain: str) -> Trust | None:
    """What is stored now, of `trust_domain` or, where that is "", of whichever it is; None for nothing."""
    stored = store.read()
    if stored is None:
        return None
    return trust_from(stored, store.name, trust_domain or _domain_in(stored.documents))


def carry_out(
    step: Step, imported: ImportedRoot, trust: Trust | None, store: Store, passphrase: bytes, trust_domain: str
) -> None:
    """Write it where the ca reads it. Conflict when somebody else was faster."""
    document = document_of(imported, passphrase)
    if trust is None:
        first = Trust(document, TrustBundle(trust_domain, 1, (root_of(document),))).documents()
        if store.create(first).documents != first:
            raise Conflict(f"{store.name} has been made by somebody else meanwhile", hint="try again")
        return
    changed = put_on_shelf(trust, document) if step is Step.rotate else with_other_signer(trust, document)
    store.replace(changed.documents(), trust.version)


def _domain_in(documents: Documents) -> str:
    try:
        return str(json.loads(documents[BUNDLE])["trustDomain"])
    except (KeyError, TypeError, ValueError):
        return DEFAULT_TRUST_DOMAIN  # what is wrong with it is said by who reads all of it
