"""Root and intermediate: made once, found again, replaced in time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ca.authority import Authority, load_bundle, passphrase_from
from ca.settings import DAY, CaSettings
from mesh.errors import InvalidInput, MissingPrerequisite, Unavailable

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
    return Authority(directory, passphrase, settings, clock or Clock())


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
    assert files == {"root.pem": 0o600, "bundle.json": 0o600, "roots.pem": 0o644}
    text = (tmp_path / "state" / "root.pem").read_text()
    assert "BEGIN ENCRYPTED PRIVATE KEY" in text
    with pytest.raises(TypeError):
        serialization.load_pem_private_key(text.encode(), None)
    assert (tmp_path / "state" / "roots.pem").read_text() == load_bundle(tmp_path / "state").pem


def test_many_at_once_make_one_root(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from ca.authority import make_root; "
        "from ca.settings import CaSettings; "
        "sys.stdin.read(); make_root(Path(sys.argv[1]), lambda: b'x' * 32, CaSettings(), time.time());"
        "print(Path(sys.argv[1], 'roots.pem').read_text())"
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
        Authority(tmp_path, lambda: b"another passphrase", SETTINGS, Clock())


def test_another_trust_domain_in_the_directory(tmp_path: Path) -> None:
    authority(tmp_path)
    with pytest.raises(InvalidInput, match=r"cluster\.local, not other"):
        authority(tmp_path, settings=CaSettings(trust_domain="other"))


@pytest.mark.parametrize("name", ["root.pem", "bundle.json"])
@pytest.mark.parametrize("content", ["", "{}", "hello"])
def test_damaged_state_is_one_clear_error(tmp_path: Path, name: str, content: str) -> None:
    authority(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(MissingPrerequisite, match=name):
        authority(tmp_path)


def test_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingPrerequisite, match="cannot be written"):
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
