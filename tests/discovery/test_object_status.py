"""The status of an object: what it says, and that it says nothing twice."""

from __future__ import annotations

from typing import Any

from discovery.findings import Finding, Severity
from discovery.object_status import Seen, seen, status_of
from discovery.tally import Count, Refusal
from mesh.crd_schema import Json
from mesh.kinds import find_kind

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"


def one(kind: str = "VirtualService", status: Json | None = None) -> Seen:
    entry = find_kind("networking.istio.io/v1", kind)
    assert entry is not None
    meta = {"namespace": "default", "name": "shop", "generation": 3, "uid": "u"}
    return seen(entry, {"metadata": meta, "status": status})


def finding(message: str, *, effect: str = "", severity: Severity = Severity.ERROR) -> Finding:
    return Finding("VirtualService", "default", "shop", "spec.hosts[0]", message, "", effect, severity)


def told(status: dict[str, Any] | None) -> dict[str, tuple[str, str, str]]:
    assert status is not None
    return {each["type"]: (each["status"], each["reason"], each["message"]) for each in status["conditions"]}


def test_in_order_and_everywhere() -> None:
    status = status_of(one(), [], Count(2, 2), NOW)
    assert told(status) == {
        "Accepted": ("True", "Accepted", "in order"),
        "Reconciled": ("True", "Reconciled", "2 of 2 proxies have it"),
    }
    assert status is not None
    assert status["observedGeneration"] == 3
    assert status["heddle"] == {"proxies": {"applied": 2, "total": 2, "refused": []}}


def test_on_its_way_refused_and_for_nobody() -> None:
    assert told(status_of(one(), [], Count(1, 2), NOW))["Reconciled"][:2] == ("False", "InProgress")
    assert told(status_of(one(), [], Count(), NOW))["Reconciled"][:2] == ("True", "NoProxies")
    refused = status_of(one(), [], Count(1, 2, (Refusal("default/a", "80", "bad regex"),)), NOW)
    assert told(refused)["Reconciled"] == (
        "False",
        "Refused",
        "1 of 2 proxies have it; Envoy of default/a says: bad regex",
    )


def test_errors_and_warnings() -> None:
    unread = [finding("is empty", effect="it has no effect")]
    assert told(status_of(one(), unread, Count(), NOW))["Accepted"] == ("False", "Invalid", "spec.hosts[0]: is empty")
    missing = [finding("there is no service x")]
    assert told(status_of(one(), missing, Count(), NOW))["Accepted"][:2] == ("False", "UnresolvedReferences")
    warning = [finding("hm", severity=Severity.WARNING)]
    assert told(status_of(one(), warning, Count(), NOW))["Accepted"][0] == "True"
    many = [finding(f"no service {number}") for number in range(8)]
    assert told(status_of(one(), many, Count(), NOW))["Accepted"][2].endswith("; and 3 more")


def test_a_kind_that_is_not_acted_upon_says_so() -> None:
    status = status_of(one("ServiceEntry"), [], Count(), NOW)
    assert list(told(status)) == ["Accepted"]
    assert told(status)["Accepted"][:2] == ("False", "NotActedUpon")


def test_nothing_is_said_twice_and_times_stay() -> None:
    first = status_of(one(), [], Count(1, 2), NOW)
    assert status_of(one(status=first), [], Count(1, 2), LATER) is None
    after = status_of(one(status=first), [], Count(2, 2), LATER)
    assert after is not None
    times = {each["type"]: each["lastTransitionTime"] for each in after["conditions"]}
    assert times == {"Accepted": NOW, "Reconciled": LATER}


def test_what_another_controller_wrote_is_no_hindrance() -> None:
    foreign = {"conditions": [{"type": "PassedAnalysis", "status": "True"}], "observedGeneration": "3"}
    assert told(status_of(one(status=foreign), [], Count(), NOW))["Accepted"][0] == "True"
