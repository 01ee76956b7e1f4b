"""Where a mesh keeps its roots, for who brings one: a directory of the embedded mesh, or Secrets of a cluster."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass

from ca.passphrase import passphrase_from
from ca.secret_store import SecretStore
from ca.store import DirectoryStore, Store
from cli.control_namespace import control_namespace
from cli.mesh_access import connect
from install.apply import PASSPHRASE_SECRET, make_passphrase
from kube.client import Client
from mesh.errors import MissingPrerequisite, NotFound

ROOT_SECRET = "heddle-ca-root"  # noqa: S105 (a name)


@dataclass(frozen=True, slots=True)
class RootStore:
    """`read_passphrase` gives what the roots' keys are encrypted with; `make_passphrase` makes one where none is."""

    store: Store
    read_passphrase: Callable[[], bytes]
    make_passphrase: Callable[[], None]


def of_embedded() -> RootStore:
    """That of the mesh which runs here; Unavailable when none does (each one begins with a root of its own)."""
    mesh = connect()
    mesh.get("/status")
    directory = mesh.state / "ca"
    return RootStore(
        DirectoryStore(directory),
        lambda: passphrase_from(directory / "root-passphrase", create=False),
        lambda: None,
    )


def of_cluster(client: Client, tell: Callable[[str], None]) -> RootStore:
    """That of a cluster, which may have none yet."""
    home = control_namespace(client)

    def read() -> bytes:
        path = f"/api/v1/namespaces/{home}/secrets/{PASSPHRASE_SECRET}"
        try:
            return base64.b64decode(client.get(path)["data"]["passphrase"]).strip()
        except (NotFound, KeyError):
            raise MissingPrerequisite(
                f"there is no passphrase in Secret {home}/{PASSPHRASE_SECRET}",
                hint="`heddle install` makes one",
            ) from None

    def make() -> None:
        try:
            make_passphrase(client, home, tell)
        except NotFound:
            raise MissingPrerequisite(
                f"there is no namespace {home} on {client.address}",
                hint=f"make it first: kubectl create namespace {home}",
            ) from None

    return RootStore(SecretStore(client, home, ROOT_SECRET), read, make)
