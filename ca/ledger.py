"""The record of every certificate: written before the signature, so that nothing was ever signed that is not in it.

Two books: a table to look things up in, and beside it the audit log (ca/audit.py), whose newest line the table's file
names, so that a log that was cut is noticed.

SQLite in WAL mode. With `synchronous=NORMAL` each commit is in the operating system's hands when `record` returns: a
crash or kill of the process loses nothing. A power failure may lose the last moments, never the file
(docs/adr/0012-ledger.md). A record left as "prepared" by a crash means: the certificate may exist.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from ca.audit import AuditLog
from ca.audit_chain import Anchor
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
    proof TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL CHECK (state IN ('prepared', 'issued', 'failed'))
) STRICT;
CREATE INDEX IF NOT EXISTS certificates_by_end ON certificates (not_after);
CREATE TABLE IF NOT EXISTS audit_end (line INTEGER NOT NULL, hash TEXT NOT NULL) STRICT;
INSERT INTO audit_end SELECT 0, '' WHERE NOT EXISTS (SELECT 1 FROM audit_end);
"""
_ADDED = {"proof": "TEXT NOT NULL DEFAULT ''"}  # columns that a table of an earlier version lacks
LEDGER = "ledger.sqlite3"
_BUSY_MILLISECONDS = 5000


@dataclass(frozen=True, slots=True)
class Record:
    """One issuance. Times are Unix seconds, `issuer` and `root` the serials of the intermediate and of its root.

    `caller` is the kind of credential ("token", "certificate", "pod", "self"), `proof` which one: the id of the token
    (its `jti`), the serial of the certificate. Never the credential itself.
    """

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
    proof: str = ""
    state: str = "prepared"


_COLUMNS = ", ".join(Record.__slots__)
_values = attrgetter(*Record.__slots__)
_INSERT = f"INSERT INTO certificates ({_COLUMNS}) VALUES ({', '.join('?' * len(Record.__slots__))})"  # noqa: S608
_MARK = "UPDATE certificates SET state = ? WHERE serial = ?"
_NOTE = "UPDATE audit_end SET line = ?, hash = ? WHERE line < ?"  # threads may come in another order than their lines


class Ledger:
    """Safe for many threads and more than one process. Methods raise Unavailable when the file cannot be used."""

    def __init__(self, path: Path | None, audit: AuditLog | None = None) -> None:
        """`None`: in memory, gone with the process. `audit` is written too."""
        self._lock = threading.Lock()
        self._audit = audit
        if path is not None:
            _make_directory(path.parent)
        with _explained:
            self._connection = sqlite3.connect(
                path or ":memory:", isolation_level=None, check_same_thread=False, timeout=_BUSY_MILLISECONDS / 1000
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_SCHEMA)
            there = {row[1] for row in self._connection.execute("PRAGMA table_info(certificates)")}
            for column, kind in _ADDED.items():
                if column not in there:
                    self._connection.execute(f"ALTER TABLE certificates ADD COLUMN {column} {kind}")
        self._transaction = _Transaction(self._connection)

    def begin(self, **fields: object) -> None:
        """Write the start of this process into the audit log, and what is missing at its end."""
        if self._audit is not None:
            self._note(self._audit.begin(self.audit_end, **fields))

    def record(self, *records: Record) -> None:
        """Write down what is about to be signed, all or nothing: together costs little more than one (docs/adr/0246).

        A serial that is there already is an error (Unavailable)."""
        end = self._audit.write_all("issue", map(_line, records)) if self._audit is not None else None
        with self._lock, _explained, self._transaction:
            self._connection.executemany(_INSERT, map(_values, records))
            if end is not None:
                self._connection.execute(_NOTE, (end.number, end.hash, end.number))

    def audit(self, event: str, **fields: object) -> None:
        """Write something else than an issuance into the audit log. Unavailable when it cannot be written."""
        if self._audit is not None:
            self._note(self._audit.write(event, **fields))

    @property
    def audit_end(self) -> Anchor:
        """The newest line of the audit log that this file knows of."""
        with self._lock, _explained:
            number, digest = self._connection.execute("SELECT line, hash FROM audit_end").fetchone()
        return Anchor(number, digest) if number else Anchor()

    def _note(self, end: Anchor) -> None:
        with self._lock, _explained:
            self._connection.execute(_NOTE, (end.number, end.hash, end.number))

    def mark(self, *serials: str, issued: bool) -> None:
        """Write down how it went."""
        if not issued:
            for serial in serials:
                self.audit("failed", serial=serial)
        state = "issued" if issued else "failed"
        with self._lock, _explained, self._transaction:
            self._connection.executemany(_MARK, [(state, serial) for serial in serials])

    def list(self, *, valid_at: float | None = None) -> list[Record]:
        """All records, or those not expired at `valid_at`; oldest first."""
        with self._lock, _explained:
            rows = self._connection.execute(
                f"SELECT {_COLUMNS} FROM certificates WHERE not_after >= ? ORDER BY prepared_at, serial",  # noqa: S608
                (valid_at if valid_at is not None else 0,),
            ).fetchall()
        return [Record(*row) for row in rows]

    def serials(self, valid_at: float, *, identity: str = "", pod: str = "", serial: str = "") -> dict[str, int]:
        """The certificates of an identity, of a pod (`namespace/name`) or of that serial that may exist and have not
        expired: serial -> end (Unix seconds)."""
        with self._lock, _explained:
            rows = self._connection.execute(
                "SELECT serial, not_after FROM certificates WHERE not_after >= ? AND state <> 'failed' "
                "AND (identity = ? OR pod_namespace || '/' || pod_name = ? OR serial = ?) ORDER BY prepared_at",
                (valid_at, identity, pod, serial),
            ).fetchall()
        return dict(rows)

    def keys(self, serials: Iterable[str]) -> frozenset[str]:
        """The fingerprints of the keys in those of the certificates that are here."""
        with self._lock, _explained:
            rows = [
                self._connection.execute(
                    "SELECT key_fingerprint FROM certificates WHERE serial = ?", (serial,)
                ).fetchone()
                for serial in serials
            ]
        return frozenset(row[0] for row in rows if row)

    def prune(self, expired_before: float) -> int:
        """Forget the certificates that expired before then; how many there were."""
        with self._lock, _explained:
            return self._connection.execute(
                "DELETE FROM certificates WHERE not_after < ?", (int(expired_before),)
            ).rowcount

    def close(self) -> None:
        """Fold the write-ahead log into the file, and end the audit log."""
        if self._audit is not None:
            self._audit.close()
        with self._lock, _explained:
            self._connection.close()


def _line(record: Record) -> dict[str, object]:
    """An issuance as the audit log tells of it."""
    pod = {"namespace": record.pod_namespace, "name": record.pod_name, "uid": record.pod_uid, "node": record.node}
    return {
        "serial": record.serial,
        "identity": record.identity,
        "caller": record.caller,
        "proof": record.proof,
        "pod": pod if record.pod_name else None,
        "key": {"kind": record.key_kind, "sha256": record.key_fingerprint},
        "issuer": record.issuer,
        "root": record.root,
        "notBefore": record.not_before,
        "notAfter": record.not_after,
    }


def audit_end_of(path: Path) -> Anchor:
    """The newest line of the audit log that the ledger in `path` knows of; the ledger is not changed."""
    with _explained:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            row = connection.execute("SELECT line, hash FROM audit_end").fetchone()
        finally:
            connection.close()
    return Anchor(*row) if row and row[0] else Anchor()


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise MissingPrerequisite(
            f"the directory of the ledger, {directory}, cannot be made: {error.strerror}", field="state"
        ) from None


class _Transaction:
    """All that is done within it, or nothing. It has the database for itself from the start (`IMMEDIATE`)."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, _error: BaseException | None, _trace: object) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


class _Explained:
    """Turns SQLite's errors into ours. (A class: a generator costs ten times as much, twice for each order.)"""

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise Unavailable(f"the ledger cannot be used, so nothing is signed: {error}") from error


_explained = _Explained()
