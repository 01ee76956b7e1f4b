"""The ca while the API server is away, and after it was killed itself: nothing that was issued is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest

from ca.ledger import Ledger
from mesh.errors import HeddleError
from svid.client import Refused, Token, fetch
from svid.material import SvidMaterial
from svid.request import new_key_request
from tests.cluster.api_server import ApiServer
from tests.cluster.ca_replicas import (
    CRD,
    CRDS,
    Place,
    Replica,
    certificates_defined,
    define_certificates,
    place,
    pod_ref,
)
from tests.cluster.control_plane import ISSUER
from tests.support.waiting import wait_for

PODS = 40


@pytest.fixture(scope="module")
def defined(module_api_server: ApiServer) -> Iterator[ApiServer]:
    """For all tests of this file: each leaves it running."""
    with certificates_defined(module_api_server):
        yield module_api_server


@pytest.fixture
def own(defined: ApiServer, tmp_path: Path) -> Iterator[Place]:
    with place(defined, tmp_path) as made:
        yield made


def stop(own: Place) -> None:
    assert own.api.control_plane is not None
    own.api.control_plane.kill("kube-apiserver")


def start(own: Place) -> None:
    assert own.api.control_plane is not None
    own.api.control_plane.start_api_server()
    own.api.control_plane.wait_ready()


def test_the_api_server_away(own: Place) -> None:
    """No first certificate without it; renewals go on; what was issued meanwhile is told of afterwards."""
    with own.replica() as ca:
        pod = own.add_pod("renews")
        token, roots = own.token(pod), ca.roots
        first = ca.enrol(token)
        wait_for(lambda: "renews" in own.certificates())
        stop(own)
        with pytest.raises(Refused) as refused:
            _enrol(ca, token, roots)
        assert refused.value.status == 503
        renewed = ca.renew(first, pod_ref(pod))
        assert renewed.serial != first.serial
        assert ca.plain("/readyz")[0] == 200
        start(own)
        wait_for(lambda: own.certificates()["renews"]["spec"]["serial"] == renewed.serial)
        assert ca.enrol(token).serial


def test_it_goes_away_and_comes_back_during_issuance(own: Place) -> None:
    """Pods that ask again get there, and the objects tell of the last certificate of each."""
    with own.replica() as ca:
        pods = [own.add_pod(f"pod-{n}") for n in range(PODS)]
        tokens, roots = [own.token(pod) for pod in pods], ca.roots

        def until_issued(token: str) -> SvidMaterial:
            for _ in range(600):
                try:
                    return _enrol(ca, token, roots)
                except HeddleError as error:
                    if error.status not in (429, 503):
                        raise
                    time.sleep(0.1)
            raise AssertionError("it never got one")

        with ThreadPoolExecutor(8) as callers:
            issued = callers.map(until_issued, tokens)
            stop(own)
            start(own)
            serials = {f"pod-{n}": material.serial for n, material in enumerate(issued)}
        wait_for(lambda: _told(own) == serials)


def test_a_replica_that_is_killed_while_writing_writes_the_rest_when_it_is_back(own: Place, tmp_path: Path) -> None:
    pods = [own.add_pod(f"pod-{n}") for n in range(PODS)]
    tokens = [own.token(pod) for pod in pods]
    state = str(tmp_path / "state")
    own.api.client.delete(f"{CRDS}/{CRD}")  # so that nothing can be written
    with own.replica("heddle-ca-0", "--state", state) as ca:
        roots = ca.roots
        materials = [_enrol(ca, token, roots) for token in tokens]
        ca.kill()
    serials = {f"pod-{n}": material.serial for n, material in enumerate(materials)}
    records = {record.serial: record.state for record in Ledger(Path(state) / "ledger.sqlite3").list()}
    assert all(records[serial] == "issued" for serial in serials.values())
    define_certificates(own.api)
    assert _told(own) == {}
    with own.replica("heddle-ca-2", "--state", state):
        wait_for(lambda: _told(own) == serials)


def test_a_replica_that_ends_in_order_writes_the_rest_first(own: Place) -> None:
    pods = [own.add_pod(f"pod-{n}") for n in range(PODS)]
    with own.replica() as ca:
        roots = ca.roots
        materials = [_enrol(ca, own.token(pod), roots) for pod in pods]
        ca.process.send_signal(signal.SIGTERM)
        ca.process.wait(30)
    assert _told(own) == {f"pod-{n}": material.serial for n, material in enumerate(materials)}


def test_the_operator_asks_a_replica_for_its_own_certificates(own: Place) -> None:
    with own.replica() as ca, own.replica("heddle-ca-1") as second:
        material = ca.enrol(own.token(own.add_pod("here")))
        operator = second.operator()
        for replica, knows in ((ca, True), (second, False)):
            told = replica.request("GET", "/v1/certificates", material=operator)[1]
            assert told["replica"] == replica.name
            assert (material.serial in [entry["serial"] for entry in told["certificates"]]) is knows


def test_an_expired_token(own: Place) -> None:
    """Signed by the cluster's own key, since the API server makes none that end within ten minutes."""
    assert own.api.control_plane is not None
    key = (own.api.control_plane.directory / "service-accounts.key").read_text()
    pod = own.add_pod("late")
    good = own.token(pod)
    claims: dict[str, Any] = jwt.decode(good, options={"verify_signature": False})
    key_id = jwt.get_unverified_header(good)["kid"]
    assert claims["iss"] == ISSUER
    now = int(time.time())

    def token(**change: object) -> str:
        return jwt.encode({**claims, **change}, key, algorithm="RS256", headers={"kid": key_id})

    elsewhere = {**claims["kubernetes.io"], "node": {"name": "another-node", "uid": "1"}}
    with own.replica() as ca:
        assert ca.enrol(token(jti="again")).serial
        for change, said in (
            ({"exp": now - 60, "iat": now - 3600, "nbf": now - 3600}, "token has expired"),
            ({"nbf": now + 3600, "iat": now + 3600, "exp": now + 7200}, "not valid yet"),
            ({"iss": "https://elsewhere"}, "refuses the token"),
            ({"kubernetes.io": elsewhere}, f"runs on node {own.node}, and the token is of node another-node"),
        ):
            with pytest.raises(Refused, match=said):
                ca.enrol(token(**change))
        wait_for(lambda: ["another-node" in event["note"] for event in own.events()] == [True])


def _enrol(ca: Replica, token: str, roots: str) -> SvidMaterial:
    return fetch(ca.address, roots, new_key_request(), Token(token))


def _told(own: Place) -> dict[str, str]:
    return {name: found["spec"]["serial"] for name, found in own.certificates().items()}
