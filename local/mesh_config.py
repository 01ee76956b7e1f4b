"""The mesh's settings (`meshConfig`, ConfigMap `istio` of the control namespace) for others than discovery.

Processes are started with the trust domain, so it is read from the manifests beforehand. The ca has the settings as a
file, which on a cluster is the mounted ConfigMap, and follows its changes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import structlog

from local.manifests import at
from local.reload import manifest_files
from local.store import Store
from mesh.errors import HeddleError
from mesh.identity import CONTROL_NAMESPACE, DEFAULT_TRUST_DOMAIN
from mesh.manifest import Document, read_manifest
from mesh.objects import Key
from mesh.settings import parse_mesh_settings

SETTINGS = Key(CONTROL_NAMESPACE, "istio")
FIELD = "mesh"
LOOK_SECONDS = 1.0
log = structlog.get_logger("heddle.local")


def file_of(state: Path) -> Path:
    """Where the ca finds the settings."""
    return state / "mesh-config.yaml"


def trust_domain_in(paths: Sequence[Path]) -> str:
    """What the manifests in `paths` say, the default where they say nothing that can be read.

    Raises what `manifest_files` does.
    """
    for document in _documents(paths):
        if at(document) == ("ConfigMap", SETTINGS):
            return trust_domain_of(str((document.raw.get("data") or {}).get(FIELD, "")))
    return DEFAULT_TRUST_DOMAIN


def trust_domain_of(text: str) -> str:
    """Of settings as YAML; the default where they are wrong, as discovery then has it."""
    try:
        return parse_mesh_settings(text).trust_domain
    except HeddleError:
        return DEFAULT_TRUST_DOMAIN


def _documents(paths: Sequence[Path]) -> Iterator[Document]:
    for file in manifest_files(paths):
        try:
            yield from read_manifest(file.read_text("utf-8"), str(file)).documents
        except (OSError, UnicodeDecodeError):  # said when the manifests are loaded
            continue


class MeshConfig:
    """Keeps the file as the ConfigMap in `store` says. `say` tells the person of what takes a restart."""

    def __init__(self, store: Store, state: Path, trust_domain: str, say: Callable[[str], None]) -> None:
        self._store, self._file = store, file_of(state)
        self._started_with, self._say = trust_domain, say
        self._text = ""
        self._told = trust_domain

    def start(self, ending: threading.Event) -> None:
        """Until `ending`, in a thread."""

        def follow() -> None:
            seen = 0
            while not ending.is_set():
                try:
                    self.look()
                except OSError as error:  # such as a full disk; it is written with the next change, or the next look
                    log.warning("the mesh's settings are not written for the ca", error=str(error))
                seen = self._store.wait_newer(seen, LOOK_SECONDS)

        threading.Thread(target=follow, name="mesh-config", daemon=True).start()

    def look(self) -> None:
        """Write what is there now, if it is something else."""
        found = self._store.get("ConfigMap", SETTINGS) or {}
        text = str((found.get("data") or {}).get(FIELD, ""))
        if text == self._text:
            return
        fresh = self._file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self._file)
        self._text = text
        domain = trust_domain_of(text)
        if domain != self._told and domain != self._started_with:
            self._say(f"trustDomain is {domain} now, and this mesh runs as {self._started_with}: start it again")
        self._told = domain
