"""Imported roots at work: tried in a handshake, kept as a document, signing; each way of having one."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ca.authority import Authority
from ca.root_document import document_of, root_of, signer_of
from ca.root_import import ImportedRoot, check_import
from ca.root_trial import try_out
from ca.rotation.documents import root_facts
from ca.settings import CaSettings
from ca.store import DirectoryStore
from ca.trust import Trust
from mesh.errors import Conflict, InvalidInput, MissingPrerequisite
from svid.material import TrustBundle
from tests.ca.authorities import NOW, Made, cacerts, make

PASSPHRASE = b"correct horse battery staple"
ENDS = NOW + timedelta(days=3650)


def alone(**change: object) -> ImportedRoot:
    root = make("root", ends=ENDS, **change)  # type: ignore[arg-type]
    return accepted({"root-cert.pem": root.pem, "ca-cert.pem": root.pem, "ca-key.pem": root.key_pem()})


def offline(root: Made | None = None, **change: object) -> ImportedRoot:
    root = root or make("root", ends=ENDS)
    return accepted(cacerts(make("between", root, path_length=0, ends=ENDS, **change), root))  # type: ignore[arg-type]


def accepted(files: dict[str, bytes]) -> ImportedRoot:
    return check_import(files, None, "cluster.local", time.time(), 0)


def two_below() -> ImportedRoot:
    root = make("root", ends=ENDS)
    upper = make("upper", root, ends=ENDS)
    return accepted(cacerts(make("low", upper, path_length=0, ends=ENDS), root, upper))


WAYS: dict[str, Callable[[], ImportedRoot]] = {
    "a root with its key": alone,
    "an RSA root": lambda: alone(own_key=rsa.generate_private_key(65537, 2048)),
    "a P-384 root": lambda: alone(own_key=ec.generate_private_key(ec.SECP384R1())),
    "an intermediate": offline,
    "an RSA intermediate": lambda: offline(own_key=rsa.generate_private_key(65537, 2048)),
    "an intermediate below another": two_below,
}


@pytest.mark.parametrize("way", WAYS)
def test_certificates_under_it_pass_and_it_survives_its_document(way: str) -> None:
    imported = WAYS[way]()
    try_out(imported, "cluster.local", time.time())
    document = document_of(imported, PASSPHRASE)
    signer = signer_of(document, PASSPHRASE, "here")
    assert (signer.root, signer.chain) == (imported.root, imported.chain)
    assert signer.key.public_key() == imported.key.public_key()
    assert "BEGIN ENCRYPTED PRIVATE KEY" in document


@pytest.mark.parametrize("way", WAYS)
def test_no_key_gets_into_a_bundle(way: str) -> None:
    document = document_of(WAYS[way](), PASSPHRASE)
    for alone_of_it in (root_of(document), root_facts(document).certificate):
        assert alone_of_it.count("-----BEGIN") == 1
        assert "PRIVATE" not in alone_of_it


def test_the_trial_notices_what_the_checks_do_not() -> None:
    """A chain whose names fit, and whose intermediate another key has signed."""
    good, other = offline(), offline(make("root", own_key=ec.generate_private_key(ec.SECP256R1()), ends=ENDS))
    mixed = ImportedRoot(good.root, other.chain, other.key)
    with pytest.raises(InvalidInput, match="a peer refuses it"):
        try_out(mixed, "cluster.local", time.time())


def test_a_wrong_passphrase_and_a_key_of_others() -> None:
    document = document_of(offline(), PASSPHRASE)
    with pytest.raises(MissingPrerequisite, match="cannot be opened"):
        signer_of(document, b"another passphrase", "here")
    stranger = document_of(alone(own_key=ec.generate_private_key(ec.SECP256R1())), PASSPHRASE)
    mixed = root_of(document) + stranger[stranger.index("-----BEGIN ENCRYPTED") :]
    with pytest.raises(MissingPrerequisite, match="is not that of the certificate"):
        signer_of(mixed, PASSPHRASE, "here")


def authority(imported: ImportedRoot, store: DirectoryStore) -> Authority:
    document = document_of(imported, PASSPHRASE)
    store.create(Trust(document, TrustBundle("cluster.local", 1, (root_of(document),))).documents())
    return Authority(store, lambda: PASSPHRASE, CaSettings(), time.time)


def test_an_offline_root_signs_by_its_intermediate(tmp_path: Path) -> None:
    imported = offline()
    signing = authority(imported, DirectoryStore(tmp_path)).issuer(3600)
    assert signing.issuer.certificate == imported.chain[0]
    assert signing.pem.count("BEGIN CERTIFICATE") == 1
    assert signing.root == f"{imported.root.serial_number:x}"


def test_another_intermediate_signs_when_asked_to_unless_it_was_imported(tmp_path: Path) -> None:
    own = authority(alone(), DirectoryStore(tmp_path / "own"))
    old, new = own.replace_issuer()
    assert old.serial != new.serial == own.issuer(3600).serial
    with pytest.raises(Conflict, match="was imported"):
        authority(offline(), DirectoryStore(tmp_path / "offline")).replace_issuer()
