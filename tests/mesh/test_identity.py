"""SPIFFE IDs: written and read back, and every form that the standard forbids refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import InvalidInput
from mesh.identity import MAX_ID_BYTES, Identity, check_trust_domain, parse_identity

labels = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
domains = st.from_regex(r"[a-z0-9._-]{1,255}", fullmatch=True)
accounts = st.lists(labels, min_size=1, max_size=3).map(".".join)
GOOD = "spiffe://cluster.local/ns/default/sa/web"


@given(domains, labels, accounts)
def test_what_is_written_is_read_back(domain: str, namespace: str, account: str) -> None:
    identity = Identity(domain, namespace, account)
    assert parse_identity(str(identity)) == identity
    assert str(identity) == f"spiffe://{domain}/ns/{namespace}/sa/{account}"


@given(st.text())
def test_any_text_is_refused_or_is_exactly_what_is_written(text: str) -> None:
    try:
        assert str(parse_identity(text)) == text
    except InvalidInput:
        return


@given(st.integers(0, len(GOOD)), st.characters())
def test_one_more_character_is_refused_or_is_exactly_what_is_written(position: int, letter: str) -> None:
    changed = GOOD[:position] + letter + GOOD[position:]
    try:
        assert str(parse_identity(changed)) == changed
    except InvalidInput:
        return


FORBIDDEN = [
    "",
    "spiffe:",
    "spiffe://",
    "spiffe://cluster.local",
    "spiffe://cluster.local/",
    "spiffe:///ns/default/sa/web",
    "spiffe://cluster.local/ns/default",
    f"{GOOD}/",
    f"{GOOD}/more",
    f" {GOOD}",
    f"{GOOD}\n",
    f"{GOOD}\0",
    f"{GOOD}?query",
    f"{GOOD}#fragment",
    GOOD.replace("spiffe:", "SPIFFE:"),
    GOOD.replace("spiffe:", "https:"),
    GOOD.replace("cluster.local", "Cluster.local"),
    GOOD.replace("cluster.local", "cluster.local:443"),
    GOOD.replace("cluster.local", "user@cluster.local"),
    GOOD.replace("cluster.local", "user:secret@cluster.local"),
    GOOD.replace("cluster.local", "cluster%2Elocal"),
    GOOD.replace("cluster.local", "clüster.local"),
    GOOD.replace("cluster.local", "[::1]"),
    GOOD.replace("cluster.local", "x" * 256),
    GOOD.replace("/ns/", "/NS/"),
    GOOD.replace("/ns/", "//ns/"),
    GOOD.replace("/ns/", "/./ns/"),
    GOOD.replace("/sa/", "/sa//"),
    GOOD.replace("default", ""),
    GOOD.replace("default", "."),
    GOOD.replace("default", ".."),
    GOOD.replace("default", "a.b"),
    GOOD.replace("default", "Default"),
    GOOD.replace("default", "-a"),
    GOOD.replace("default", "a" * 64),
    GOOD.replace("web", ""),
    GOOD.replace("web", "."),
    GOOD.replace("web", ".."),
    GOOD.replace("web", "a..b"),
    GOOD.replace("web", "we%2Fb"),
    GOOD.replace("web", "%77eb"),
    GOOD.replace("web", "Web"),
    GOOD.replace("web", "w_b"),
    GOOD.replace("web", "w b"),
    GOOD.replace("web", "a" * 254),
    GOOD.replace("web", "x" * (MAX_ID_BYTES + 1 - len(GOOD) + 3)),
]


@pytest.mark.parametrize("uri", FORBIDDEN, ids=lambda uri: uri[:60] or "empty")
def test_what_the_standard_or_kubernetes_forbids_is_refused(uri: str) -> None:
    with pytest.raises(InvalidInput):
        parse_identity(uri)


def test_too_long_is_said_to_be() -> None:
    assert len(FORBIDDEN[-1]) == 2049
    with pytest.raises(InvalidInput, match="at most 2048 bytes long, this one has 2049"):
        parse_identity(FORBIDDEN[-1])


def test_a_wrong_part_is_named() -> None:
    for parts, field in (
        (("A", "n", "s"), "trustDomain"),
        (("a", "N", "s"), "namespace"),
        (("a", "n", "S"), "serviceA"),
    ):
        with pytest.raises(InvalidInput) as got:
            Identity(*parts)
        assert (got.value.field or "").startswith(field)


@pytest.mark.parametrize("name", ["", "A", "a/b", "a:1", "a@b", "%61", "a b", "a\n", "ä", "x" * 256])
def test_what_is_no_trust_domain(name: str) -> None:
    with pytest.raises(InvalidInput, match="is not a SPIFFE trust domain"):
        check_trust_domain(name)


def test_identities_sort_and_are_keys() -> None:
    first, second = Identity("a", "n", "s"), Identity("a", "n", "t")
    assert sorted([second, first]) == [first, second]
    assert {first: 1}[Identity("a", "n", "s")] == 1
