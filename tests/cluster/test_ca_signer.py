"""Intermediates through the Kubernetes CSR API: a real API server, and a test's signer that approves and signs."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ca.authority import RETRY_SECONDS, Authority
from ca.kubernetes_signer import PATH, KubernetesSigner
from ca.profile import root_certificate
from ca.settings import DAY, CaSettings
from ca.store import DirectoryStore
from ca.trust import new_serial
from kube.client import Client
from mesh.errors import HeddleError, MissingPrerequisite, Unavailable
from mesh.rbac import CA_SIGNER
from tests.ca.harness import RunningCa
from tests.ca.test_main import start
from tests.cluster.api_server import ApiServer
from tests.cluster.ca_accounts import service_account
from tests.support.waiting import wait_for

SIGNER = "heddle.test/mesh-root"
SETTINGS = CaSettings()
PEM = serialization.Encoding.PEM


class Root:
    """Who holds the root, and answers requests as an administrator."""

    def __init__(self, api: ApiServer, now: int) -> None:
        self._client, self._now = api.client, now
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = root_certificate(self._key, "cluster.local", new_serial(), now - 60, now + 3650 * DAY)
        self.pem = self.certificate.public_bytes(PEM).decode()

    def pending(self) -> list[str]:
        found = self._client.get(PATH)["items"]
        ours = [each for each in found if each["spec"]["signerName"] == SIGNER and not each.get("status")]
        return [each["metadata"]["name"] for each in ours]

    def decide(self, name: str, kind: str = "Approved") -> None:
        request = self._client.get(f"{PATH}/{name}")
        condition = {"type": kind, "status": "True", "reason": "Test", "message": "by the test"}
        request["status"] = {"conditions": [condition]}
        self._client.put(f"{PATH}/{name}/approval", request)

    def sign(self, name: str, *, ca: bool = True, days: int = 30, copy: bool = True, by: Root | None = None) -> None:
        request = self._client.get(f"{PATH}/{name}")
        csr = x509.load_pem_x509_csr(base64.b64decode(request["spec"]["request"]))
        signer = by or self
        start = datetime.fromtimestamp(self._now - 60, UTC)
        builder = x509.CertificateBuilder(signer.certificate.subject, csr.subject, csr.public_key(), new_serial())
        builder = builder.not_valid_before(start).not_valid_after(start + timedelta(days=days))
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(csr.public_key()), critical=False)
        above = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer._key.public_key())
        builder = builder.add_extension(above, critical=False)
        for extension in csr.extensions if copy else ():
            value: Any = extension.value
            if isinstance(value, x509.BasicConstraints) and not ca:
                value = x509.BasicConstraints(ca=False, path_length=None)
            builder = builder.add_extension(value, critical=extension.critical)
        chain = builder.sign(signer._key, hashes.SHA256()).public_bytes(PEM)
        request["status"]["certificate"] = base64.b64encode(chain).decode()
        self._client.put(f"{PATH}/{name}/status", request)


class Clock:
    def __init__(self) -> None:
        self.time = datetime.now(UTC).timestamp()

    def __call__(self) -> float:
        return self.time


@pytest.fixture(scope="module")
def account(api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The ca's service account, with the rights of manifests/ca-signer and no others."""
    with service_account(api_server, CA_SIGNER, tmp_path_factory.mktemp("account")) as client:
        yield client


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def root(api_server: ApiServer, clock: Clock) -> Iterator[Root]:
    holder = Root(api_server, int(clock.time))
    yield holder
    for name in holder.pending():
        api_server.client.delete(f"{PATH}/{name}")


@pytest.fixture
def signer(account: Client, root: Root, clock: Clock) -> KubernetesSigner:
    return KubernetesSigner(account, SIGNER, root.pem, SETTINGS, clock, replica="heddle-ca-0")


def asked(signer: KubernetesSigner, root: Root) -> str:
    """The name of the request that is waiting now."""
    waits = r"waits for its approval \(kubectl certificate approve heddle-ca-heddle-ca-0-"
    with pytest.raises(Unavailable, match=waits):
        signer.intermediate()
    (name,) = root.pending()
    return name


def test_from_the_request_to_the_intermediate(signer: KubernetesSigner, root: Root) -> None:
    name = asked(signer, root)
    assert asked(signer, root) == name  # the same one, however often one looks
    root.decide(name)
    with pytest.raises(Unavailable, match=f"approved, and not signed yet .does the signer {SIGNER} run"):
        signer.intermediate()
    root.sign(name)
    signed = signer.intermediate()
    signed.chain[0].verify_directly_issued_by(root.certificate)
    assert signed.chain[0].public_key() == signed.key.public_key()
    assert signed.chain[0].extensions.get_extension_for_class(x509.NameConstraints).critical
    assert asked(signer, root) != name


def test_what_was_denied_is_asked_for_again(signer: KubernetesSigner, root: Root) -> None:
    name = asked(signer, root)
    root.decide(name, "Denied")
    with pytest.raises(Unavailable, match="denied: by the test"):
        signer.intermediate()
    assert asked(signer, root) != name


def test_what_was_removed_is_asked_for_again(signer: KubernetesSigner, root: Root, api_server: ApiServer) -> None:
    name = asked(signer, root)
    api_server.client.delete(f"{PATH}/{name}")
    with pytest.raises(Unavailable, match="was removed"):
        signer.intermediate()
    assert asked(signer, root) != name


@pytest.mark.parametrize(
    ("how", "says"), [({"ca": False}, "CA:TRUE"), ({"days": 1}, "end"), ({"copy": False}, "basicConstraints")]
)
def test_what_cannot_be_used_is_not(signer: KubernetesSigner, root: Root, how: dict[str, Any], says: str) -> None:
    name = asked(signer, root)
    root.decide(name)
    root.sign(name, **how)
    with pytest.raises(Unavailable, match=f"what {SIGNER} signed for .*{name} cannot be used: .*{says}"):
        signer.intermediate()


def test_an_intermediate_of_another_root_is_not_used(
    signer: KubernetesSigner, root: Root, api_server: ApiServer, clock: Clock
) -> None:
    name = asked(signer, root)
    root.decide(name)
    root.sign(name, by=Root(api_server, int(clock.time)))
    with pytest.raises(Unavailable, match=r"cannot be used: its issuer, .*, is neither in"):
        signer.intermediate()


def test_the_authority_goes_on_while_it_waits(
    signer: KubernetesSigner, root: Root, tmp_path: Path, clock: Clock
) -> None:
    def authority() -> Authority:
        return Authority(DirectoryStore(tmp_path), lambda: b"", SETTINGS, clock, signer)

    with pytest.raises(Unavailable, match="waits for its approval"):
        authority()
    (name,) = root.pending()
    root.decide(name)
    root.sign(name)
    one = authority()
    first = one.issuer(DAY)
    assert one.bundle.roots == (root.pem,)
    assert "PRIVATE KEY" not in (tmp_path / "trust.json").read_text()
    clock.time += 16 * DAY
    assert one.issuer(DAY) is first
    (name,) = root.pending()
    root.decide(name)
    root.sign(name, days=60)
    clock.time += RETRY_SECONDS + 1
    second = one.issuer(DAY)
    assert second is not first
    second.issuer.certificate.verify_directly_issued_by(root.certificate)


def test_roots_that_changed_are_a_later_bundle(
    account: Client, root: Root, api_server: ApiServer, tmp_path: Path, clock: Clock
) -> None:
    other = Root(api_server, int(clock.time))
    store = DirectoryStore(tmp_path)
    for roots, sequence in ((root.pem, 1), (root.pem, 1), (root.pem + other.pem, 2)):
        signer = KubernetesSigner(account, SIGNER, roots, SETTINGS, clock)
        with pytest.raises(HeddleError):
            Authority(store, lambda: b"", SETTINGS, clock, signer)
        stored = store.read()
        assert stored is not None
        assert json.loads(stored.documents["bundle.json"])["sequence"] == sequence


def test_a_place_that_has_a_key(account: Client, root: Root, tmp_path: Path, clock: Clock) -> None:
    Authority(DirectoryStore(tmp_path), lambda: b"x" * 32, SETTINGS, clock)
    with pytest.raises(MissingPrerequisite, match="holds a root with its key"):
        Authority(
            DirectoryStore(tmp_path),
            lambda: b"",
            SETTINGS,
            clock,
            KubernetesSigner(account, SIGNER, root.pem, SETTINGS, clock),
        )


def test_the_ca_as_a_process(api_server: ApiServer, root: Root, tmp_path: Path, clock: Clock) -> None:
    """It waits, says for whom, and serves once the intermediate is there, which its worker inherits."""
    api = api_server
    (tmp_path / "roots.pem").write_text(root.pem)
    arguments = ["--state", str(tmp_path / "state"), "--intermediate-signer", SIGNER]
    arguments += ["--roots-file", str(tmp_path / "roots.pem")]
    log = tmp_path / "ca.log"

    def answer() -> None:
        wait_for(lambda: bool(root.pending()))
        (name,) = root.pending()
        wait_for(lambda: f"{name} waits for its approval" in log.read_text())
        root.decide(name)
        root.sign(name)

    answering = threading.Thread(target=answer)
    answering.start()
    with Ca(log, *arguments, env={"KUBECONFIG": str(api.kubeconfig)}) as ca:
        answering.join()
        assert ca.request("GET", "/v1/bundle")[1]["roots"] == [root.pem]
    assert "PRIVATE KEY" not in (tmp_path / "state" / "trust.json").read_text()
    assert root.pending() == []


class Ca(RunningCa):
    """With a root that is elsewhere."""

    @property
    def roots(self) -> str:
        return self.log.with_name("roots.pem").read_text()


def test_half_of_the_options(tmp_path: Path) -> None:
    code, line = start("--state", str(tmp_path), "--intermediate-signer", SIGNER)
    assert code == 2
    assert "name --intermediate-signer and --roots-file" in line["error"]
