"""A root in a token: SoftHSM, a real PKCS #11 module that keeps its keys in a directory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from ca import pkcs11
from ca.authority import Authority
from ca.ledger import Ledger
from ca.revoking import Revoking, Wish
from ca.rotation import desk as desks
from ca.rotation.decide import Member
from ca.rotation.desk import Desk, RootKeys
from ca.settings import DAY, CaSettings, RootToken
from ca.store import TRUST_FILE, DirectoryStore
from ca.trust import forget_key, new_trust
from mesh.errors import MissingPrerequisite
from tests.ca.harness import ApiServer, CaProcess, TokenMint

NOW = 1_800_000_000
PIN = b"1234"


@pytest.fixture
def token(softhsm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RootToken]:
    """An empty token of this test's own, in this process."""
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path}/tokens\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm2.conf"))
    make = ["softhsm2-util", "--init-token", "--free", "--label", "heddle test", "--so-pin", "5678", "--pin", "1234"]
    subprocess.run(make, check=True, capture_output=True)
    pkcs11.forget_module()
    pkcs11.use_module(softhsm)
    yield RootToken(softhsm, "heddle test")
    pkcs11.forget_module()


def clock() -> float:
    return NOW


def authority(directory: Path, token: RootToken, pin: bytes = PIN) -> Authority:
    return Authority(DirectoryStore(directory), lambda: pin, CaSettings(root_token=token), clock)


def objects(tmp_path: Path) -> int:
    return len([each for each in (tmp_path / "tokens").rglob("*.object") if each.name != "token.object"])


def test_intermediates_are_signed_in_the_token(token: RootToken, tmp_path: Path) -> None:
    one = authority(tmp_path / "state", token)
    root = x509.load_pem_x509_certificate(one.bundle.roots[0].encode())
    root.verify_directly_issued_by(root)
    one.issuer(DAY).issuer.certificate.verify_directly_issued_by(root)
    again = authority(tmp_path / "state", token)
    assert again.bundle == one.bundle
    again.issuer(DAY).issuer.certificate.verify_directly_issued_by(root)


def test_revocation_lists_are_signed_in_the_token(token: RootToken, tmp_path: Path) -> None:
    one = authority(tmp_path / "state", token)
    store, ledger = DirectoryStore(tmp_path / "state"), Ledger(None)
    revoking = Revoking(one, store, ledger, CaSettings(root_token=token), clock)
    revoking.carry_out(Wish("revoke", serial="abcdef"), "test")
    crl = x509.load_pem_x509_crl(one.bundle.crls[0].encode())
    root = x509.load_pem_x509_certificate(one.bundle.roots[0].encode())
    assert crl.is_signature_valid(root.public_key())  # type: ignore[arg-type]
    assert [entry.serial_number for entry in crl] == [0xABCDEF]


def test_no_key_is_stored_outside(token: RootToken, tmp_path: Path) -> None:
    authority(tmp_path / "state", token)
    text = (tmp_path / "state" / TRUST_FILE).read_text()
    document = json.loads(text)["root.pem"]
    assert document.startswith("pkcs11:token=heddle%20test;object=heddle-root-")
    assert "PRIVATE KEY" not in text
    assert PIN.decode() not in document.partition("\n")[0]


def test_the_key_does_not_leave_the_token(token: RootToken) -> None:
    key, uri = pkcs11.new_key(token, PIN, "a key")
    for take in (key.private_numbers, key.private_bytes):
        with pytest.raises(TypeError, match="does not leave"):
            take()  # type: ignore[call-arg]
    assert repr(key) == f"<key in a token: {uri}>"
    import pkcs11 as package

    place = package.lib(token.module).get_token(token_label=token.label)
    with place.open(user_pin="1234") as session:
        private = session.get_key(object_class=package.ObjectClass.PRIVATE_KEY, label="a key")
        with pytest.raises(package.PKCS11Error):
            private[package.Attribute.VALUE]


def test_wrong_pin(token: RootToken, tmp_path: Path) -> None:
    authority(tmp_path / "state", token)
    with pytest.raises(MissingPrerequisite, match="is the PIN the one in the passphrase file"):
        authority(tmp_path / "state", token, b"0000")


def test_a_key_that_is_gone(token: RootToken, tmp_path: Path) -> None:
    authority(tmp_path / "state", token)
    document = json.loads((tmp_path / "state" / TRUST_FILE).read_text())["root.pem"]
    pkcs11.destroy(document.partition("\n")[0], PIN)
    with pytest.raises(MissingPrerequisite, match="cannot be reached: NoSuchKey"):
        authority(tmp_path / "state", token)


def test_another_key_under_the_same_name(token: RootToken, tmp_path: Path) -> None:
    authority(tmp_path / "state", token)
    uri = json.loads((tmp_path / "state" / TRUST_FILE).read_text())["root.pem"].partition("\n")[0]
    pkcs11.destroy(uri, PIN)
    pkcs11.new_key(token, PIN, uri.partition("object=")[2].partition(";")[0])
    with pytest.raises(MissingPrerequisite, match="not that of the certificate"):
        authority(tmp_path / "state", token)


def test_without_the_module(token: RootToken, tmp_path: Path) -> None:
    authority(tmp_path / "state", token)
    pkcs11.forget_module()
    with pytest.raises(MissingPrerequisite, match="start the ca with --root-pkcs11-module"):
        authority(tmp_path / "state", token)
    with pytest.raises(MissingPrerequisite, match=r"/nowhere\.so cannot be used"):
        pkcs11.use_module("/nowhere.so")


def test_who_comes_second_leaves_no_key_behind(token: RootToken, tmp_path: Path) -> None:
    settings = CaSettings(root_token=token)

    class Late(DirectoryStore):
        def create(self, documents: object) -> object:  # type: ignore[override]
            DirectoryStore(tmp_path / "state").create(first.documents())
            return super().create(documents)  # type: ignore[arg-type]

    first = new_trust(PIN, settings, NOW)
    before = objects(tmp_path)
    late = Authority(Late(tmp_path / "state"), lambda: PIN, settings, clock)
    assert late.bundle == first.bundle
    assert objects(tmp_path) == before


def test_a_rotation_destroys_the_old_key_in_the_token(token: RootToken, tmp_path: Path) -> None:
    store, settings = DirectoryStore(tmp_path / "state"), CaSettings(root_token=token)
    signing = authority(tmp_path / "state", token)
    keys = RootKeys(lambda: new_trust(PIN, settings, NOW).root_pem, lambda root: forget_key(root, lambda: PIN))
    desk = Desk(signing, store, keys, 60.0, clock)
    _, state = desk.carry_out(desks.Wish("start"), 1)
    assert objects(tmp_path) == 4
    while state.running:
        members = (Member("ca", state.sequence, state.order.number, state.stays, ca=True, signs=state.signs),)
        state = desk.step(lambda _state, members=members: members)  # type: ignore[misc]
    assert objects(tmp_path) == 2
    assert authority(tmp_path / "state", token).signs == state.stays


def test_the_ca_as_a_process(token: RootToken, tmp_path: Path) -> None:
    """The parent looks at the token, and so does its forked worker."""
    (tmp_path / "pin").write_bytes(PIN + b"\n")
    options = ["--root-pkcs11-module", token.module, "--root-pkcs11-token", token.label]
    with (
        ApiServer(TokenMint()) as api,
        CaProcess(tmp_path / "state", api, *options, "--root-passphrase-file", str(tmp_path / "pin")) as ca,
    ):
        assert ca.request("GET", "/v1/bundle")[1]["roots"] == [ca.roots]
    assert "pkcs11:" in (tmp_path / "state" / TRUST_FILE).read_text()


@pytest.mark.parametrize("options", [["--root-pkcs11-token", "x"], ["--root-pkcs11-module", "/x.so"]])
def test_half_of_the_options(options: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ca", "--state", str(tmp_path), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    assert "the token's label and its PIN" in done.stdout + done.stderr
