"""Root and intermediate: made once, found again, replaced in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ca.authority import RETRY_SECONDS, Authority
from ca.passphrase import passphrase_from
from ca.settings import DAY, CaSettings
from ca.store import TRUST_FILE, DirectoryStore
from ca.trust import Trust, new_trust, trust_from
from mesh.errors import Conflict, InvalidInput, MissingPrerequisite, Unavailable
from svid.material import TrustBundle

SETTINGS = CaSettings()
NOW = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> float:
        return self.time


def passphrase() -> bytes:
    return b"correct horse battery staple"


def authority(directory: Path, clock: Clock | None = None, settings: CaSettings = SETTINGS) -> Authority:
    return Authority(DirectoryStore(directory), passphrase, settings, clock or Clock())


def test_makes_a_root_and_finds_it_again(tmp_path: Path) -> None:
    first, second = authority(tmp_path / "a" / "b"), authority(tmp_path / "a" / "b")
    assert first.bundle == second.bundle
    assert first.bundle.sequence == 1
    assert first.issuer(DAY).serial != second.issuer(DAY).serial
    root = x509.load_pem_x509_certificate(first.bundle.roots[0].encode())
    for each in (first, second):
        each.issuer(DAY).issuer.certificate.verify_directly_issued_by(root)


def test_files_and_their_modes(tmp_path: Path) -> None:
    authority(tmp_path / "state")
    files = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()}
    assert files == {TRUST_FILE: 0o600}
    text = json.loads((tmp_path / "state" / TRUST_FILE).read_text())["root.pem"]
    assert "BEGIN ENCRYPTED PRIVATE KEY" in text
    with pytest.raises(TypeError):
        serialization.load_pem_private_key(text.encode(), None)


def test_many_at_once_make_one_root(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from ca.trust import open_trust; "
        "from ca.settings import CaSettings; from ca.store import DirectoryStore; sys.stdin.read(); "
        "print(open_trust(DirectoryStore(Path(sys.argv[1])), lambda: b'x' * 32, CaSettings(), time.time()).bundle.pem)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "state")]
    started = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        for _ in range(4)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    outputs = [process.communicate(timeout=60)[0] for process in started]
    assert all(process.returncode == 0 for process in started)
    assert len(set(outputs)) == 1
    assert "BEGIN CERTIFICATE" in outputs[0]
    assert not list((tmp_path / "state").glob(".*"))


def test_wrong_passphrase(tmp_path: Path) -> None:
    authority(tmp_path)
    with pytest.raises(MissingPrerequisite, match="cannot be opened"):
        Authority(DirectoryStore(tmp_path), lambda: b"another passphrase", SETTINGS, Clock())


def test_another_trust_domain_in_the_directory(tmp_path: Path) -> None:
    authority(tmp_path)
    with pytest.raises(InvalidInput, match=r"cluster\.local, not other"):
        authority(tmp_path, settings=CaSettings(trust_domain="other"))


@pytest.mark.parametrize("name", ["root.pem", "bundle.json"])
@pytest.mark.parametrize("content", ["", "{}", "hello", None])
def test_damaged_state_is_one_clear_error(tmp_path: Path, name: str, content: str | None) -> None:
    authority(tmp_path)
    documents = {**json.loads((tmp_path / TRUST_FILE).read_text()), name: content}
    (tmp_path / TRUST_FILE).write_text(json.dumps({key: text for key, text in documents.items() if text is not None}))
    with pytest.raises(MissingPrerequisite, match=name):
        authority(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "hello", '{"root.pem": 1}'])
def test_damaged_file_is_one_clear_error(tmp_path: Path, content: str) -> None:
    authority(tmp_path)
    (tmp_path / TRUST_FILE).write_text(content)
    with pytest.raises(MissingPrerequisite, match=r"trust\.json is damaged"):
        authority(tmp_path)


def test_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingPrerequisite, match="cannot be read: Not a directory"):
        authority(tmp_path / "file" / "state")


def test_intermediate_is_replaced_at_half_its_life(tmp_path: Path) -> None:
    clock = Clock()
    one = authority(tmp_path, clock)
    first = one.issuer(DAY)
    clock.time += 15 * DAY - 120
    assert one.issuer(DAY) is first
    clock.time += 120
    second = one.issuer(DAY)
    assert second is not first
    assert second.issuer.not_after == int(clock.time) + SETTINGS.intermediate_ttl
    assert one.issuer(DAY) is second


def test_a_leaf_never_outlives_the_intermediate_in_use(tmp_path: Path) -> None:
    clock = Clock()
    one = authority(tmp_path, clock)
    for _ in range(100):
        clock.time += DAY
        assert one.issuer(SETTINGS.max_ttl).issuer.not_after > clock.time + SETTINGS.max_ttl


def test_clock_that_goes_back(tmp_path: Path) -> None:
    clock = Clock()
    one = authority(tmp_path, clock)
    first = one.issuer(DAY)
    clock.time -= 30
    assert one.issuer(DAY) is first
    clock.time -= 20  # still after the root's beginning, but say the intermediate was made later
    later = Clock()
    later.time = NOW + 5 * DAY
    two = authority(tmp_path, later)
    ahead = two.issuer(DAY)
    later.time = NOW
    back = two.issuer(DAY)
    assert back is not ahead
    assert back.issuer.not_before <= NOW


def test_root_at_its_end(tmp_path: Path) -> None:
    clock = Clock()
    one = authority(tmp_path, clock)
    clock.time += SETTINGS.root_ttl - 5 * DAY
    assert one.issuer(DAY).issuer.not_after == int(NOW) + SETTINGS.root_ttl
    clock.time += 6 * DAY
    with pytest.raises(Unavailable, match="has ended"):
        one.issuer(DAY)


def test_threads_get_one_new_intermediate(tmp_path: Path) -> None:
    clock = Clock()
    one = authority(tmp_path, clock)
    clock.time += 20 * DAY
    seen: list[str] = []
    threads = [threading.Thread(target=lambda: seen.append(one.issuer(DAY).serial)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len(set(seen)) == 1


def test_passphrase_files(tmp_path: Path) -> None:
    made = passphrase_from(tmp_path / "p", create=True)
    assert len(made) >= 32
    assert passphrase_from(tmp_path / "p", create=True) == made
    assert os.stat(tmp_path / "p").st_mode & 0o777 == 0o600
    with pytest.raises(MissingPrerequisite, match="cannot be read"):
        passphrase_from(tmp_path / "missing", create=False)
    (tmp_path / "short").write_text("hunter2\n")
    with pytest.raises(InvalidInput, match="7 bytes"):
        passphrase_from(tmp_path / "short", create=True)


def test_an_intermediate_serves_on_when_no_new_one_can_be_made(tmp_path: Path) -> None:
    clock, secret = Clock(), [b"correct horse battery staple"]
    one = Authority(DirectoryStore(tmp_path), lambda: secret[0], SETTINGS, clock)
    first = one.issuer(DAY)
    secret[0] = b"it has been replaced by mistake"
    clock.time += 16 * DAY
    assert one.issuer(DAY) is first
    secret[0] = b"correct horse battery staple"
    assert one.issuer(DAY) is first  # it was tried a moment ago
    clock.time += RETRY_SECONDS + 1
    second = one.issuer(DAY)
    assert second is not first
    secret[0] = b"it has been replaced by mistake"
    clock.time += 30 * DAY
    with pytest.raises(MissingPrerequisite, match="cannot be opened"):
        one.issuer(DAY)


def test_takes_up_what_another_replica_stored(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    one = authority(tmp_path)
    told: list[TrustBundle] = []
    one.on_bundle(told.append)
    one.refresh()
    before = one.issuer(DAY)
    stored = store.read()
    assert stored is not None
    old = trust_from(stored, "", "cluster.local")
    new = new_trust(passphrase(), SETTINGS, int(NOW))
    both = TrustBundle("cluster.local", 2, (*old.bundle.roots, *new.bundle.roots))
    stored = store.replace(replace(old, bundle=both).documents(), stored.version)
    one.refresh()
    assert told == [both]
    assert one.bundle == both
    assert one.issuer(DAY) is before  # the root that signs is the same
    store.replace(Trust(new.root_pem, both).documents(), stored.version)
    one.refresh()
    assert told == [both]
    assert one.issuer(DAY).root != before.root
    one.issuer(DAY).issuer.certificate.verify_directly_issued_by(
        x509.load_pem_x509_certificate(new.bundle.roots[0].encode())
    )


def test_a_root_that_was_removed_is_put_back(tmp_path: Path) -> None:
    one = authority(tmp_path)
    (tmp_path / TRUST_FILE).unlink()
    one.refresh()
    assert authority(tmp_path).bundle == one.bundle


def test_a_root_that_cannot_be_opened_changes_nothing(tmp_path: Path) -> None:
    store, one = DirectoryStore(tmp_path), authority(tmp_path)
    before, stored = (one.bundle, one.issuer(DAY)), store.read()
    assert stored is not None
    foreign = new_trust(b"the passphrase of somebody else", SETTINGS, int(NOW))
    later = TrustBundle("cluster.local", 2, foreign.bundle.roots)
    store.replace(Trust(foreign.root_pem, later).documents(), stored.version)
    with pytest.raises(MissingPrerequisite, match="cannot be opened"):
        one.refresh()
    assert (one.bundle, one.issuer(DAY)) == before


def test_an_unrelated_root_is_not_taken_up(tmp_path: Path) -> None:
    """Made by a replica that found nothing, say: nobody who trusts the old root would trust what it signs."""
    store, one = DirectoryStore(tmp_path), authority(tmp_path)
    before, stored = (one.bundle, one.issuer(DAY)), store.read()
    assert stored is not None
    store.replace(new_trust(passphrase(), SETTINGS, int(NOW)).documents(), stored.version)
    with pytest.raises(Conflict, match="another bundle that is not later than ours"):
        one.refresh()
    assert (one.bundle, one.issuer(DAY)) == before
