"""What the tests of `heddle install` share: the command against a cluster, and what is on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from install.inventory import Inventory, read_inventories
from kube.client import Client
from mesh.errors import Conflict, HeddleError, NotFound
from tests.cli.run import Done
from tests.cli.run import heddle as command
from tests.cluster import builds, missing
from tests.cluster.api_server import ApiServer
from tests.cluster.fixtures import existing

NAMESPACE = "istio-system"


def heddle(api: ApiServer, *arguments: str) -> Done:
    """The command, whatever it ends with."""
    return command(*arguments, f"--kubeconfig={api.kubeconfig}")


def install(api: ApiServer, *arguments: str, profile: str = "minimal") -> Done:
    """Without waiting: an API server alone runs no pods."""
    ran = heddle(api, "install", "-y", "--no-wait", f"--profile={profile}", *arguments)
    assert ran.code == 0, ran.err
    return ran


def uninstall(api: ApiServer, *arguments: str) -> Done:
    ran = heddle(api, "uninstall", "-y", *arguments)
    assert ran.code == 0, ran.err
    return ran


def inventory(client: Client, revision: str = "default") -> Inventory:
    (found,) = [each for each in read_inventories(client) if each.revision == revision]
    return found


def versions(client: Client, owned: Inventory) -> dict[str, str]:
    """Each owned object's resourceVersion; "" for what is missing."""
    return {str(reference): _version(client, reference.path) for reference in sorted(owned.objects)}


def kubectl() -> list[str]:
    """The command: of the programs built for the tests, or, where the cluster is somebody else's, the one on PATH."""
    if existing() is not None:
        return [missing.program("kubectl", "kubernetes-client")]
    return [str(builds.built(builds.KUBERNETES) / "kubernetes"), "kubectl"]


def find(client: Client, path: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = client.get(path)
    except NotFound:
        return None
    return found


def _version(client: Client, path: str) -> str:
    """Of what its status does not change."""
    found = find(client, path)
    return str(found["metadata"].get("generation", found["metadata"]["resourceVersion"])) if found else ""


def gone(client: Client, path: str) -> None:
    """Conflict while it is still there."""
    if find(client, path):
        raise Conflict(f"{path} is still there")


def eventually(attempt: Callable[[], Any]) -> Any:
    """What it returns, as soon as it does: definitions and service accounts take a moment."""
    ends = time.monotonic() + 120
    while True:
        try:
            return attempt()
        except HeddleError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.1)
