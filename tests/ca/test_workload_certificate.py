"""The object of a certificate: what it says, and which of two certificates it tells of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ca.certificate_states import state_at
from ca.ledger import Record
from ca.workload_certificate import essence, is_later, remembering, replacing, workload_certificate, write
from kube.client import Refused
from mesh.errors import NotFound
from mesh.heddle.workload_certificate import WorkloadCertificate

NOW = 1_800_000_000.25
RECORD = Record(
    serial="ab",
    identity="spiffe://cluster.local/ns/a/sa/b",
    caller="token",
    pod_namespace="a",
    pod_name="b-1",
    pod_uid="u",
    node="n",
    key_kind="P-256",
    key_fingerprint="f" * 64,
    issuer="1",
    root="2",
    prepared_at=NOW,
    not_before=int(NOW) - 60,
    not_after=int(NOW) + 86400,
)


def body(**change: object) -> dict[str, object]:
    return workload_certificate(replace(RECORD, **change), "heddle-ca-0")  # type: ignore[arg-type]


def test_it_is_as_its_model_says() -> None:
    spec = WorkloadCertificate.model_validate(body()["spec"])
    assert spec.issued == "2027-01-15T08:00:00.250000Z"
    assert spec.expires == "2027-01-16T08:00:00Z"
    assert spec.renews_at == "2027-01-15T20:00:00Z"
    assert spec.state == "Issued"


@pytest.mark.parametrize(
    ("change", "later"),
    [
        ({}, False),
        ({"prepared_at": NOW + 0.001, "serial": "aa"}, True),  # within the same second
        ({"prepared_at": NOW - 0.001}, False),
        ({"prepared_at": NOW - 100}, False),
        ({"prepared_at": NOW + 0.001, "pod_uid": "another"}, True),
        ({"prepared_at": NOW - 0.001, "pod_uid": "another"}, False),
    ],
)
def test_only_a_later_certificate_replaces_one(change: dict[str, object], later: bool) -> None:
    assert is_later(body(**change), body()) is later


def test_replacing_needs_what_was_read_and_says_renewed_for_the_same_pod() -> None:
    there = body()
    there["metadata"]["resourceVersion"] = "7"  # type: ignore[index]
    patch = replacing(body(prepared_at=NOW + 1), there)
    assert patch["metadata"]["resourceVersion"] == "7"
    assert patch["spec"]["state"] == "Renewed"
    assert replacing(body(prepared_at=NOW + 1, pod_uid="another"), there)["spec"]["state"] == "Issued"


class Place:
    """One object as an API server has it: a stand-in, so that what is asked can be counted and others interfere."""

    def __init__(self) -> None:
        self.object: dict[str, Any] | None = None
        self.asked: list[str] = []
        self._version = 0

    def post(self, _path: str, body: Any) -> Any:
        self.asked.append("POST")
        if self.object is not None:
            raise Refused(409, "it exists")
        return self.put(body)

    def get(self, path: str) -> Any:
        self.asked.append("GET")
        if self.object is None:
            raise NotFound(path)
        return self.object

    def merge(self, path: str, body: Any) -> Any:
        self.asked.append("PATCH")
        if self.object is None:
            raise NotFound(path)
        if body["metadata"]["resourceVersion"] != self.object["metadata"]["resourceVersion"]:
            raise Refused(409, "it was changed")
        return self.put({**self.object, **body, "spec": {**self.object["spec"], **body["spec"]}})

    def put(self, body: Any) -> Any:
        self._version += 1
        self.object = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self._version)}}
        return self.object


def renewed(second: int, serial: str) -> dict[str, object]:
    return body(prepared_at=NOW + second, serial=serial, caller="certificate")


def test_a_renewal_is_one_request_where_the_object_is_as_it_was_left() -> None:
    place = Place()
    client: Any = place
    there = essence(write(client, body()))
    there = essence(write(client, renewed(1, "ac"), there))
    there = essence(write(client, renewed(2, "ad"), there))
    assert place.asked == ["POST", "PATCH", "PATCH"]
    assert place.object is not None
    assert place.object["spec"]["serial"] == "ad"
    assert [each["serial"] for each in place.object["spec"]["earlier"]] == ["ac", "ab"]


def test_what_was_remembered_is_read_again_where_it_no_longer_holds() -> None:
    place = Place()
    client: Any = place
    there = essence(write(client, body()))
    write(client, renewed(2, "ad"))  # another replica's
    place.asked.clear()
    write(client, renewed(1, "ac"), there)
    assert place.asked == ["PATCH", "GET", "PATCH"]
    assert place.object is not None
    assert place.object["spec"]["serial"] == "ad", "it is later"
    assert {each["serial"] for each in place.object["spec"]["earlier"]} == {"ab", "ac"}
    for gone in (renewed(3, "ae"), renewed(0, "ab")):  # with its pod; and the same once more
        place.object = None
        write(client, gone, there)
        assert place.object is not None


@pytest.mark.parametrize(
    ("state", "life", "then"),
    [
        ("Issued", 0.59, "Issued"),
        ("Renewed", 0.59, "Renewed"),
        ("Renewed", 0.61, "Renewing"),
        ("Renewing", 0.61, "Renewing"),
        ("Renewing", 1.01, "Expired"),
        ("Revoked", 0.59, "Issued"),
        ("Revoked", 1.01, "Expired"),
    ],
)
def test_time_overtakes_a_certificate_that_is_not_renewed(state: str, life: float, then: str) -> None:
    spec = {**body()["spec"], "state": state}  # type: ignore[dict-item]
    assert state_at(spec, NOW + life * 86400) == then
    assert state_at(spec, NOW + life * 86400, {spec["serial"]}) == "Revoked"


def test_it_knows_the_pods_earlier_certificates_until_they_expire() -> None:
    def told(serial: str, at: int) -> dict[str, Any]:
        begins = int(NOW) + at
        record = replace(RECORD, serial=serial, prepared_at=NOW + at, not_before=begins, not_after=begins + 100)
        return workload_certificate(record, "ca-1")

    def there(spec: dict[str, Any]) -> dict[str, Any]:
        return {"metadata": {"resourceVersion": "1", "ownerReferences": [{"uid": "u"}]}, "spec": spec}

    first = told("aa", 0)
    second = replacing(told("bb", 50), there(first["spec"]))
    (kept,) = second["spec"]["earlier"]
    assert kept == {"serial": "aa", "expires": first["spec"]["expires"], "root": "2", "caller": "token", "uid": "u"}
    assert WorkloadCertificate.model_validate(second["spec"]).earlier[0].uid == "u"
    assert replacing(told("bb", 50), essence(there(first["spec"])))["spec"]["earlier"] == [kept]
    third = replacing(told("cc", 90), there(second["spec"]))
    assert [one["serial"] for one in third["spec"]["earlier"]] == ["bb", "aa"]
    fourth = replacing(told("dd", 120), there(third["spec"]))
    assert [one["serial"] for one in fourth["spec"]["earlier"]] == ["cc", "bb"]
    late = remembering(told("ab", 60), there(fourth["spec"]))
    assert [one["serial"] for one in late["spec"]["earlier"]] == ["ab", "cc", "bb"]
