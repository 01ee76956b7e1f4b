"""docs/attacks.md names tests that exist, and every test of the files whose name says that they are of attacks."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "attacks.md").read_text()
NAMED = {tuple(found.split("::")) for found in re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", PAGE)}
# What shows that a test of the file tests anything, or repeats another one in other words.
BESIDE = {
    "test_made_by_hand_is_no_reason",
    "test_ordinary_keys_are_not_weak",
    "test_a_square_is_found",
    "test_renewal_with_a_good_leaf_of_the_roots_own_key",
    "test_numbers_that_json_has_not",
    "test_one_key_twice_in_the_body_is_no_way_round",
    "test_numbers_of_a_good_signature_with_more_zeros",
}


def names_in(file: str) -> set[str]:
    return set(re.findall(r"^def (test_\w+)", (ROOT / file).read_text(), re.MULTILINE))


def test_what_it_names_is_there() -> None:
    assert len(NAMED) > 40
    missing = [f"{file}::{name}" for file, *names in NAMED for name in names if name not in names_in(file)]
    assert not missing


def test_it_names_what_is_there() -> None:
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_attacks_*.py")]
    assert len(files) >= 4
    there = {(file, name) for file in files for name in names_in(file) - BESIDE}
    assert there <= NAMED, there - NAMED
