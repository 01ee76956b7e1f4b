"""The reference pages of the kinds."""

from __future__ import annotations

import re

from mesh import reference

PAGES = dict(reference.pages())


def test_the_pages_are_up_to_date() -> None:
    committed = {name: (reference.DIRECTORY / name).read_text() for name in PAGES}
    assert committed == PAGES, "run: python -m mesh.reference"


def test_links_lead_somewhere() -> None:
    for name, text in PAGES.items():
        headings = {heading.lower() for heading in re.findall(r"^## (\w+)$", text, re.MULTILINE)}
        assert set(re.findall(r"\(#(\w+)\)", text)) <= headings, name
    assert set(re.findall(r"\((\w+\.md)\)", PAGES[reference.INDEX])) == PAGES.keys() - {reference.INDEX}


def test_a_field_without_effect_and_all_below_it_say_so() -> None:
    page = PAGES["virtualservice.md"]
    assert re.search(r"\| `corsPolicy` \|.*\| no \|$", page, re.MULTILINE)
    assert re.search(r"\| `allowOrigins` \|.*\| no \|$", page, re.MULTILINE)
    assert re.search(r"\| `timeout` \|.*\| yes \|$", page, re.MULTILINE)


def test_a_kind_without_effect_says_so() -> None:
    assert "does not act upon this kind yet" in PAGES["sidecar.md"]
    assert "does not act upon this kind yet" not in PAGES["gateway.md"]
