"""What is applied again to what the components have made their own."""

from __future__ import annotations

from typing import Any

from install.apply import leaving_enforced


def configuration(**policies: str) -> dict[str, Any]:
    entries = [{"name": name, "failurePolicy": policy} for name, policy in policies.items()]
    return {"kind": "ValidatingWebhookConfiguration", "webhooks": entries}


def test_what_the_webhook_enforces_stays_its_own() -> None:
    wanted = configuration(istio="Ignore", home="Ignore")
    assert leaving_enforced(wanted, {}) == wanted
    assert leaving_enforced(wanted, configuration(istio="Ignore", home="Ignore")) == wanted
    assert leaving_enforced(wanted, configuration(istio="Fail", home="Ignore"))["webhooks"] == [
        {"name": "istio"},
        {"name": "home", "failurePolicy": "Ignore"},
    ]


def test_other_kinds_are_applied_as_they_are() -> None:
    wanted = {**configuration(a="Ignore"), "kind": "MutatingWebhookConfiguration"}
    assert leaving_enforced(wanted, configuration(a="Fail")) is wanted
