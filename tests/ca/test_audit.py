"""The audit log as files: appended, rotated, found again after a start, and what is missing then."""

from __future__ import annotations

import json
import os
import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ca import audit
from ca.audit import AuditLog, files_of, lines_of
from ca.audit_chain import Anchor, Verdict, verify
from ca.ledger import Ledger, audit_end_of
from mesh.errors import MissingPrerequisite, Unavailable
from tests.ca.test_ledger import RECORD

NOW = 1_800_000_000.25


def judged(directory: Path, expected: Anchor | None = None) -> Verdict:
    return verify(lines_of(files_of(directory / audit.NAME)), expected)


def events(directory: Path) -> list[str]:
    return [json.loads(line)["event"] for _, line in lines_of(files_of(directory / audit.NAME))]


def test_a_line_says_all_of_an_issuance(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l", AuditLog(tmp_path, lambda: NOW))
    ledger.begin(replica="ca-1")
    ledger.record(RECORD)
    start, issue = (json.loads(line) for line in (tmp_path / audit.NAME).read_text().splitlines())
    assert (start["event"], start["replica"]) == ("start", "ca-1")
    assert issue.pop("previous") == audit.hash_of((tmp_path / audit.NAME).read_bytes().splitlines()[0])
    assert issue == {
        "n": 2,
        "at": "2027-01-15T08:00:00.250000Z",
        "event": "issue",
        "serial": "ab",
        "identity": "spiffe://cluster.local/ns/a/sa/b",
        "caller": "token",
        "proof": "",
        "pod": {"namespace": "a", "name": "b-1", "uid": "u", "node": "n"},
        "key": {"kind": "P-256", "sha256": "f" * 64},
        "issuer": "1",
        "root": "2",
        "notBefore": 10,
        "notAfter": 20,
    }
    assert audit_end_of(tmp_path / "l") == judged(tmp_path).end
    assert oct((tmp_path / audit.NAME).stat().st_mode & 0o777) == "0o600"


def test_goes_on_after_a_start_and_through_rotation(tmp_path: Path) -> None:
    for start in range(3):
        log = AuditLog(tmp_path, lambda: NOW, most_bytes=1000)
        for n in range(10):
            log.write("issue", serial=f"{start}-{n}")
        log.close()
    verdict = judged(tmp_path, log.end)
    assert (verdict.problem, verdict.lines, verdict.first, verdict.end) == ("", 30, 1, log.end)
    assert len(files_of(tmp_path / audit.NAME)) > 3
    assert max(path.stat().st_size for path in files_of(tmp_path / audit.NAME)) <= 1000


def test_the_oldest_files_go(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, lambda: NOW, most_bytes=500, most_files=2)
    for n in range(30):
        log.write("issue", serial=str(n))
    assert len(files_of(tmp_path / audit.NAME)) == 2
    verdict = judged(tmp_path, log.end)
    assert not verdict.problem
    assert verdict.first > 1


def test_start_on_an_empty_newest_file(tmp_path: Path) -> None:
    """As after a kill between the two steps of a rotation."""
    log = AuditLog(tmp_path, lambda: NOW)
    log.write("issue")
    log.close()
    (tmp_path / audit.NAME).rename(tmp_path / "audit-000000000001.log")
    again = AuditLog(tmp_path, lambda: NOW)
    assert again.write("issue").number == 2
    assert not judged(tmp_path).problem


def test_several_lines_together_are_a_chain_like_any_other(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, lambda: NOW, most_bytes=1000)
    for first in range(0, 12, 4):
        end = log.write_all("issue", [{"serial": str(first + n)} for n in range(4)])
        assert (end, end.number) == (log.end, first + 4)
    assert judged(tmp_path, log.end) == Verdict(12, 1, log.end)
    written = [json.loads(line)["serial"] for _, line in lines_of(files_of(tmp_path / audit.NAME))]
    assert written == [str(n) for n in range(12)]
    assert len(files_of(tmp_path / audit.NAME)) > 1


def test_several_lines_of_which_only_some_can_be_written_leave_none(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, lambda: NOW)
    before = log.write("issue", serial="0")
    size, limits = (tmp_path / audit.NAME).stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + size * 3 // 2, limits[1]))  # as on a disk that is full then
    try:
        with pytest.raises(Unavailable, match="nothing is signed"):
            log.write_all("issue", [{"serial": str(n)} for n in (1, 2)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert log.end == before
    assert (tmp_path / audit.NAME).stat().st_size == size
    log.write_all("issue", [{"serial": str(n)} for n in (3, 4)])
    assert judged(tmp_path, log.end) == Verdict(3, 1, log.end)


def test_many_threads(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l", log := AuditLog(tmp_path, lambda: NOW, most_bytes=20_000))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: ledger.audit("issue", n2=n), range(400)))
    assert judged(tmp_path, log.end).lines == 400
    assert audit_end_of(tmp_path / "l") == log.end


@pytest.mark.parametrize("keep", [0, 2])
def test_a_start_notes_what_was_cut(tmp_path: Path, keep: int) -> None:
    ledger = Ledger(tmp_path / "l", AuditLog(tmp_path, lambda: NOW))
    for n in range(4):
        ledger.audit("issue", n2=n)
    ledger.close()
    lines = (tmp_path / audit.NAME).read_bytes().splitlines(keepends=True)
    (tmp_path / audit.NAME).write_bytes(b"".join(lines[:keep]))
    again = Ledger(tmp_path / "l", AuditLog(tmp_path, lambda: NOW))
    again.begin()
    assert events(tmp_path)[keep:] == ["gap", "start"]
    said = judged(tmp_path).problem
    assert (
        "line 5 follows line 2: lines between them were removed" if keep else "lines before this one were lost"
    ) in said
    again.close()
    third = Ledger(tmp_path / "l", AuditLog(tmp_path, lambda: NOW))
    third.begin()
    assert events(tmp_path)[keep:] == ["gap", "start", "start"]


def test_half_a_line_is_dropped_and_told_of(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, lambda: NOW)
    log.write("issue")
    log.close()
    with (tmp_path / audit.NAME).open("ab") as file:
        file.write(b'{"n":2,"at')
    AuditLog(tmp_path, lambda: NOW).close()
    assert events(tmp_path) == ["issue", "half-line"]
    assert not judged(tmp_path).problem


def test_one_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "LOCK_SECONDS", 0.1)
    first = AuditLog(tmp_path, lambda: NOW)
    with pytest.raises(MissingPrerequisite, match="another ca"):
        AuditLog(tmp_path, lambda: NOW)
    first.close()
    AuditLog(tmp_path, lambda: NOW).close()


def test_a_file_that_is_no_audit_log(tmp_path: Path) -> None:
    (tmp_path / audit.NAME).write_text("hello\n")
    with pytest.raises(MissingPrerequisite, match="not one of an audit log"):
        AuditLog(tmp_path, lambda: NOW)


def test_nothing_is_recorded_that_cannot_be_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l", log := AuditLog(tmp_path, lambda: NOW))
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, log._file)
    os.close(full)
    with pytest.raises(Unavailable, match="nothing is signed"):
        ledger.record(RECORD)
    assert ledger.list() == []


def test_echo(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = AuditLog(None, lambda: NOW, echo=True)
    log.write("issue", serial="a")
    log.write_all("issue", [{"serial": "b" * 300}] * 40)
    lines = capfd.readouterr().out.encode().splitlines()
    assert verify([("", line) for line in lines], log.end).lines == 41


def test_no_line_is_torn_in_a_pipe_that_others_write_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe takes so many bytes in one piece (pipe(7)): each piece ends with a line."""
    reading, writing = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)  # keeps pieces apart
    with os.fdopen(writing, "wb", 0) as out, os.fdopen(reading, "rb", 0) as pipe:
        monkeypatch.setattr(sys, "stdout", out)
        lines = [{"serial": "x" * size} for size in (9, 3000, 900, 3000, 9)]
        AuditLog(None, lambda: NOW, echo=True).write_all("issue", lines)
        pieces = [pipe.read(1 << 16) or b"" for _ in range(3)]
    assert [piece.count(b"\n") for piece in pieces] == [2, 1, 2]
    assert all(piece.endswith(b"\n") for piece in pieces)
