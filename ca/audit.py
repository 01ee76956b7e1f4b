"""The audit log: everything that the ca does, one line each, written before it is done.

A line is in the operating system's hands when `write` returns, as a row of the ledger is (docs/adr/0230): killing the
process loses nothing. The newest line's number and hash are kept in the ledger's file too, so that a log whose end is
missing is noticed, at the next start and by `heddle certificates verify-log`. ca/audit_chain.py has the format.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from ca.audit_chain import GAP, Anchor, hash_of, line_of
from mesh.errors import MissingPrerequisite, Unavailable

NAME = "audit.log"
MOST_BYTES = 16 << 20  # of one file, about 25,000 issuances
MOST_FILES = 16  # the oldest goes when there would be more
LOCK_SECONDS = 5.0  # for a predecessor of ours to end
_TAIL = 64 << 10  # no line is longer

log = structlog.get_logger("ca")


class AuditLog:
    """One writer for each log, safe to use from many threads. `directory` None: no file, standard output alone.

    `echo`: write each line to standard output too, so that it outlives this machine.
    """

    def __init__(
        self,
        directory: Path | None,
        now: Callable[[], float],
        *,
        echo: bool = False,
        most_bytes: int = MOST_BYTES,
        most_files: int = MOST_FILES,
    ) -> None:
        """MissingPrerequisite when the file cannot be used, or another process writes it."""
        self._path = directory / NAME if directory is not None else None
        self._now = now
        self._echo = echo
        self._most_bytes, self._most_files = most_bytes, most_files
        self._lock = threading.Lock()
        self._end = Anchor()
        self._file = -1
        self._size = 0
        if self._path is not None:
            self._open(self._path)

    @property
    def end(self) -> Anchor:
        """The newest line."""
        return self._end

    def begin(self, noted: Anchor, **fields: Any) -> Anchor:
        """Write the line of a start. `noted` is the newest line that the ledger knows of: where the log ends before it,
        or has another in its place, a line says so first."""
        if self._path is not None and not self._has(noted):
            log.error("the audit log lacks lines that were written", noted=noted.number, found=self._end.number)
            found, self._end = self._end, noted  # the chain goes on from what existed, so that it shows what is gone
            self.write(GAP, found=found.number)
        return self.write("start", **fields)

    def write(self, event: str, **fields: Any) -> Anchor:
        """Append one line; what it is in the chain. Unavailable when it cannot be written."""
        return self.write_all(event, [fields])

    def write_all(self, event: str, each: Iterable[Mapping[str, Any]]) -> Anchor:
        """Append a line with each of these fields, all of them or none; what the last is in the chain. As `write`."""
        with self._lock:
            end, at, lines = self._end, _moment(self._now()), []
            for fields in each:
                line, end = line_of(end, at, event, fields)
                lines.append(line)
            try:
                if self._path is not None:
                    self._append(self._path, b"".join(lines))
                self._end = end
                if self._echo:
                    for piece in _pieces(lines):
                        os.write(sys.stdout.fileno(), piece)
            except OSError as error:
                raise Unavailable(f"the audit log cannot be written, so nothing is signed: {error.strerror}") from error
            return end

    def close(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _append(self, path: Path, lines: bytes) -> None:
        if self._size and self._size + len(lines) > self._most_bytes:
            self._rotate(path)
        written = os.write(self._file, lines)
        if written != len(lines):  # the disk is full: half a line must not stay
            os.ftruncate(self._file, self._size)
            raise OSError(28, os.strerror(28))
        self._size += written

    def _rotate(self, path: Path) -> None:
        """The full file gets the number of its last line for a name, and a new one begins."""
        os.rename(path, path.with_name(f"audit-{self._end.number:012d}.log"))
        os.close(self._file)
        self._file, self._size = _descriptor(path), 0
        for old in files_of(path)[: -self._most_files]:
            old.unlink(missing_ok=True)

    def _open(self, path: Path) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = _descriptor(path)
            self._size = os.fstat(self._file).st_size
            lost = self._drop_half_line()
            newest = next((name for name in reversed(files_of(path)) if name.stat().st_size), None)
            last = _last_line(newest) if newest else b""
        except BlockingIOError:
            raise MissingPrerequisite(f"{path} is written by another ca", field="state") from None
        except OSError as error:
            raise MissingPrerequisite(f"the audit log {path} cannot be used: {error.strerror}", field="state") from None
        if last:
            self._end = _anchor_of(last, path)
        if lost:
            log.error("the audit log ended in half a line", bytes=len(lost))
            self.write("half-line", text=lost.decode(errors="replace"))

    def _drop_half_line(self) -> bytes:
        """What a power failure left of a line; it was not recorded, so what it was for was not done."""
        tail = os.pread(self._file, _TAIL, max(0, self._size - _TAIL))
        half = tail.rpartition(b"\n")[2]
        if half:
            self._size -= len(half)
            os.ftruncate(self._file, self._size)
        return half

    def _has(self, noted: Anchor) -> bool:
        """Whether the noted line is in the log. The ledger may be one line behind, never ahead."""
        return noted.number < self._end.number or noted == self._end


def files_of(path: Path) -> list[Path]:
    """The files of the log whose newest is `path`, in order."""
    rotated = sorted(path.parent.glob("audit-[0-9]*.log"))
    return [*rotated, path] if path.exists() else rotated


def lines_of(files: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Each line of `files` with its place, for `audit_chain.verify`."""
    for path in files:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield f"{path.name}:{number}", line.removesuffix(b"\n")


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines put together as far as a pipe takes them in one piece, so that none is torn by what others write."""
    piece = b""
    for line in lines:
        if piece and len(piece) + len(line) > select.PIPE_BUF:
            yield piece
            piece = b""
        piece += line
    if piece:
        yield piece


def _descriptor(path: Path) -> int:
    """Open for appending, alone: two writers would fork the chain."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                raise
            time.sleep(0.05)


def _last_line(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        return file.read().removesuffix(b"\n").rpartition(b"\n")[2]


def _anchor_of(line: bytes, path: Path) -> Anchor:
    number = _number(line)
    if number is None:
        raise MissingPrerequisite(
            f"the last line of {path} is not one of an audit log",
            field="state",
            hint="move the file aside, and keep it",
        )
    return Anchor(number, hash_of(line))


def _number(line: bytes) -> int | None:
    try:
        body: Mapping[str, Any] = json.loads(line)
        return int(body["n"])
    except (ValueError, KeyError, TypeError):
        return None


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
