"""Starting the ca on a cluster: with a root from Istio's Secret; and the wrong way: one clear line, exit 2."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ca.rotation.documents import fingerprint
from install.apply import PASSPHRASE_SECRET
from mesh.errors import NotFound
from tests.ca.authorities import cacerts, make
from tests.ca.test_main import start
from tests.cli.run import Done, heddle
from tests.cluster.api_server import ApiServer
from tests.cluster.ca_replicas import ROOT_SECRET, Place, place


@pytest.fixture
def own(api_server: ApiServer, tmp_path: Path) -> Iterator[Place]:
    with place(api_server, tmp_path) as made:
        yield made


def refusal(own: Place, *more: str, passphrase: str = "") -> str:
    """What the ca says when it ends at once."""
    file = own.directory / "other"
    file.write_text(passphrase)
    arguments = [
        "--root-secret",
        ROOT_SECRET,
        "--root-passphrase-file",
        str(file if passphrase else own.passphrase_file),
    ]
    code, line = start(
        *arguments,
        *more,
        env={"POD_NAMESPACE": own.namespace, "POD_NAME": "x", "POD_UID": "y"},
        kubeconfig=own.kubeconfig,
    )
    assert code == 2
    return line["error"]


def put(own: Place, data: dict[str, str], name: str = ROOT_SECRET) -> None:
    path = f"/api/v1/namespaces/{own.namespace}/secrets"
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
    own.api.client.post(path, {"metadata": {"name": name}, "data": encoded})


def test_the_first_root_comes_straight_from_istios_secret(own: Place) -> None:
    ends = datetime.now(UTC) + timedelta(days=365)
    root = make("the company", ends=ends)
    files = cacerts(make("for this cluster", root, path_length=0, ends=ends), root)
    put(own, {name: content.decode() for name, content in files.items()}, "cacerts")
    where = ("-i", own.namespace, "--kubeconfig", str(own.api.kubeconfig))

    def take(secret: str, *more: str) -> Done:
        return heddle("trust", "import", "--from-secret", secret, *where, *more)

    assert "there is no Secret" in take(f"{own.namespace}/none").err
    assert "is not NAMESPACE/NAME" in take("cacerts").err
    tried = take(f"{own.namespace}/cacerts", "--dry-run")
    assert (tried.code, fingerprint(root.certificate)[:16] in tried.out) == (0, True), tried.err
    with pytest.raises(NotFound):
        own.stored()
    done = take(f"{own.namespace}/cacerts", "-y")
    assert done.code == 0, done.err
    path = f"/api/v1/namespaces/{own.namespace}/secrets/{PASSPHRASE_SECRET}"
    own.passphrase_file.write_bytes(base64.b64decode(own.api.client.get(path)["data"]["passphrase"]))
    with own.replica() as ca:
        material = ca.enrol(own.token(own.add_pod("first")))
    assert material.root == fingerprint(root.certificate)
    assert len(material.bundle.roots) == 1
    assert "PRIVATE KEY" not in own.stored()["root.pem"].replace("ENCRYPTED PRIVATE KEY", "")


@pytest.mark.parametrize("data", [{}, {"tls.crt": "x"}, {"bundle.json": "{}"}])
def test_a_secret_without_the_keys(own: Place, data: dict[str, str]) -> None:
    put(own, data)
    said = refusal(own)
    assert f"Secret {own.namespace}/{ROOT_SECRET} has no root.pem" in said
    assert "not a root that Heddle made" in said


def test_a_secret_with_other_contents(own: Place) -> None:
    put(own, {"root.pem": "hello", "bundle.json": "{}"})
    assert "root certificate (root.pem) in Secret" in refusal(own)


def test_another_passphrase_and_another_trust_domain(own: Place) -> None:
    with own.replica():
        pass
    before: Any = own.stored()
    assert "cannot be opened" in refusal(own, passphrase="it is none of yours at all")
    said = refusal(own, "--trust-domain", "example.org")
    assert f"Secret {own.namespace}/{ROOT_SECRET} holds the root of trust domain cluster.local, not example.org" in said
    assert "has 5 bytes" in refusal(own, passphrase="short")
    assert own.stored() == before


def test_without_the_rights(own: Place) -> None:
    binding = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{own.namespace}/rolebindings/heddle-ca"
    own.api.client.delete(binding)
    said = refusal(own)
    assert f"the ca may not get Secret {own.namespace}/{ROOT_SECRET}" in said
    assert f"needs a Role in {own.namespace}" in said


def test_without_a_passphrase_file(own: Place) -> None:
    code, line = start("--root-secret", ROOT_SECRET, kubeconfig=own.kubeconfig)
    assert code == 2
    assert "the passphrase of a root in a Secret comes from a file" in line["error"]
