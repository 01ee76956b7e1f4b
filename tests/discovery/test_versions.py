"""The bookkeeping of a session: differences, lost answers, acknowledgements."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.versions import Ledger, Resources, difference, held_from, set_version
from mesh.errors import Gone
from mesh.wire import Applied, Rejection, ResourceType

C, E, R, V = ResourceType.CLUSTERS, ResourceType.ENDPOINTS, ResourceType.ROUTES, ResourceType.VIRTUAL_HOSTS


def resources(**kinds: Mapping[str, str]) -> Resources:
    """Type -> name -> content."""
    return {
        ResourceType(kind): {
            name: (hashlib.sha256(text.encode()).hexdigest()[:8], text.encode()) for name, text in entries.items()
        }
        for kind, entries in kinds.items()
    }


def send(ledger: Ledger, wanted: Resources, generation: int = 1) -> Ledger:
    return ledger.answered(wanted, difference(ledger.held, wanted), generation, 0.0)


def applied(sequence: int, *kinds: str) -> dict[str, Applied]:
    return {kind: Applied(sequence, "2026-01-01T00:00:00Z") for kind in kinds}


ONE = resources(clusters={"a": "1", "b": "1"}, endpoints={"a": "x"})
TWO = resources(clusters={"a": "2"}, endpoints={"a": "x"})


def test_everything_is_new_to_an_agent_that_has_nothing() -> None:
    delta = difference({}, ONE)
    assert {kind: set(entries) for kind, entries in delta.changed.items()} == {
        "clusters": {"a", "b"},
        "endpoints": {"a"},
    }
    assert not delta.removed


def test_only_what_changed_is_sent() -> None:
    delta = difference(held_from(None) | {str(k): v for k, v in ONE.items()}, TWO)
    assert {kind: list(entries) for kind, entries in delta.changed.items()} == {"clusters": ["a"]}
    assert delta.removed == {"clusters": ("b",)}


def test_versions_of_an_earlier_session_save_sending() -> None:
    versions = {str(kind): {name: version for name, (version, _) in each.items()} for kind, each in ONE.items()}
    assert not difference(Ledger.new(versions, {}).held, ONE)


def test_types_that_only_the_agent_knows_are_removed() -> None:
    delta = difference(held_from({"wasm": {"w": "1"}}), {})
    assert delta.removed == {"wasm": ("w",)}


def test_an_answer_counts_once_the_agent_asks_with_its_number() -> None:
    ledger = send(Ledger.new(None, {}), ONE).asked(1)
    assert ledger.sequence == 1
    assert not difference(ledger.held, ONE)


def test_a_lost_answer_is_worked_out_anew() -> None:
    ledger = send(Ledger.new(None, {}), ONE).asked(0)
    assert ledger.unapplied == ()
    again = send(ledger, TWO)
    assert again.pending is not None
    assert again.pending.sequence == 1
    assert difference(ledger.held, TWO).changed["clusters"].keys() == {"a"}


@pytest.mark.parametrize("sequence", [2, 7])
def test_a_number_that_was_never_sent_ends_the_session(sequence: int) -> None:
    with pytest.raises(Gone, match="sequence 0") as caught:
        send(Ledger.new(None, {}), ONE).asked(sequence)
    assert "start a new session" in str(caught.value)


def test_an_older_number_ends_the_session() -> None:
    ledger = send(send(Ledger.new(None, {}), ONE).asked(1), TWO).asked(2)
    with pytest.raises(Gone):
        ledger.asked(1)


def test_applied_when_every_changed_type_is_taken() -> None:
    ledger = send(Ledger.new(None, {}), ONE, generation=5).asked(1)
    ledger = ledger.reported(applied(1, "clusters"))
    assert ledger.generation == 0
    assert ledger.lagging() == {"endpoints"}
    ledger = ledger.reported(applied(1, "endpoints"))
    assert ledger.generation == 5
    assert ledger.lagging() == frozenset()
    assert ledger.in_force["clusters"] is ONE[C]


def test_virtual_hosts_are_applied_with_their_routes() -> None:
    wanted = resources(routes={"80": "r"}, virtualHosts={"80/a": "v"})
    ledger = send(Ledger.new(None, {}), wanted, generation=3).asked(1).reported(applied(1, "routes"))
    assert ledger.generation == 3


def test_what_an_earlier_session_applied_does_not_count() -> None:
    refused = Applied(9, "", (Rejection("l", "bad", ""),))
    ledger = Ledger.new(None, {"listeners": refused, "clusters": Applied(9, "")})
    ledger = send(ledger, ONE, generation=1).asked(1).reported(applied(9, "clusters", "endpoints"))
    assert ledger.generation == 0
    assert ledger.applied["listeners"].rejected[0].message == "bad"


def test_nothing_to_send_is_applied_at_once() -> None:
    ledger = send(Ledger.new(None, {}), ONE, generation=1).asked(1)
    assert ledger.current(ONE, 2).generation == 0, "the first answer is not applied yet"
    ledger = ledger.reported(applied(1, "clusters", "endpoints")).current(ONE, 2)
    assert ledger.generation == 2


def test_a_refused_answer_is_made_good_by_the_next() -> None:
    ledger = send(Ledger.new(None, {}), ONE, generation=1).asked(1)
    refused = {"clusters": Applied(0, "", (Rejection("a", "no", ""),)), **applied(1, "endpoints")}
    ledger = ledger.reported(refused)
    assert ledger.generation == 0
    ledger = send(ledger, TWO, generation=2).asked(2).reported(applied(2, "clusters"))
    assert ledger.generation == 2


def test_set_versions_do_not_depend_on_order() -> None:
    one = {"a": ("1", b""), "b": ("2", b"")}
    assert set_version(one) == set_version(dict(reversed(one.items())))
    assert set_version(one) != set_version({"a": ("1", b"")})


CONTENT = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("123"), max_size=4)
WANTED = st.fixed_dictionaries({"clusters": CONTENT, "endpoints": CONTENT})
STEP = st.tuples(WANTED, st.booleans(), st.booleans())


@given(st.lists(STEP, min_size=1, max_size=12))
def test_agent_and_ledger_agree_whatever_is_lost(steps: list[tuple[Any, bool, bool]]) -> None:
    """Each step: what is wanted now, whether the answer arrives, whether the agent's Envoy has taken it."""
    ledger, has, sequence = Ledger.new(None, {}), {"clusters": {}, "endpoints": {}}, 0
    for generation, (content, arrives, takes) in enumerate((*steps, (steps[-1][0], True, True)), 1):
        wanted = resources(**content)
        ledger = ledger.asked(sequence)
        delta = difference(ledger.held, wanted)
        assert {kind: {n: v[0] for n, v in ledger.held.get(kind, {}).items()} for kind in has} == has
        if not delta:
            ledger = ledger.current(wanted, generation)
            continue
        ledger = ledger.answered(wanted, delta, generation, 0.0)
        if not arrives:
            continue
        assert ledger.pending is not None
        sequence = ledger.pending.sequence
        for kind, entries in delta.changed.items():
            has[kind].update({name: version for name, (version, _) in entries.items()})
        for kind, names in delta.removed.items():
            for name in names:
                del has[kind][name]
        if takes:
            ledger = ledger.reported(applied(sequence, "clusters", "endpoints"))
            assert ledger.generation == generation
    assert has == {str(k): {n: v[0] for n, v in each.items()} for k, each in resources(**steps[-1][0]).items()}
