"""Where the trust domain's state is kept: a few named documents, read and changed as one.

`create` never overwrites and `replace` is a compare-and-swap, so any number of replicas may start or act at once: one
wins, the others read what it wrote. What the documents say is `ca.trust`'s affair. Two places: a directory (here) and a
Secret (`ca.secret_store`).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mesh.errors import Conflict, MissingPrerequisite

TRUST_FILE = "trust.json"

Documents = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Stored:
    """The documents as they were at one moment; `version` is theirs and nobody else's."""

    documents: Documents
    version: str


class Store(Protocol):
    """Methods raise MissingPrerequisite when the place cannot be used, Unavailable when it does not answer now."""

    @property
    def name(self) -> str:
        """The place, for people: `Secret istio-system/heddle-ca-root`."""

    def read(self) -> Stored | None:
        """What is there; None when nothing is."""

    def create(self, documents: Documents) -> Stored:
        """Put `documents` there unless something is there already; what is there afterwards."""

    def replace(self, documents: Documents, version: str) -> Stored:
        """Put `documents` in the place of those of `version`. Conflict when it holds others by now."""


class DirectoryStore:
    """All documents in one file, which appears and changes whole, also through crashes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / TRUST_FILE

    @property
    def name(self) -> str:
        return str(self._path)

    def read(self) -> Stored | None:
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error, "read") from None
        try:
            documents = json.loads(raw)
        except ValueError as error:
            raise MissingPrerequisite(f"{self.name} is damaged: {error}") from None
        if not isinstance(documents, dict) or not all(isinstance(text, str) for text in documents.values()):
            raise MissingPrerequisite(f"{self.name} is damaged: it is not a mapping of texts")
        return Stored(documents, hashlib.sha256(raw).hexdigest())

    def create(self, documents: Documents) -> Stored:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            create_file(self._path, _encoded(documents))
        except OSError as error:
            raise self._unusable(error, "written") from None
        return self._present()

    def replace(self, documents: Documents, version: str) -> Stored:
        try:
            with _locked(self._directory):
                if self._present().version != version:
                    raise Conflict(f"{self.name} was changed by somebody else meanwhile", hint="read it again")
                replace_file(self._path, _encoded(documents), 0o600)
        except OSError as error:
            raise self._unusable(error, "written") from None
        return self._present()

    def _present(self) -> Stored:
        stored = self.read()
        if stored is None:
            raise Conflict(f"{self.name} has been removed meanwhile")
        return stored

    def _unusable(self, error: OSError, verb: str) -> MissingPrerequisite:
        return MissingPrerequisite(
            f"the ca's state in {self._directory} cannot be {verb}: {error.strerror}",
            field="state",
            hint="name a directory on a volume that this user may write to",
        )


def create_file(path: Path, content: bytes) -> None:
    """Write `path`, mode 0600, unless it is there. It appears whole or not at all, also after a crash."""
    temporary = _written(path, content, 0o600)
    try:
        with suppress(FileExistsError):
            os.link(temporary, path)
        _sync_directory(path.parent)
    finally:
        temporary.unlink()


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Make `path` hold `content`; readers see the old or the new, whole."""
    os.replace(_written(path, content, mode), path)
    _sync_directory(path.parent)


def _encoded(documents: Documents) -> bytes:
    return json.dumps(dict(documents), indent=1).encode() + b"\n"


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Alone among the processes that change this directory. The lock ends with the process."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _written(path: Path, content: bytes, mode: int) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
