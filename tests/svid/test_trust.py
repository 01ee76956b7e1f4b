"""What counts of what everyone is told about trust."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from mesh.errors import InvalidInput
from mesh.identity import Identity
from svid.material import SvidMaterial, TrustBundle
from svid.schedule import AT_ONCE
from svid.trust import (
    NO_ORDER,
    News,
    Order,
    early_renewal,
    has_lost_its_root,
    is_meant,
    merged,
    newer,
    news_from_json,
    news_json,
)
from tests.support.certificates import Authority

ONE = TrustBundle("cluster.local", 1, ("A\n",))
BOTH = TrustBundle("cluster.local", 2, ("A\n", "B\n"))
OTHER = TrustBundle("cluster.local", 1, ("C\n",))
ORDER = Order(3, "aa", 10.0, 20.0)


@pytest.mark.parametrize("news", [News(ONE), News(BOTH, Order(4)), News(BOTH, ORDER)])
def test_there_and_back(news: News) -> None:
    assert news_from_json(news_json(news)) == news


@pytest.mark.parametrize(
    "change", [{"roots": []}, {"sequence": "2"}, {"renewal": {}}, {"renewal": 3}, {"renewal": {"order": "many"}}]
)
def test_nonsense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        news_from_json({**news_json(News(BOTH, ORDER)), **change})


def test_a_ca_that_knows_of_no_orders() -> None:
    body = news_json(News(BOTH))
    del body["renewal"]
    assert news_from_json(body) == News(BOTH)


def test_the_newer_bundle_counts() -> None:
    assert newer(None, ONE) == ONE
    assert newer(ONE, BOTH) == BOTH
    assert newer(BOTH, ONE) == BOTH
    assert newer(BOTH, OTHER) == OTHER  # nothing in common: not late, but another beginning


def test_each_part_of_the_news_counts_where_it_is_newer() -> None:
    assert merged(News(BOTH, Order(2)), News(ONE, ORDER)) == News(BOTH, ORDER)
    assert merged(News(BOTH, ORDER), News(ONE, Order(2))) == News(BOTH, ORDER)
    assert merged(News(BOTH, ORDER), News(OTHER, Order(1))) == News(OTHER, Order(1))


def test_a_certificate_whose_root_has_left_the_bundle() -> None:
    root = Authority()
    bundle = TrustBundle("cluster.local", 2, (root.root_pem, "B\n"))
    fingerprint = x509.load_pem_x509_certificate(root.root_pem.encode()).fingerprint(hashes.SHA256()).hex()
    leaf = SvidMaterial(Identity("cluster.local", "default", "a"), "1", 0, 1, b"", b"", bundle, fingerprint)
    assert not has_lost_its_root(leaf)
    assert early_renewal(NO_ORDER, leaf, 5.0) is None
    assert early_renewal(Order(1, fingerprint, 10.0, 20.0), leaf, 15.0) == (15.0, 20.0)
    left = replace(leaf, bundle=replace(bundle, sequence=3, roots=("B\n",)))
    assert has_lost_its_root(left)
    assert early_renewal(NO_ORDER, left, 5.0) == (5.0, 5.0 + AT_ONCE)
    assert not has_lost_its_root(replace(left, root=""))  # it is not known which one it is of


@pytest.mark.parametrize(("root", "meant"), [("aa", True), ("", True), ("bb", False)])
def test_whose_leaves_are_meant(root: str, meant: bool) -> None:
    leaf = SvidMaterial(Identity("cluster.local", "default", "a"), "1", 0, 1, b"", b"", ONE, root)
    assert is_meant(ORDER, leaf) is meant
    assert not is_meant(Order(4), leaf)
