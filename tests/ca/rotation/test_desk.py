"""What operators ask for, where it is stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ca.authority import Authority
from ca.rotation.decide import Member
from ca.rotation.desk import Desk, RootKeys, Wish
from ca.rotation.documents import ROTATION, STANDBY, root_facts
from ca.rotation.state import Phase
from ca.settings import CaSettings
from ca.store import DirectoryStore
from ca.trust import new_trust
from mesh.errors import Conflict, MissingPrerequisite
from svid.material import TrustBundle

NOW = 1_800_000_000
SETTINGS = CaSettings()


def passphrase() -> bytes:
    return b"correct horse battery staple"


def new_root() -> str:
    return new_trust(passphrase(), SETTINGS, NOW).root_pem


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


def desk(store: DirectoryStore, forgotten: list[str] | None = None) -> tuple[Desk, Authority]:
    """`forgotten` is told the documents whose keys are destroyed."""
    forgotten = [] if forgotten is None else forgotten
    authority = Authority(store, passphrase, SETTINGS, lambda: NOW)
    return Desk(authority, store, RootKeys(new_root, forgotten.append), 60.0, lambda: NOW), authority


def test_from_start_to_end_the_documents_follow_the_phases(store: DirectoryStore) -> None:
    forgotten: list[str] = []
    made, authority = desk(store, forgotten)
    old, old_root = authority.signs, authority.trust.root_pem
    trust, state = made.carry_out(Wish("start"), 1)
    new = state.stays
    assert (authority.signs, len(trust.bundle.roots), trust.bundle.sequence) == (old, 2, 2)
    for phase in (Phase.SIGN, Phase.RENEW, Phase.DRAIN, Phase.RETIRE, Phase.DESTROY, Phase.IDLE):
        assert STANDBY in made.current()[0].others
        assert forgotten == []
        members = (Member("ca", made.current()[1].sequence, 10, new, ca=True, signs=authority.signs),)
        assert made.step(lambda _state, members=members: members).phase is phase  # type: ignore[misc]
    trust, state = made.current()
    assert STANDBY not in trust.others
    assert forgotten == [old_root]
    assert [root_facts(root).fingerprint for root in trust.bundle.roots] == [new] == [authority.signs]
    assert trust.bundle.sequence == 3


def test_of_two_that_ask_at_once_one_starts(store: DirectoryStore) -> None:
    one, two = desk(store)[0], desk(store)[0]
    one.carry_out(Wish("start"), 1)
    with pytest.raises(Conflict, match="running"):
        two.carry_out(Wish("start"), 1)
    assert two.carry_out(Wish("pause"), 1)[1].paused
    assert one.carry_out(Wish("resume"), 1)[1].paused is False


def test_roots_that_were_put_there_by_hand_are_not_dropped(store: DirectoryStore) -> None:
    made, authority = desk(store)
    stored = store.read()
    assert stored is not None
    roots = (*authority.trust.bundle.roots, new_trust(passphrase(), SETTINGS, NOW).bundle.roots[0])
    both = replace(authority.trust, bundle=TrustBundle("cluster.local", 2, roots))
    store.replace(both.documents(), stored.version)
    for ask in (made.carry_out, made.tried):
        with pytest.raises(Conflict, match="further roots"):
            ask(Wish("start"), 1)


def test_a_damaged_state_is_one_clear_error(store: DirectoryStore) -> None:
    made, authority = desk(store)
    stored = store.read()
    assert stored is not None
    store.replace({**stored.documents, ROTATION: "{}"}, stored.version)
    with pytest.raises(MissingPrerequisite, match=r"rotation\.json"):
        made.current()
    assert authority.issuer(60)  # certificates are issued all the same
