"""A real ca that is killed in each phase: the next one goes on where it was, and all that was handed out stays good."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest

from ca.authority import Authority
from ca.passphrase import passphrase_from
from ca.rotation.documents import STANDBY, root_facts, rotation_of
from ca.rotation.state import Phase, Rotation
from ca.settings import CaSettings
from ca.store import DirectoryStore
from ca.trust import Trust, trust_from
from svid.material import SvidMaterial
from tests.ca.harness import ISSUER, ApiServer, TokenMint
from tests.ca.rotation.operated import Operated
from tests.support.waiting import wait_for

KEYS = ("--token-issuer-keys", "api", "--token-issuer", ISSUER)
MOST_LIVES = 12


def stored(state: Path) -> tuple[Trust, Rotation]:
    documents = DirectoryStore(state).read()
    assert documents is not None
    trust = trust_from(documents, "", "cluster.local")
    return trust, rotation_of(trust)


def check_documents(state: Path) -> Rotation:
    """What is stored belongs together, and every key in it can be opened."""
    trust, rotation = stored(state)
    assert root_facts(trust.root_pem).fingerprint == rotation.signs
    assert {root_facts(root).fingerprint for root in trust.bundle.roots} == set(rotation.trusted)
    assert trust.bundle.sequence == rotation.sequence
    assert (STANDBY in trust.others) == rotation.running
    Authority(
        DirectoryStore(state), lambda: passphrase_from(state / "root-passphrase", create=False), CaSettings(), time.time
    )
    return rotation


@pytest.mark.parametrize("back_from", [None, Phase.RENEW])
def test_killed_in_each_phase(tmp_path: Path, api: ApiServer, mint: TokenMint, back_from: Phase | None) -> None:
    state = tmp_path / "state"
    pod = api.add_pod("default", "reviews-1", "uid-1", "reviews")
    held: list[SvidMaterial] = []
    with Operated(state, api, *KEYS) as ca:
        ca.begin(mint)
        first = ca.rotation()[1]["roots"][0]["fingerprint"]
        ca.rotation(do="start", windowSeconds=1)
        ca.kill()
    seen = [check_documents(state)]
    for _ in range(MOST_LIVES):
        if not seen[-1].running:
            break
        with Operated(state, api, *KEYS) as ca:
            ca.begin(mint)
            held.append(ca.enrol(mint.token("default", "reviews", pod)))
            if seen[-1].phase is back_from and not seen[-1].back:
                assert ca.rotation(do="rollback")[0] == 200
            else:
                if seen[-1].phase is Phase.DRAIN:  # the pod has no agent that says what it uses
                    wait_for(lambda ca=ca: ca.rotation()[1]["acknowledged"]["missing"] == ["default/reviews-1"])
                    assert "it has one, of which no agent tells" in ca.rotation()[1]["waitingFor"]
                    ca.rotation(do="exclude", pods=["default/reviews-1"])
                wait_for(lambda: stored(state)[1].phase is not seen[-1].phase)
            ca.kill()
        seen.append(check_documents(state))
    phases = [each.phase for each in seen]
    assert not seen[-1].running, phases
    assert phases[-2:] == [Phase.DESTROY, Phase.IDLE]
    assert set(phases) >= {Phase.DISTRIBUTE, Phase.SIGN, Phase.RENEW, Phase.RETIRE}
    last = root_facts(stored(state)[0].root_pem).fingerprint
    assert (last == first) is (back_from is not None)
    for before, after in pairwise(held):
        assert trusts(before, after)
        assert trusts(after, before)


def trusts(one: SvidMaterial, other: SvidMaterial) -> bool:
    """Whether a peer with the bundle of `one` accepts the certificate of `other`."""
    return other.root in {root_facts(root).fingerprint for root in one.bundle.roots}
