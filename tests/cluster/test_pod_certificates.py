"""SVIDs by PodCertificateRequest, at a real API server, whose validation judges each answer."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from ca.authority import Authority
from ca.issue import Issuance
from ca.ledger import Ledger
from ca.metrics import Metrics
from ca.pod_certificates import API, BUNDLE, SIGNER, PodCertificates
from ca.pods import ask_api
from ca.settings import DAY, CaSettings
from ca.store import DirectoryStore
from kube.client import Client
from kube.source import Listed
from mesh.rbac import CA_POD_CERTIFICATES
from tests.cluster.api_server import ApiServer
from tests.cluster.ca_accounts import service_account

SETTINGS = CaSettings()


class Setting:
    """A namespace with a pod on a node (objects), and a ca that answers when it is told to."""

    def __init__(self, api: ApiServer, ca: Client, namespace: str, directory: Path) -> None:
        self.client, self.namespace = api.client, namespace
        authority = Authority(DirectoryStore(directory), lambda: b"x" * 32, SETTINGS, time.time)
        self.ledger = Ledger(None)
        issuance = Issuance(authority, self.ledger, SETTINGS, time.time)
        self.root = x509.load_pem_x509_certificate(authority.bundle.roots[0].encode())
        self.metrics = Metrics()
        self.signer = PodCertificates(
            ca, issuance, SETTINGS, ask_api(self.client), time.time, lambda: authority.bundle, self.metrics
        )
        self.node = self.client.post("/api/v1/nodes", {"metadata": {"name": f"node-{namespace}"}})
        core = f"/api/v1/namespaces/{namespace}"
        self.account = self.client.post(f"{core}/serviceaccounts", {"metadata": {"name": "reviews"}})
        spec = {
            "serviceAccountName": "reviews",
            "nodeName": self.node["metadata"]["name"],
            "containers": [{"name": "a", "image": "a"}],
        }
        self.pod = self.client.post(f"{core}/pods", {"metadata": {"name": "reviews-1"}, "spec": spec})

    @property
    def path(self) -> str:
        return f"/apis/certificates.k8s.io/v1/namespaces/{self.namespace}/podcertificaterequests"

    def ask(self, key: Any = None, **change: Any) -> dict[str, Any]:
        """What a kubelet creates."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, digest)
        spec = {
            "signerName": SIGNER,
            "podName": "reviews-1",
            "podUID": self.pod["metadata"]["uid"],
            "serviceAccountName": "reviews",
            "serviceAccountUID": self.account["metadata"]["uid"],
            "nodeName": self.node["metadata"]["name"],
            "nodeUID": self.node["metadata"]["uid"],
            "maxExpirationSeconds": DAY,
            "stubPKCS10Request": base64.b64encode(request.public_bytes(serialization.Encoding.DER)).decode(),
            **change,
        }
        made: dict[str, Any] = self.client.post(self.path, {"metadata": {"generateName": "req-"}, "spec": spec})
        return made

    def answered(self, request: dict[str, Any]) -> dict[str, Any]:
        """The status after the signer has looked."""
        self.signer.take(Listed("PodCertificateRequest", tuple(self.client.get(self.path)["items"]), 1))
        self.signer.step()
        found = self.client.get(f"{self.path}/{request['metadata']['name']}")
        status: dict[str, Any] = found.get("status") or {}
        return status


@pytest.fixture(scope="module")
def ca(api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The ca's service account with the rights of manifests/ca-pod-certificates and no others."""
    with service_account(api_server, CA_POD_CERTIFICATES, tmp_path_factory.mktemp("account")) as client:
        yield client


@pytest.fixture
def setting(api_server: ApiServer, ca: Client, tmp_path: Path) -> Iterator[Setting]:
    with api_server.namespace() as namespace:
        made = Setting(api_server, ca, namespace, tmp_path)
        yield made
        made.client.delete(f"/api/v1/nodes/{made.node['metadata']['name']}")


def test_a_pod_gets_its_svid(setting: Setting) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    status = setting.answered(setting.ask(key))
    assert [each["type"] for each in status["conditions"]] == ["Issued"]
    leaf, intermediate = x509.load_pem_x509_certificates(status["certificateChain"].encode())
    leaf.verify_directly_issued_by(intermediate)
    intermediate.verify_directly_issued_by(setting.root)
    assert leaf.public_key() == key.public_key()
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == [f"spiffe://cluster.local/ns/{setting.namespace}/sa/reviews"]
    (record,) = setting.ledger.list(valid_at=None)
    assert (record.caller, record.pod_name, record.node) == ("pod", "reviews-1", setting.node["metadata"]["name"])
    assert 'heddle_ca_certificates_issued_total{caller="pod"} 1.0' in setting.metrics.text().decode()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"unverifiedUserAnnotations": {"example.com/a": "b"}}, "InvalidUnverifiedUserAnnotations"),
        ({"podUID": "00000000-0000-0000-0000-000000000000"}, "Refused"),
        ({"podName": "another"}, "Refused"),
        ({"serviceAccountName": "default"}, "Refused"),
    ],
)
def test_what_is_refused(setting: Setting, change: dict[str, Any], reason: str) -> None:
    status = setting.answered(setting.ask(**change))
    assert [(each["type"], each["reason"]) for each in status["conditions"]] == [("Denied", reason)]
    assert setting.ledger.list(valid_at=None) == []


def test_a_key_that_envoy_cannot_use(setting: Setting) -> None:
    status = setting.answered(setting.ask(ed25519.Ed25519PrivateKey.generate()))
    (condition,) = status["conditions"]
    assert (condition["type"], condition["reason"]) == ("Denied", "UnsupportedKeyType")
    assert "use P-256, P-384, or RSA" in condition["message"]


def test_another_signers_request_is_left_alone(setting: Setting) -> None:
    assert not setting.answered(setting.ask(signerName="example.com/other")).get("conditions")


def test_the_shortest_life_that_kubernetes_knows(setting: Setting) -> None:
    status = setting.answered(setting.ask(maxExpirationSeconds=3600))
    assert [each["type"] for each in status["conditions"]] == ["Issued"]


def test_the_roots_are_a_cluster_trust_bundle(setting: Setting) -> None:
    path = f"{API}/clustertrustbundles/{BUNDLE}"
    setting.signer.publish()
    try:
        spec = setting.client.get(path)["spec"]
        assert spec["signerName"] == SIGNER
        assert x509.load_pem_x509_certificates(spec["trustBundle"].encode()) == [setting.root]
    finally:
        setting.client.delete(path)
