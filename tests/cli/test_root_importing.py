"""What an import does, by what is there; with the real store and the ca's own authority behind it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ca.authority import Authority
from ca.root_import import ImportedRoot, check_import
from ca.rotation.documents import documents_of, fingerprint, root_facts, with_new_root
from ca.rotation.shelf import SHELF, from_shelf
from ca.rotation.state import Phase, Rotation
from ca.settings import CaSettings
from ca.store import DirectoryStore
from cli.root_importing import Step, carry_out, plan, stored_trust
from mesh.errors import Conflict, NotFound
from tests.ca.authorities import Made, cacerts, make

LATER = datetime.now(UTC) + timedelta(days=3650)
PASSPHRASE = b"correct horse battery staple"


def offline(root: Made, name: str = "between") -> ImportedRoot:
    files = cacerts(make(name, root, path_length=0, ends=LATER), root)
    return check_import(files, None, "mesh.example", time.time(), 0)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "state")


def bring(store: DirectoryStore, imported: ImportedRoot) -> Step:
    trust = stored_trust(store, "")
    step = plan(imported, trust, PASSPHRASE).step
    if step not in (Step.nothing, Step.follow):
        carry_out(step, imported, trust, store, PASSPHRASE, "mesh.example")
    return step


def authority(store: DirectoryStore) -> Authority:
    return Authority(store, lambda: PASSPHRASE, CaSettings(trust_domain="mesh.example"), time.time)


def test_the_first_root_is_what_the_ca_begins_with(store: DirectoryStore) -> None:
    root = make("own", ends=LATER)
    imported = offline(root)
    assert bring(store, imported) is Step.create
    begun = authority(store)
    assert begun.bundle.roots == (root.pem.decode(),)
    assert begun.issuer(3600).issuer.certificate == imported.chain[0]
    assert bring(store, imported) is Step.nothing


def test_another_intermediate_of_the_root_signs_at_once(store: DirectoryStore) -> None:
    root = make("own", ends=LATER)
    bring(store, offline(root))
    running = authority(store)
    second = offline(root, "the next")
    assert bring(store, second) is Step.resign
    before = running.bundle
    running.refresh()
    assert running.bundle == before
    assert running.issuer(3600).issuer.certificate == second.chain[0]


def test_another_root_waits_on_the_shelf_for_its_rotation(store: DirectoryStore) -> None:
    bring(store, offline(make("own", ends=LATER)))
    other = offline(make("other", ends=LATER))
    assert bring(store, other) is Step.rotate
    trust = stored_trust(store, "mesh.example")
    assert trust is not None
    assert len(trust.bundle.roots) == 1
    taken, document = from_shelf(trust, fingerprint(other.root))
    assert SHELF not in taken.others
    assert "ENCRYPTED PRIVATE KEY" in document
    with pytest.raises(NotFound, match="import-root"):
        from_shelf(trust, "ab" * 32)
    assert bring(store, other) is Step.rotate


def test_during_a_rotation(store: DirectoryStore) -> None:
    bring(store, offline(make("own", ends=LATER)))
    other = offline(make("other", ends=LATER))
    bring(store, other)
    trust = stored_trust(store, "")
    assert trust is not None
    taken, document = from_shelf(trust, fingerprint(other.root))
    old = fingerprint_of_first(store)
    state = Rotation(phase=Phase.DISTRIBUTE, sequence=2, stays=fingerprint(other.root), leaves=old)
    store.replace(documents_of(with_new_root(taken, document), state), trust.version)
    assert bring(store, other) is Step.follow
    with pytest.raises(Conflict, match="another root is under way"):
        bring(store, offline(make("third", ends=LATER)))


def fingerprint_of_first(store: DirectoryStore) -> str:
    trust = stored_trust(store, "")
    assert trust is not None
    return root_facts(trust.bundle.roots[0]).fingerprint
