"""The CRDs of all kinds with a model: manifests/crds/, written by `python -m mesh.crd`.

A file is one CustomResourceDefinition with one schema, which all its versions share (a YAML alias), so that an object
stored under one version reads under every other (docs/adr/0090-crds-from-the-models.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mesh.crd_schema import Json, schema_of
from mesh.crd_status import STATUS
from mesh.istio.base import all_rules
from mesh.kinds import EXTENSIONS, HEDDLE, KINDS, NETWORKING, SECURITY, TELEMETRY, Kind

DIRECTORY = Path(__file__).parents[1] / "manifests" / "crds"
_WIDTH = 110


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get`; those of priority 1 are shown by `-o wide`."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0

    def as_json(self) -> Json:
        wide = {"priority": self.priority} if self.priority else {}
        return {"name": self.name, "type": self.type, "jsonPath": self.path, **wide}


_AGE = Column("Age", ".metadata.creationTimestamp", "date")
_FATE = (
    Column("Accepted", '.status.conditions[?(@.type=="Accepted")].status', priority=1),
    Column("Applied", ".status.heddle.proxies.applied", "integer", 1),
    Column("Proxies", ".status.heddle.proxies.total", "integer", 1),
)
_SHORT = {
    "VirtualService": "vs",
    "DestinationRule": "dr",
    "Gateway": "gw",
    "ServiceEntry": "se",
    "WorkloadEntry": "we",
    "WorkloadGroup": "wg",
    "PeerAuthentication": "pa",
    "AuthorizationPolicy": "ap",
    "RequestAuthentication": "ra",
    "Telemetry": "telemetry",
    "WorkloadCertificate": "svid",
}
_COLUMNS = {
    "VirtualService": (Column("Gateways", ".spec.gateways"), Column("Hosts", ".spec.hosts")),
    "DestinationRule": (Column("Host", ".spec.host"),),
    "ServiceEntry": (
        Column("Hosts", ".spec.hosts"),
        Column("Location", ".spec.location"),
        Column("Resolution", ".spec.resolution"),
    ),
    "WorkloadEntry": (Column("Address", ".spec.address"),),
    "PeerAuthentication": (Column("Mode", ".spec.mtls.mode"),),
    "AuthorizationPolicy": (Column("Action", ".spec.action"),),
    "WorkloadCertificate": (
        Column("Pod", ".spec.pod"),
        Column("Identity", ".spec.identity"),
        Column("Serial", ".spec.serial"),
        Column("Issued", ".spec.issued", "date"),
        # kubectl writes every moment of type date as the time since then, so what is to come is shown as it is.
        Column("Expires", ".spec.expires"),
        Column("Renews At", ".spec.renewsAt"),
        Column("Root", ".spec.root"),
        Column("State", ".spec.state"),
        Column("Node", ".spec.node", priority=1),
        Column("Caller", ".spec.caller", priority=1),
        Column("Replica", ".spec.replica", priority=1),
    ),
    "TrustDomain": (
        Column("Phase", ".status.phase"),
        Column("Acknowledged", ".status.acknowledged"),
        Column("Missing", ".status.firstMissing"),
        Column("Root", ".status.activeRoot"),
        Column("Other Root", ".status.otherRoot"),
        Column("Sequence", ".status.sequence", "integer"),
        Column("Direction", ".status.direction", priority=1),
        Column("Paused", ".status.paused", "boolean", 1),
        Column("Waiting For", ".status.waitingFor", priority=1),
    ),
}
_STORED = {NETWORKING: "v1", SECURITY: "v1beta1", TELEMETRY: "v1alpha1", EXTENSIONS: "v1alpha1", HEDDLE: "v1"}
"""The version that objects are stored in, by group: Istio's choice, so that its CRDs and these replace each other."""


def defined() -> tuple[Kind, ...]:
    """The kinds that there is a CRD for."""
    return tuple(kind for kind in KINDS if kind.model is not None)


def stored_version(kind: Kind) -> str:
    """The version that the API server stores objects of the kind in."""
    chosen = _STORED[kind.group]
    return chosen if chosen in kind.versions else kind.versions[0]


def crd(kind: Kind) -> Json:
    """The CustomResourceDefinition of `kind`."""
    singular = kind.kind.lower()
    short = {"shortNames": [_SHORT[kind.kind]]} if kind.kind in _SHORT else {}
    names = {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
        "singular": singular,
        **short,
        "categories": ["istio-io", f"{kind.group.split('.')[0]}-istio-io"] if kind.of_istio else ["heddle"],
    }
    schema = {"openAPIV3Schema": _whole(kind)}
    columns = [column.as_json() for column in (*_COLUMNS.get(kind.kind, ()), *(_FATE if kind.of_istio else ()), _AGE)]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.definition, "labels": {"app.kubernetes.io/part-of": "heddle"}},
        "spec": {
            "group": kind.group,
            "names": names,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "conversion": {"strategy": "None"},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": version == stored_version(kind),
                    **({"subresources": {"status": {}}} if kind.of_istio or kind.status else {}),
                    "additionalPrinterColumns": columns,
                    "schema": schema,
                }
                for version in kind.versions
            ],
        },
    }


def files() -> Iterator[tuple[str, str]]:
    """Name and text of every file in manifests/crds/."""
    names = []
    for kind in defined():
        names.append(f"{kind.kind.lower()}.yaml")
        yield names[-1], _HEADER + _as_yaml(crd(kind))
    kustomization: Json = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    yield "kustomization.yaml", _HEADER + _as_yaml({**kustomization, "resources": names})


def _whole(kind: Kind) -> Json:
    assert kind.model is not None
    schema: Json = {"type": "object", "properties": {"spec": schema_of(kind.model)}}
    if _empty_is_wrong(kind):
        schema["required"] = ["spec"]
    if kind.of_istio:
        schema["properties"]["status"] = STATUS
    elif kind.status:
        schema["properties"]["status"] = schema_of(kind.status)
    return schema


def _empty_is_wrong(kind: Kind) -> bool:
    """Whether an object without a spec is refused."""
    assert kind.model is not None
    try:
        empty = kind.model.model_validate({})
    except ValidationError:
        return True
    return any(not found.warning for found in all_rules(empty))


class _Dumper(yaml.SafeDumper):
    """Lists indented as people write them; only what several versions share is an alias."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._shared = 0

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return not (isinstance(data, dict) and "openAPIV3Schema" in data)

    def generate_anchor(self, node: yaml.Node) -> str:
        return "schema"


_HEADER = "# Written from mesh/istio/ and mesh/heddle/ by `python -m mesh.crd`; do not edit.\n"


def _as_yaml(value: Json) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True)


def main() -> None:
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    written = dict(files())
    for file in DIRECTORY.glob("*.yaml"):
        if file.name not in written:
            file.unlink()
    for name, text in written.items():
        DIRECTORY.joinpath(name).write_text(text)


if __name__ == "__main__":
    main()
