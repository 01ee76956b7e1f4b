"""The record of every certificate: written before the signature, so that nothing was ever signed that is not in it.

SQLite in WAL mode. With `synchronous=NORMAL` each commit is in the operating system's hands when `record` returns: a
crash or kill of the process loses nothing. A power failure may lose the last moments, never the file
(docs/adr/0012-ledger.md). A record left as "prepared" by a crash means: the certificate may exist.
"""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from mesh.errors import MissingPrerequisite, Unavailable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS certificates (
    serial TEXT NOT NULL UNIQUE,
    identity TEXT NOT NULL,
    caller TEXT NOT NULL,
    pod_namespace TEXT NOT NULL,
    pod_name TEXT NOT NULL,
    pod_uid TEXT NOT NULL,
    node TEXT NOT NULL,
    key_kind TEXT NOT NULL,
    key_fingerprint TEXT NOT NULL,
    issuer TEXT NOT NULL,
    root TEXT NOT NULL,
    prepared_at REAL NOT NULL,
    not_before INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('prepared', 'issued', 'failed'))
) STRICT;
CREATE INDEX IF NOT EXISTS certificates_by_end ON certificates (not_after);
"""
_BUSY_MILLISECONDS = 5000


@dataclass(frozen=True, slots=True)
class Record:
    """One issuance. Times are Unix seconds, `issuer` and `root` the serials of the intermediate and of its root."""

    serial: str
    identity: str
    caller: str
    pod_namespace: str
    pod_name: str
    pod_uid: str
    node: str
    key_kind: str
    key_fingerprint: str
    issuer: str
    root: str
    prepared_at: float
    not_before: int
    not_after: int
    state: str = "prepared"


_COLUMNS = ", ".join(Record.__slots__)
_values = attrgetter(*Record.__slots__)
_INSERT = f"INSERT INTO certificates ({_COLUMNS}) VALUES ({', '.join('?' * len(Record.__slots__))})"  # noqa: S608


class Ledger:
    """Safe for many threads and more than one process. Methods raise Unavailable when the file cannot be used."""

    def __init__(self, path: Path | None) -> None:
        """`None`: in memory, gone with the process."""
        self._lock = threading.Lock()
        if path is not None:
            _make_directory(path.parent)
        with _explained:
            self._connection = sqlite3.connect(
                path or ":memory:", isolation_level=None, check_same_thread=False, timeout=_BUSY_MILLISECONDS / 1000
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_SCHEMA)

    def record(self, record: Record) -> None:
        """Write down what is about to be signed. A serial that is there already is an error (Unavailable)."""
        values = _values(record)
        with self._lock, _explained:
            self._connection.execute(_INSERT, values)

    def mark(self, serial: str, *, issued: bool) -> None:
        """Write down how it went."""
        with self._lock, _explained:
            self._connection.execute(
                "UPDATE certificates SET state = ? WHERE serial = ?", ("issued" if issued else "failed", serial)
            )

    def list(self, *, valid_at: float | None = None) -> list[Record]:
        """All records, or those not expired at `valid_at`; oldest first."""
        with self._lock, _explained:
            rows = self._connection.execute(
                f"SELECT {_COLUMNS} FROM certificates WHERE not_after >= ? ORDER BY prepared_at, serial",  # noqa: S608
                (valid_at if valid_at is not None else 0,),
            ).fetchall()
        return [Record(*row) for row in rows]

    def prune(self, expired_before: float) -> int:
        """Forget the certificates that expired before then; how many there were."""
        with self._lock, _explained:
            return self._connection.execute(
                "DELETE FROM certificates WHERE not_after < ?", (int(expired_before),)
            ).rowcount

    def close(self) -> None:
        """Fold the write-ahead log into the file."""
        with self._lock, _explained:
            self._connection.close()


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise MissingPrerequisite(
            f"the directory of the ledger, {directory}, cannot be made: {error.strerror}", field="state"
        ) from None


class _Explained:
    """Turns SQLite's errors into ours. (A class: a generator costs ten times as much, twice for each certificate.)"""

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise Unavailable(f"the ledger cannot be used, so nothing is signed: {error}") from error


_explained = _Explained()
