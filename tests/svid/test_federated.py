"""A bundle that names other trust domains: over the wire and back, and whose roots count for whom."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mesh.errors import InvalidInput
from svid.material import ForeignRoots, TrustBundle, bundle_from_json, bundle_to_json

BUNDLE = TrustBundle(
    "cluster.local", 3, ("ours",), federated=(ForeignRoots("old.example"), ForeignRoots("partner.example", ("theirs",)))
)


def test_there_and_back() -> None:
    assert bundle_from_json(json.loads(json.dumps(bundle_to_json(BUNDLE)))) == BUNDLE


def test_without_others_nothing_is_said_of_them() -> None:
    assert "federated" not in bundle_to_json(TrustBundle("cluster.local", 3, ("ours",)))


def test_whose_roots_count_for_whom() -> None:
    assert BUNDLE.by_trust_domain == {
        "cluster.local": ("ours",),
        "old.example": ("ours",),
        "partner.example": ("theirs",),
    }


def test_the_own_pem_has_no_foreign_roots() -> None:
    assert BUNDLE.pem == "ours\n"


@pytest.mark.parametrize("federated", [7, [7], [{}], [{"trustDomain": "a", "roots": 7}]])
def test_nonsense_is_refused(federated: object) -> None:
    with pytest.raises(InvalidInput, match="whom else to trust"):
        bundle_from_json({**bundle_to_json(BUNDLE), "federated": federated})


def test_whose_lists_count_for_whom() -> None:
    assert BUNDLE.crls_by_trust_domain == {}
    revoked = replace(BUNDLE, crls=("list",))
    assert revoked.crls_by_trust_domain == {"cluster.local": ("list",), "old.example": ("list",)}
