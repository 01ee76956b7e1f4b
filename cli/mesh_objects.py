"""The objects that discovery plans from, as a person has them: in manifests, in the mesh of this machine, on a cluster.

They are read with the person's own rights, and planned here: what is asked need not be in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cli.control_namespace import control_namespace, revision
from cli.manifest_files import read_manifests
from cli.mesh_access import Mesh, connect
from cli.reach import cluster_asked
from discovery.explain.model import UNSEEN
from discovery.findings import Severity
from discovery.gateway_secrets import needed
from discovery.snapshots import SnapshotBuilder, settings_of, watches
from kube.client import Client, Refused
from kube.source import Changed, Listed, Watched, list_path
from local.offline import Objects, completed, mistakes, settings_key
from mesh.checks import Finding, check_documents
from mesh.errors import InvalidInput, NotFound
from mesh.manifest import Document
from mesh.objects import Key
from mesh.problems import FieldProblem, ObjectErrors
from mesh.validation import DEFAULT_NAMESPACE

Raw = dict[str, Any]
AT_ONCE = 8
KINDS = sorted({*(watched.kind for watched in watches(settings_of())), "Secret"})
"""What discovery reads."""


@dataclass(frozen=True, slots=True)
class Manifested:
    """Manifests without an error in them; `namespace` is that of objects that name none."""

    documents: tuple[Document, ...]
    namespace: str

    @property
    def objects(self) -> Objects:
        """What a cluster would make of them. InvalidInput, as `manifests`, for pods that could not be injected."""
        places = {(each.kind, each.namespace or self.namespace, each.name): each for each in self.documents}
        errors: list[Finding] = []

        def wrong(raw: Raw, error: ObjectErrors) -> None:
            meta = raw["metadata"]
            document = places.get((raw["kind"], meta.get("namespace") or self.namespace, meta.get("name", "")))
            if document is None:
                raise error
            errors.extend(_of_field(document, self.namespace, each) for each in error.problems)

        found = completed((document.raw for document in self.documents), self.namespace, wrong)
        _raise(errors)
        return found


def manifests(sources: Iterable[str], namespace: str = DEFAULT_NAMESPACE) -> Manifested:
    """InvalidInput with every error in them: file, line, field, and the way out."""
    found = read_manifests(sources)
    report = check_documents(found.documents, found.problems, namespace)
    of_kubernetes = [_of_field(each, namespace, problem) for each in found.documents for problem in mistakes(each.raw)]
    _raise([*found.unreadable, *report.errors, *of_kubernetes])
    return Manifested(found.documents, namespace)


def _of_field(document: Document, namespace: str, problem: FieldProblem) -> Finding:
    about = f"{document.kind} {document.namespace or namespace}/{document.name}"
    return Finding(document.source, document.line_of(problem.path), about, problem.field, problem.message, problem.hint)


def _raise(errors: Sequence[Finding]) -> None:
    if errors:
        raise InvalidInput("\n".join(["the manifests have errors:", *(f"  {finding}" for finding in errors)]))


@dataclass(frozen=True, slots=True)
class Live:
    """The objects of a mesh that runs. `settings` is the ConfigMap that its control plane reads, there or not."""

    objects: Objects
    settings: Key


def live(kubeconfig: str) -> Live:
    """Those of the mesh that runs here, or of the cluster; of a cluster's Secrets only those that gateways serve."""
    cluster = cluster_asked(kubeconfig)
    return _on_cluster(cluster) if cluster else Live(embedded_objects(connect()), settings_of())


def builder_of(objects: Objects, settings: Key | None = None) -> SnapshotBuilder:
    """Discovery's own reading of the objects; `build()` gives the snapshot, `apply` changes it. `settings`: the
    ConfigMap of the mesh's settings, where the objects need not have it."""
    builder = SnapshotBuilder(settings or settings_key(objects))
    for event in events_of(objects):
        builder.apply(event)
    return builder


def events_of(objects: Objects) -> Iterator[Listed]:
    """The objects as discovery hears of them: all of each kind."""
    for kind in KINDS:
        yield Listed(kind, tuple(objects.get(kind, ())), 0)


def unread(builder: SnapshotBuilder) -> Iterator[str]:
    """What cannot be used as it is; a mesh that runs may go on with a version of before, which is not known here."""
    for finding in builder.findings:
        if finding.severity is Severity.ERROR:
            where = f"{finding.kind} {finding.namespace}/{finding.name}: {finding.field}"
            yield f"{where}: {finding.message}; it is left out here"


def changed(kind: str, raw: Raw, *, deleted: bool = False) -> Changed:
    """The event of an object that is written, or taken away."""
    return Changed(kind, raw, deleted, 0)


def embedded_objects(mesh: Mesh) -> Objects:
    """Those of the mesh that runs here."""
    return {kind: mesh.get(f"/objects/{kind}")["items"] for kind in KINDS}


def _on_cluster(client: Client) -> Live:
    def read(watched: Watched) -> Sequence[Raw]:
        try:
            return [raw for page in client.list(watched.path, watched.query) for raw in page.items]
        except NotFound:
            return ()  # its definition is not installed
        except Refused as error:
            if error.status != 403:
                raise
            hint = "it takes the verb list on what discovery reads: manifests/ has it as heddle-discovery's ClusterRole"
            raise Refused(403, f"you may not list {watched.path.rpartition('/')[2]}", hint=hint) from None

    home = control_namespace(client)
    settings = settings_of(revision(client, home), home)
    kinds = watches(settings)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        lists = dict(zip((watched.kind for watched in kinds), pool.map(read, kinds), strict=True))
    secrets = [_secret(client, key) for key in sorted(needed(builder_of(lists, settings).build()))]
    return Live({**lists, "Secret": [raw for raw in secrets if raw is not None]}, settings)


def _secret(client: Client, key: Key) -> Raw | None:
    """For who may not read it, it is what the Gateway takes it for."""
    try:
        found: Raw = client.get(f"{list_path('', 'v1', 'secrets', key.namespace)}/{key.name}")
    except NotFound:
        return None
    except Refused as error:
        if error.status != 403:
            raise
        meta = {"namespace": key.namespace, "name": key.name}
        return {"metadata": meta, "type": UNSEEN, "data": {"tls.crt": "", "tls.key": ""}}
    return found
