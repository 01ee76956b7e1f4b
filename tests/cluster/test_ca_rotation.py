"""A rotation that two replicas share at a real API server: one drives it, and another one when that dies. Of a
certificate that no agent tells of it knows by what the first had written down."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ca.authority import Authority
from ca.rotation.desk import Desk, RootKeys, Wish
from ca.rotation.documents import STANDBY, root_facts
from ca.rotation.state import Phase, Rotation
from ca.secret_store import SecretStore
from ca.settings import CaSettings
from ca.trust import forget_key, new_trust
from mesh.rbac import ROTATION_LEASE
from serving.operator_socket import ask
from tests.cluster.api_server import ApiServer
from tests.cluster.ca_replicas import PASSPHRASE, ROOT_SECRET, Place, Replica, certificates_defined, place
from tests.support.waiting import wait_for

NAMES = ("heddle-ca-0", "heddle-ca-1")
WINDOW = 1.0


def desk_of(own: Place) -> Desk:
    """An operator at a replica that issues nothing: any of them may be asked."""
    settings = CaSettings()
    store = SecretStore(own.api.client, own.namespace, ROOT_SECRET)
    authority = Authority(store, PASSPHRASE.encode, settings, time.time)
    passphrase = PASSPHRASE.encode()
    keys = RootKeys(
        lambda: new_trust(passphrase, settings, int(time.time())).root_pem,
        lambda root: forget_key(root, lambda: passphrase),
    )
    return Desk(authority, store, keys, 60, time.time)


def leader(own: Place) -> str:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{own.namespace}/leases/{ROTATION_LEASE}"
    return str(own.api.client.get(path)["spec"]["holderIdentity"])


def eventually(desk: Desk, holds: Callable[[Rotation], bool]) -> Rotation:
    wait_for(lambda: holds(desk.current()[1]), looks=4000)
    return desk.current()[1]


def test_a_rotation_outlives_the_replica_that_drives_it(api_server: ApiServer, tmp_path: Path) -> None:
    with certificates_defined(api_server), place(api_server, tmp_path) as own:
        sockets = {name: tmp_path / f"{name}.sock" for name in NAMES}
        replicas = {name: own.replica(name, "--operator-socket", str(sockets[name])) for name in NAMES}
        with replicas[NAMES[0]], replicas[NAMES[1]]:
            for replica in replicas.values():
                own.run(replica.pod)
            desk = desk_of(own)
            first = desk.current()[1].stays
            members = 2
            pod = own.add_pod("holds")
            held = replicas[NAMES[0]].enrol(own.token(pod))
            desk.carry_out(Wish("start", window=WINDOW), members)
            eventually(desk, lambda state: state.phase is not Phase.DISTRIBUTE)
            led = leader(own)
            assert held.root == first
            wait_for(lambda: "holds" in own.certificates())
            replicas[led].kill()
            (left,) = set(NAMES) - {led}
            stood = eventually(desk, lambda state: state.phase in (Phase.SIGN, Phase.RENEW, Phase.DRAIN))
            assert stood.running  # the dead one's pod is still there, and nobody can say what it would do
            # Another certificate does not say that the first one is out of use.
            wait_for(lambda: replicas[left].enrol(own.token(pod)).root != first)
            wait_for(lambda: len(own.certificates()["holds"]["spec"].get("earlier", ())) > 0)
            delete(own, led)
            wait_for(lambda: asked(sockets[left])["missing"] == [f"{own.workloads}/holds"], looks=4000)
            assert desk.current()[1].phase is Phase.DRAIN
            own.remove_pod("holds")
            ended = eventually(desk, lambda state: not state.running)
            assert leader(own) == left
            assert ended.stays != first
            trust = desk.current()[0]
            assert STANDBY not in trust.others
            assert [root_facts(root).fingerprint for root in trust.bundle.roots] == [ended.stays]
            assert signs(replicas[left]) == ended.stays


def asked(socket: Path) -> dict[str, Any]:
    """Who has acknowledged, by an operator's question."""
    status, body = ask("/v1/rotation", str(socket))
    assert status == 200, body
    acknowledged: dict[str, Any] = json.loads(body)["acknowledged"]
    return acknowledged


def delete(own: Place, name: str) -> None:
    path = f"/api/v1/namespaces/{own.namespace}/pods/{name}"
    own.api.client.call("DELETE", path, query={"gracePeriodSeconds": "0"})


def signs(replica: Replica) -> str:
    """The root of a certificate that the replica hands out now."""
    own = replica.place
    pod = own.add_pod("asks")
    return replica.enrol(own.token(pod)).root
