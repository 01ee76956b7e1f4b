"""webhook/enforcement.py: when failurePolicy changes, and what is written. A real API server: tests/cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from kube.client import Refused
from mesh.admission import ENFORCED, PROBE, configuration
from mesh.errors import HeddleError, Unavailable
from webhook.enforcement import Answer, Enforcement, Judge, policy_patch

Raw = dict[str, Any]
YES, NO, UNKNOWN = Answer.REFUSED, Answer.IGNORED, Answer.UNKNOWN


@pytest.mark.parametrize(
    ("answers", "policy"),
    [
        ([], ""),
        ([YES], ""),
        ([YES, YES], "Fail"),
        ([YES, UNKNOWN, YES], "Fail"),
        ([YES, NO, YES], ""),
        ([UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN], ""),
        ([YES, YES, UNKNOWN], "Fail"),
        ([YES, YES, NO], ""),
        ([YES, YES, NO, NO], ""),
        ([YES, YES, NO, NO, NO], "Ignore"),
        ([YES, YES, NO, NO, NO, YES], ""),
        ([YES, YES, NO, NO, NO, YES, YES], "Fail"),
    ],
)
def test_what_the_answers_amount_to(answers: Iterable[Answer], policy: str) -> None:
    judge = Judge()
    for answer in answers:
        judge = judge.after(answer)
    assert judge.policy == policy


def registered(**policies: str) -> Raw:
    raw = configuration()
    raw["metadata"]["resourceVersion"] = "7"
    for entry in raw["webhooks"]:
        entry["failurePolicy"] = policies.get(entry["name"].partition(".")[0], "Ignore")
    return raw


def test_only_what_is_enforced_changes_and_only_once() -> None:
    patch = policy_patch(registered(), "Fail")
    assert patch == {
        "metadata": {"resourceVersion": "7"},
        "webhooks": [{"name": name, "failurePolicy": "Fail"} for name in ENFORCED],
    }
    assert policy_patch(registered(rev="Fail", istio="Fail"), "Fail") is None
    assert policy_patch(registered(), "Ignore") is None
    half = policy_patch(registered(rev="Fail"), "Fail")
    assert half is not None
    assert [entry["name"] for entry in half["webhooks"]] == [ENFORCED[1]]
    assert policy_patch({"metadata": {}, "webhooks": [{"name": "a.example.com"}]}, "Fail") is None
    assert policy_patch({"metadata": {}}, "Fail") is None


class Api:
    """Answers the question as it is told to, and remembers what was written."""

    def __init__(self) -> None:
        self.says: HeddleError | str = ""
        self.written: list[Raw] = []
        self.asked: list[Raw] = []

    def call(self, method: str, path: str, *, query: Raw, body: Raw, content_type: str = "") -> Raw:
        if method == "PATCH":
            self.written.append(body)
            return {}
        assert query == {"dryRun": "All"}
        assert path == "/apis/networking.istio.io/v1/namespaces/mesh/workloadgroups"
        self.asked.append(body)
        if self.says == "refused":
            raise Refused(403, f"asked and answered: {body['metadata']['annotations'][PROBE]}")
        if isinstance(self.says, HeddleError):
            raise self.says
        return body


def enforcement(api: Api, known: list[Raw], told: list[bool]) -> Enforcement:
    return Enforcement(api, "default", "mesh", lambda: known, told.append)  # type: ignore[arg-type]


def test_two_answers_in_a_row_turn_it_to_fail_and_three_silences_back() -> None:
    api, told = Api(), list[bool]()
    known = [registered()]
    asking = enforcement(api, known, told)
    api.says = "refused"
    assert not asking.look()
    assert asking.look()
    assert [entry["failurePolicy"] for entry in api.written[0]["webhooks"]] == ["Fail", "Fail"]
    known[0] = registered(rev="Fail", istio="Fail")
    assert asking.look()
    assert len(api.written) == 1, "what is right is not written again"
    api.says = ""
    assert [asking.look() for _ in range(3)] == [False] * 3
    assert [entry["failurePolicy"] for entry in api.written[1]["webhooks"]] == ["Ignore", "Ignore"]
    assert told == [True, True, False]


def test_another_refusal_proves_nothing() -> None:
    api = Api()
    for says in (Refused(403, "no right"), Refused(403, "asked and answered: another"), Unavailable("away")):
        api.says = says
        asking = enforcement(api, [registered()], [])
        assert [asking.look() for _ in range(5)] == [False] * 5
    assert api.written == []


def test_without_a_configuration_nobody_is_asked() -> None:
    api = Api()
    assert not enforcement(api, [], []).look()
    assert api.asked == []


def test_the_question_is_of_this_revision_and_never_the_same() -> None:
    api = Api()
    asking = enforcement(api, [registered()], [])
    for _ in range(2):
        asking.look()
    assert [body["metadata"]["labels"] for body in api.asked] == [{"istio.io/rev": "default"}] * 2
    assert len({body["metadata"]["annotations"][PROBE] for body in api.asked}) == 2
