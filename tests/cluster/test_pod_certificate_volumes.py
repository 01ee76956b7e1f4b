"""SVIDs in volumes, by a real kubelet: it makes key and request, the ca as it runs answers, the pod has files."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ca.pod_certificates import BUNDLE, SIGNER
from ca.rotation.desk import Wish
from mesh.rbac import CA_POD_CERTIFICATES, access
from svid.leaf import leaf_identity
from tests.cluster.ca_replicas import Place, certificates_defined, place
from tests.cluster.cluster import Cluster
from tests.cluster.gated import RESTRICTED
from tests.cluster.images import TOOLS
from tests.cluster.test_ca_rotation import desk_of
from tests.support.waiting import wait_for

pytestmark = pytest.mark.usefixtures("cluster_is_ours")  # kubelet is restarted

BUNDLES = "/apis/certificates.k8s.io/v1/clustertrustbundles"
FILES = "/run/svid"
# Both ends in one pod, by nothing but the files: each proves itself and checks the other.
HANDSHAKE = f"""
import socket, ssl
def context(protocol):
    made = ssl.SSLContext(protocol)
    made.check_hostname, made.verify_mode = False, ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_cert_chain("{FILES}/svid.pem")
    made.load_verify_locations("{FILES}/roots.pem")
    return made
near, far = socket.socketpair()
import threading
server = context(ssl.PROTOCOL_TLS_SERVER)
threading.Thread(target=lambda: server.wrap_socket(far, server_side=True).sendall(b"hello"), daemon=True).start()
with context(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(near) as peer:
    print(peer.recv(5).decode(), peer.getpeercert()["subjectAltName"][0][1])
"""


@pytest.fixture
def own(cluster: Cluster, tmp_path: Path) -> Iterator[Place]:
    """The ca runs as it would in a pod, with the rights of manifests/ca-pod-certificates beside its own."""
    with certificates_defined(cluster), place(cluster, tmp_path) as made:
        made.give(access(CA_POD_CERTIFICATES))
        with made.replica("heddle-ca-0", "--pod-certificates"):
            yield made
        cluster.client.delete(f"{BUNDLES}/{BUNDLE}")


def pod_with_svid(name: str, key_type: str) -> dict[str, Any]:
    source = {"signerName": SIGNER, "keyType": key_type, "credentialBundlePath": "svid.pem"}
    sources = [{"podCertificate": source}, {"clusterTrustBundle": {"name": BUNDLE, "path": "roots.pem"}}]
    container = {
        "name": "main",
        "image": TOOLS,
        "command": ["sleep", "infinity"],
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "svid", "mountPath": FILES}],
    }
    volumes = [{"name": "svid", "projected": {"sources": sources}}]
    spec = {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 0}
    return {"metadata": {"name": name}, "spec": {**spec, "serviceAccountName": "reviews"}}


def leaf_in(cluster: Cluster, namespace: str, pod: str) -> x509.Certificate:
    held = cluster.execute(namespace, pod, "cat", f"{FILES}/svid.pem")
    return x509.load_pem_x509_certificates(held.encode())[0]


def roots_in(cluster: Cluster, namespace: str, pod: str) -> int:
    return len(x509.load_pem_x509_certificates(cluster.execute(namespace, pod, "cat", f"{FILES}/roots.pem").encode()))


def test_a_pod_has_its_svid_and_its_next_one(cluster: Cluster, own: Place) -> None:
    namespace = own.workloads
    cluster.client.post(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "reviews"}})
    pods = f"/api/v1/namespaces/{namespace}/pods"
    cluster.client.post(pods, pod_with_svid("reviews-1", "ECDSAP256"))
    cluster.client.post(pods, pod_with_svid("reviews-2", "ED25519"))
    pod = cluster.wait_pod(namespace, "reviews-1")
    identity = f"spiffe://cluster.local/ns/{namespace}/sa/reviews"

    def check() -> x509.Certificate:
        verify = ("openssl", "verify", "-x509_strict", "-CAfile", f"{FILES}/roots.pem", "-untrusted")
        cluster.execute(namespace, "reviews-1", *verify, f"{FILES}/svid.pem", f"{FILES}/svid.pem")
        assert cluster.execute(namespace, "reviews-1", "python3", "-c", HANDSHAKE) == f"hello {identity}\n"
        leaf = leaf_in(cluster, namespace, "reviews-1")
        assert str(leaf_identity(leaf.public_bytes(serialization.Encoding.DER))) == identity
        return leaf

    first = check()
    wait_for(lambda: "reviews-1" in own.certificates())
    told = own.certificates()["reviews-1"]["spec"]
    assert (told["caller"], told["serial"]) == ("pod", f"{first.serial_number:x}")
    assert told["node"] == pod["spec"]["nodeName"]

    # A key that Envoy could not use: the pod does not start, and its events say what to ask for.
    wait_for(lambda: "use P-256" in json.dumps(events(cluster, namespace, "reviews-2")), looks=3000)

    # A root rotation begins; and the kubelet, which keeps no keys, asks for another certificate when it comes back.
    assert roots_in(cluster, namespace, "reviews-1") == 1
    desk_of(own).carry_out(Wish("start", window=1.0), 1)
    restart_kubelet(cluster, namespace, "reviews-1")
    wait_for(lambda: leaf_in(cluster, namespace, "reviews-1") != first)
    wait_for(lambda: roots_in(cluster, namespace, "reviews-1") == 2)
    second = check()
    assert second.public_key() != first.public_key()
    (status,) = cluster.client.get(f"{pods}/reviews-1")["status"]["containerStatuses"]
    assert status["restartCount"] == 0


def events(cluster: Cluster, namespace: str, pod: str) -> list[dict[str, Any]]:
    found = cluster.client.get(f"/api/v1/namespaces/{namespace}/events")["items"]
    return [event for event in found if event["involvedObject"]["name"] == pod]


def restart_kubelet(cluster: Cluster, namespace: str, pod: str) -> None:
    assert cluster.node is not None
    assert cluster.control_plane is not None
    processes = cluster.node.processes
    processes.signal("kubelet", signal.SIGTERM)
    while processes.exit_code("kubelet") is None:
        time.sleep(0.02)
    cluster.node.start_kubelet(cluster.control_plane)
    wait_for(lambda: runs(cluster, namespace, pod))


def runs(cluster: Cluster, namespace: str, pod: str) -> bool:
    """Whether commands in the pod are carried out, which takes its kubelet."""
    try:
        cluster.execute(namespace, pod, "true")
    except AssertionError:
        return False
    return True
