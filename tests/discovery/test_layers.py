"""Sets in layers differ as plain sets do, however they are put together; shared differences are worked out once."""

from __future__ import annotations

import random

import pytest

from discovery.layers import Changes, Comparison, Entries, Layered, Shared, layered

NAMES = [f"n{number}" for number in range(6)]


def resource(version: int) -> tuple[str, bytes]:
    return (str(version), b"{}")


def some(dice: random.Random) -> dict[str, tuple[str, bytes]]:
    return {name: resource(dice.randrange(3)) for name in NAMES if dice.random() < 0.5}


def applied(have: Entries, found: Changes) -> dict[str, tuple[str, bytes]]:
    result = {**dict(have), **found.changed}
    for name in found.removed:
        del result[name]
    return result


@pytest.mark.parametrize("seed", range(300))
def test_the_difference_turns_one_into_the_other(seed: int) -> None:
    dice = random.Random(seed)
    compare = Comparison(remembered=2)
    shared = [Shared(some(dice)) for _ in range(3)]
    sets: list[Entries] = [layered(dice.choice(shared), some(dice)) for _ in range(6)] + [some(dice)]
    for _ in range(20):
        have, want = dice.choice(sets), dice.choice(sets)
        found = compare(have, want)
        assert applied(have, found) == dict(want)
        assert all(have.get(name) != each for name, each in found.changed.items())
        assert list(found.removed) == sorted(set(have) - set(want))


def test_a_layered_set_is_a_mapping_of_both() -> None:
    found = Layered(Shared(a=resource(1), b=resource(1)), {"b": resource(2), "c": resource(2)})
    plain = {"a": resource(1), "b": resource(2), "c": resource(2)}
    assert found == plain
    assert (len(found), sorted(found), found["b"]) == (3, ["a", "b", "c"], resource(2))
    assert found.get("d") is None
    assert found == Layered(found.shared, dict(found.own))
    assert found != Layered(found.shared, {})


def test_what_two_proxies_share_is_compared_once() -> None:
    compare = Comparison()
    before, after = Shared(a=resource(1), b=resource(1)), Shared(a=resource(2), b=resource(1))
    one = compare(layered(before, {}), layered(after, {}))
    assert compare(layered(before, {}), layered(after, {})) is one
    mine = {"own": resource(1)}
    assert compare(layered(before, mine), layered(after, mine)).changed == one.changed
