"""What an installation owns, kept on the cluster: ConfigMap `heddle-install` (`-<revision>`) in its namespace.

It is written before anything is applied, with what was there and what will be, and again at the end: so an installation
that broke off half-way is known, is completed by the next, and leaves nothing behind when it is removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from install.names import REVISION_LABEL
from install.operator import DEFAULT_REVISION
from install.resources import CONFIG_MAP, Reference, parse_reference
from kube.client import Client
from mesh.errors import NotFound

NAME = "heddle-install"
INVENTORY_LABEL = "install.heddle.dev/inventory"
COMPLETE, BEGUN = "complete", "begun"


@dataclass(frozen=True, slots=True)
class Inventory:
    """`operator` is what was asked for, as YAML, for the next upgrade. `adopted`: was there before, is not ours to
    remove."""

    namespace: str
    revision: str
    version: str
    state: str
    objects: frozenset[Reference]
    adopted: frozenset[Reference] = frozenset()
    operator: str = ""

    @property
    def complete(self) -> bool:
        return self.state == COMPLETE

    def manifest(self) -> dict[str, Any]:
        """The ConfigMap."""
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": inventory_name(self.revision),
                "namespace": self.namespace,
                "labels": {INVENTORY_LABEL: "true", REVISION_LABEL: self.revision},
            },
            "data": {
                "version": self.version,
                "state": self.state,
                "operator.yaml": self.operator,
                "objects": _lines(self.objects),
                "adopted": _lines(self.adopted),
            },
        }


def inventory_name(revision: str) -> str:
    return NAME if revision == DEFAULT_REVISION else f"{NAME}-{revision}"


def parse_inventory(raw: Mapping[str, Any]) -> Inventory:
    """The inventory in a ConfigMap; lines of kinds that are not known are left out."""
    metadata, data = raw["metadata"], raw.get("data") or {}
    return Inventory(
        namespace=metadata["namespace"],
        revision=(metadata.get("labels") or {}).get(REVISION_LABEL, DEFAULT_REVISION),
        version=data.get("version", ""),
        state=data.get("state", BEGUN),
        objects=_references(data.get("objects", "")),
        adopted=_references(data.get("adopted", "")),
        operator=data.get("operator.yaml", ""),
    )


def read_inventories(client: Client) -> list[Inventory]:
    """Of every revision, wherever it is installed."""
    query = {"labelSelector": f"{INVENTORY_LABEL}=true"}
    return [parse_inventory(raw) for page in client.list(CONFIG_MAP.path(), query) for raw in page.items]


def write_inventory(client: Client, inventory: Inventory) -> None:
    client.apply(CONFIG_MAP.path(inventory.namespace, inventory_name(inventory.revision)), inventory.manifest())


def remove_inventory(client: Client, inventory: Inventory) -> None:
    try:
        client.delete(CONFIG_MAP.path(inventory.namespace, inventory_name(inventory.revision)))
    except NotFound:
        return


def no_longer_owned(former: Inventory | None, now: Iterable[Reference], others: Iterable[Inventory]) -> list[Reference]:
    """What the former installation of this revision owned, and neither this one nor another revision does."""
    if former is None:
        return []
    kept = set(now) | former.adopted
    for other in others:
        kept |= other.objects
    return sorted(former.objects - kept)


def _lines(references: Iterable[Reference]) -> str:
    return "".join(f"{reference.line()}\n" for reference in sorted(references))


def _references(text: str) -> frozenset[Reference]:
    return frozenset(found for line in text.splitlines() if (found := parse_reference(line)) is not None)
