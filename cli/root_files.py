"""The files of a root to import, from a directory, from single files, or from a Secret of a cluster."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

from ca.root_import import CERTIFICATE, CHAIN, KEY, ROOT, TLS_NAMES
from kube.client import Client
from mesh.errors import InvalidInput, NotFound

NAMES = (ROOT, CERTIFICATE, KEY, CHAIN, *TLS_NAMES)


def from_directory(directory: Path) -> dict[str, bytes]:
    """Those that are there, by name."""
    if not directory.is_dir():
        raise InvalidInput(f"there is no directory {directory}", field="DIRECTORY")
    found = {name: read(directory / name, name) for name in NAMES if (directory / name).is_file()}
    if not found:
        raise InvalidInput(f"{directory} has none of {', '.join(NAMES[:4])}", field="DIRECTORY")
    return found


def from_options(options: Mapping[str, str]) -> dict[str, bytes]:
    """Each file under the name that it is given for. A root that signs itself need not be named twice."""
    found = {name: read(Path(path), name) for name, path in options.items() if path}
    if found and CERTIFICATE not in found and ROOT in found:
        found[CERTIFICATE] = found[ROOT]
    return found


def from_secret(client: Client, said: str) -> dict[str, bytes]:
    """Of Secret `namespace/name`, such as istio-system/cacerts."""
    namespace, _, name = said.partition("/")
    if not namespace or not name or "/" in name:
        raise InvalidInput(
            f"{said!r} is not NAMESPACE/NAME", field="--from-secret", hint="such as istio-system/cacerts"
        )
    try:
        data = client.get(f"/api/v1/namespaces/{namespace}/secrets/{name}").get("data") or {}
    except NotFound:
        raise NotFound(f"there is no Secret {said}", field="--from-secret") from None
    return {name: base64.b64decode(data[name]) for name in NAMES if name in data}


def read(path: Path, field: str) -> bytes:
    """Its content; InvalidInput when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", field=field) from None
