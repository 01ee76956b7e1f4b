"""The passphrase of the root key, from a file."""

from __future__ import annotations

import secrets
from pathlib import Path

from ca.store import create_file
from mesh.errors import InvalidInput, MissingPrerequisite

LEAST_BYTES = 16
LEAST_OF_PIN = 4  # a token counts the attempts


def passphrase_from(path: Path, *, create: bool, least: int = LEAST_BYTES) -> bytes:
    """The passphrase in `path`, of at least `least` bytes.

    With `create`, a random one is put there (mode 0600) if there is no such file.
    """
    try:
        if create and not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            create_file(path, secrets.token_urlsafe(32).encode() + b"\n")
        passphrase = path.read_bytes().strip()
    except OSError as error:
        raise MissingPrerequisite(
            f"the root key's passphrase cannot be read from {path}: {error.strerror}", field="rootPassphraseFile"
        ) from None
    if len(passphrase) < least:
        raise InvalidInput(
            f"the passphrase in {path} has {len(passphrase)} bytes",
            field="rootPassphraseFile",
            hint=f"use at least {least}, such as `openssl rand -base64 32` writes",
        )
    return passphrase
