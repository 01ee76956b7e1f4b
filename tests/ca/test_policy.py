"""Who gets which certificate, for how long."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.policy import Caller, authorize, check_ttl, may_read_ledger, needs_pod
from ca.settings import DAY, CaSettings
from mesh.errors import Forbidden, InvalidInput, Unavailable
from mesh.identity import Identity

NOW = 1_800_000_000.5
SETTINGS = CaSettings()


@dataclass(frozen=True)
class Issuer:
    not_before: int = int(NOW) - DAY
    not_after: int = int(NOW) + 29 * DAY


def caller(namespace: str = "default", account: str = "reviews", domain: str = "cluster.local") -> Caller:
    return Caller("token", Identity(domain, namespace, account))


def test_the_identity_is_the_callers() -> None:
    grant = authorize(caller(), None, SETTINGS, Issuer(), NOW)
    assert (grant.identity, grant.dns_names) == (caller().identity, ())
    assert (grant.not_before, grant.not_after) == (int(NOW) - SETTINGS.backdate, int(NOW) + DAY)


@given(st.none() | st.integers(1, 1 << 40), st.integers(-100 * DAY, 100 * DAY), st.integers(1, 100 * DAY))
def test_life_is_within_bounds(ttl: int | None, starts: int, lasts: int) -> None:
    issuer = Issuer(int(NOW) + starts, int(NOW) + starts + lasts)
    try:
        grant = authorize(caller(), ttl, SETTINGS, issuer, NOW)
    except Unavailable:
        assert issuer.not_after < int(NOW) + SETTINGS.min_ttl
        return
    assert issuer.not_before <= grant.not_before
    assert grant.not_after <= issuer.not_after
    assert SETTINGS.min_ttl <= grant.not_after - int(NOW) <= SETTINGS.max_ttl


def test_too_long_is_capped_and_too_short_raised() -> None:
    assert authorize(caller(), 365 * DAY, SETTINGS, Issuer(), NOW).not_after == int(NOW) + SETTINGS.max_ttl
    assert authorize(caller(), 1, SETTINGS, Issuer(), NOW).not_after == int(NOW) + SETTINGS.min_ttl


def test_another_trust_domain_is_refused() -> None:
    with pytest.raises(Forbidden, match=r"evil\.example"):
        authorize(caller(domain="evil.example"), None, SETTINGS, Issuer(), NOW)


def test_control_plane_has_its_dns_names_and_nobody_else() -> None:
    grant = authorize(caller("istio-system", "heddle-webhook"), None, SETTINGS, Issuer(), NOW)
    assert grant.dns_names == (
        "heddle-webhook.istio-system.svc",
        "heddle-webhook.istio-system.svc.cluster.local",
    )
    assert authorize(caller("default", "heddle-webhook"), None, SETTINGS, Issuer(), NOW).dns_names == ()
    assert not needs_pod(grant.identity, SETTINGS)
    assert needs_pod(caller("default", "heddle-webhook").identity, SETTINGS)


def test_the_webhook_of_a_revision_has_the_dns_names_of_its_service() -> None:
    grant = authorize(caller("istio-system", "heddle-webhook-canary"), None, SETTINGS, Issuer(), NOW)
    assert grant.dns_names[0] == "heddle-webhook-canary.istio-system.svc"
    assert authorize(caller("default", "heddle-webhook-canary"), None, SETTINGS, Issuer(), NOW).dns_names == ()
    assert authorize(caller("istio-system", "heddle-webhooks"), None, SETTINGS, Issuer(), NOW).dns_names == ()


def test_operators() -> None:
    assert may_read_ledger(caller("istio-system", "heddle-operator"), SETTINGS)
    assert not may_read_ledger(caller("istio-system", "heddle-webhook"), SETTINGS)
    assert not may_read_ledger(caller("default", "heddle-operator"), SETTINGS)
    assert not may_read_ledger(caller("istio-system", "heddle-operator", "other"), SETTINGS)


def test_another_namespace_of_the_control_plane() -> None:
    settings = CaSettings(control_namespace="mesh")
    assert authorize(caller("mesh", "heddle-webhook"), None, settings, Issuer(), NOW).dns_names == (
        "heddle-webhook.mesh.svc",
        "heddle-webhook.mesh.svc.cluster.local",
    )
    assert may_read_ledger(caller("mesh", "heddle-operator"), settings)
    for account in ("heddle-webhook", "heddle-webhook-canary", "heddle-operator"):
        usual = caller("istio-system", account)
        assert authorize(usual, None, settings, Issuer(), NOW).dns_names == ()
        assert needs_pod(usual.identity, settings)
        assert not may_read_ledger(usual, settings)


@pytest.mark.parametrize("ttl", [0, -5, True, False, 1.5, "60", [], {}])
def test_refuses_odd_ttls(ttl: object) -> None:
    with pytest.raises(InvalidInput, match="ttlSeconds"):
        check_ttl(ttl)


@pytest.mark.parametrize(
    "wrong",
    [
        {"leaf_ttl": 10},
        {"leaf_ttl": 30 * DAY},
        {"max_ttl": 16 * DAY},
        {"min_ttl": 0},
        {"root_ttl": 30 * DAY},
        {"trust_domain": "Cluster.Local"},
    ],
)
def test_settings_that_contradict_each_other(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        CaSettings(**wrong)  # type: ignore[arg-type]
