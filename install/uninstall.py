"""Taking an installation away: what its inventory lists, in the reverse of the order in which it was applied.

What holds users' data stays unless purged: the definitions (with every VirtualService in them), the namespace, the root
and its passphrase. What was there before Heddle stays always.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from install.apply import PASSPHRASE_SECRET, ROOTS, remove
from install.inventory import Inventory, no_longer_owned, read_inventories, remove_inventory
from install.names import REVISION_LABEL
from install.render import OWNER_LABEL
from install.resources import CONFIG_MAP, CRD, MUTATING, NAMESPACE, POD, RESOURCES, SECRET, VALIDATING, Reference
from install.tags import TAG_LABEL
from kube.client import Client
from mesh.errors import NotFound
from mesh.identity import CONTROL_NAMESPACE
from mesh.objects import SIDECAR_STATUS_ANNOTATION

ROOT_SECRET = "heddle-ca-root"  # noqa: S105 (a name)
_KEPT = (CRD.kind, NAMESPACE.kind)
_RIGHTS = ("ClusterRoleBinding", "RoleBinding", "ClusterRole", "Role", "ServiceAccount")
_LAST = (*_RIGHTS, ROOTS, CRD.kind, NAMESPACE.kind)
"""Rights go after what uses them; then the roots, which a ca that still ends would put back; definitions and namespace
last of all."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What will be removed, in this order, and what stays although the installation had it."""

    inventory: Inventory | None
    objects: tuple[Reference, ...]
    kept: tuple[Reference, ...]


def plan_removal(client: Client, revision: str, *, purge: bool) -> Removal:
    """`purge` removes what holds data too, unless another revision uses it. Without an inventory, labels tell."""
    inventories = read_inventories(client)
    inventory = next((each for each in inventories if each.revision == revision), None)
    others = [each for each in inventories if each is not inventory]
    if inventory is None:
        found = set(_labelled(client, revision, shared=not others))
    else:
        found = set(no_longer_owned(inventory, (), others))
    found |= set(_tags(client, revision))
    homes = [reference.name for reference in found if reference.kind == NAMESPACE.kind]
    namespace = inventory.namespace if inventory else next(iter(homes), CONTROL_NAMESPACE)
    if purge and not others:
        found |= {Reference("", SECRET.kind, namespace, name) for name in (ROOT_SECRET, PASSPHRASE_SECRET)}
        found |= set(_root_maps(client))
    kept = {reference for reference in found if not purge and reference.kind in _KEPT}
    return Removal(inventory, tuple(_ordered(found - kept)), tuple(sorted(kept)))


def uninstall(client: Client, removal: Removal, tell: Callable[[str], None]) -> None:
    """Do it. The webhook configurations go first, so that nothing waits for a webhook that has gone."""
    removed: dict[str, int] = {}
    for reference in removal.objects:
        if remove(client, reference):
            removed[reference.kind] = removed.get(reference.kind, 0) + 1
    if removal.inventory is not None:
        remove_inventory(client, removal.inventory)
    for kind, count in removed.items():
        tell(f"✔ {count} {kind} removed")


def injected_pods(client: Client) -> dict[str, int]:
    """Namespace -> pods, but for those that end, that have a sidecar and go on with it until they are made anew."""
    found: dict[str, int] = {}
    for page in client.list(POD.path()):
        for pod in page.items:
            metadata = pod["metadata"]
            ends = metadata.get("deletionTimestamp") or pod["status"].get("phase") in ("Succeeded", "Failed")
            if SIDECAR_STATUS_ANNOTATION in (metadata.get("annotations") or {}) and not ends:
                found[metadata["namespace"]] = found.get(metadata["namespace"], 0) + 1
    return found


def wait_gone(
    client: Client, references: Iterable[Reference], patience: float, sleep: Callable[[float], None] = time.sleep
) -> list[Reference]:
    """What is still there after `patience` seconds."""
    left, ends = list(references), time.monotonic() + patience
    while left and time.monotonic() < ends:
        left = [reference for reference in left if _there(client, reference)]
        if left:
            sleep(0.5)
    return left


def _there(client: Client, reference: Reference) -> bool:
    try:
        client.get(reference.path)
    except NotFound:
        return False
    return True


def _ordered(references: Iterable[Reference]) -> list[Reference]:
    def place(reference: Reference) -> tuple[int, Reference]:
        if reference.kind in (MUTATING.kind, VALIDATING.kind):
            return 0, reference
        kind = ROOTS if (reference.kind, reference.name) == (CONFIG_MAP.kind, ROOTS) else reference.kind
        return (2 + _LAST.index(kind) if kind in _LAST else 1), reference

    return sorted(references, key=place)


def _labelled(client: Client, revision: str, *, shared: bool) -> Iterable[Reference]:
    """Of an installation whose inventory is lost, or that `kubectl apply` of a dry run made."""
    owners = f"{OWNER_LABEL} in ({revision}{',shared' if shared else ''})"
    for resource in RESOURCES:
        for page in client.list(resource.path(), {"labelSelector": owners}):
            for raw in page.items:
                yield _reference(resource.group, resource.kind, raw)


def _tags(client: Client, revision: str) -> Iterable[Reference]:
    """Tags that point at the revision: left alone they would send to a webhook that is gone."""
    query = {"labelSelector": f"{TAG_LABEL},{REVISION_LABEL}={revision},{OWNER_LABEL}"}
    for page in client.list(MUTATING.path(), query):
        for raw in page.items:
            yield _reference(MUTATING.group, MUTATING.kind, raw)


def _root_maps(client: Client) -> Iterable[Reference]:
    query = {"fieldSelector": f"metadata.name={ROOTS}"}
    for page in client.list(CONFIG_MAP.path(), query):
        for raw in page.items:
            yield _reference("", CONFIG_MAP.kind, raw)


def _reference(group: str, kind: str, raw: dict[str, Any]) -> Reference:
    return Reference(group, kind, raw["metadata"].get("namespace", ""), raw["metadata"]["name"])
