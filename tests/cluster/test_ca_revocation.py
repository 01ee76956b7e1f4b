"""Revocation where replicas share their state in a Secret: what one is told, all refuse, with what each has issued."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from svid.client import Refused, fetch_bundle
from svid.material import SvidMaterial
from tests.cluster.api_server import ApiServer
from tests.cluster.ca_replicas import Place, Replica, certificates_defined, place, pod_ref
from tests.support.waiting import wait_for


@pytest.fixture
def own(own_api_server: ApiServer, tmp_path: Path) -> Iterator[Place]:
    with certificates_defined(own_api_server), place(own_api_server, tmp_path) as made:
        yield made


def post(ca: Replica, by: SvidMaterial, **body: Any) -> Any:
    headers = {"Content-Type": "application/json"}
    status, answer, _ = ca.request("POST", "/v1/revocations", json.dumps(body).encode(), headers, by)
    assert status == 200, answer
    return answer


def listed(ca: Replica) -> set[str]:
    """The serials on the list that this replica hands out, if it is signed by the root that it hands out too."""
    bundle = fetch_bundle(ca.address, ca.roots)
    found = set()
    for text, root in zip(bundle.crls, bundle.roots, strict=False):
        crl = x509.load_pem_x509_crl(text.encode())
        public = x509.load_pem_x509_certificate(root.encode()).public_key()
        assert crl.is_signature_valid(public)  # type: ignore[arg-type]
        found |= {f"{entry.serial_number:x}" for entry in crl}
    return found


def refused(ca: Replica, material: SvidMaterial, pod: Any) -> bool:
    try:
        ca.renew(material, pod_ref(pod))
    except Refused as error:
        return error.code == "revoked"
    return False


def test_every_replica_refuses(own: Place) -> None:
    with own.replica() as first, own.replica("heddle-ca-1") as second:
        operator = first.operator()
        pods = [own.add_pod(f"pod-{n}") for n in range(2)]
        ours, theirs = first.enrol(own.token(pods[0])), second.enrol(own.token(pods[1]))
        wait_for(lambda: {"pod-0", "pod-1"} <= own.certificates().keys())

        post(first, operator, do="revoke", serial=theirs.serial)
        wait_for(lambda: refused(second, theirs, pods[1]))
        assert listed(first) == listed(second) == {theirs.serial}
        wait_for(lambda: own.certificates()["pod-1"]["spec"]["state"] == "Revoked")
        assert own.certificates()["pod-0"]["spec"]["state"] == "Issued"
        assert not refused(second, ours, pods[0])
        post(second, operator, do="restore", serial=theirs.serial)
        wait_for(lambda: own.certificates()["pod-1"]["spec"]["state"] != "Revoked")
        wait_for(lambda: not refused(first, theirs, pods[1]))

        # The object of a pod knows what it had before, from whichever replica.
        second.renew(ours, pod_ref(pods[0]))
        wait_for(lambda: "earlier" in own.certificates()["pod-0"]["spec"])
        assert ours.serial in {one["serial"] for one in own.certificates()["pod-0"]["spec"]["earlier"]}

        # Of an identity: each replica adds what only it knows of.
        post(second, operator, do="revoke", identity=str(ours.identity))
        for ca in (first, second):
            wait_for(lambda ca=ca: {ours.serial, theirs.serial} <= listed(ca))
            assert refused(ca, ours, pods[0])
            with pytest.raises(Refused, match="has been revoked"):
                ca.enrol(own.token(pods[0]))
    with own.replica("heddle-ca-2") as later:
        assert {ours.serial, theirs.serial} <= listed(later)
        assert refused(later, theirs, pods[1])
