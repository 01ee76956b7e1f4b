"""What is asked of the cluster before anything is changed: every finding at once, each with the way out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from install.inventory import Inventory, read_inventories
from install.lock import at_work
from install.names import REVISION_LABEL
from install.operator import DEFAULT_REVISION
from install.render import ADOPTED, OWNER_LABEL, Rendered
from install.resources import CRD, LEASE, MUTATING, NAMESPACE, POD, SECRET, Reference, reference_of
from kube.client import Client
from mesh.errors import HeddleError, NotFound
from webhook.gate import ENFORCE, WITHOUT_NET_ADMIN

OLDEST = (1, 29)
OLDEST_WITHOUT_NATIVE = (1, 27)
AT_ONCE = 8
SOMEWHERE = "default"
"""Objects for a namespace that is not there yet are tried in this one."""

_OTHER_INJECTORS = re.compile(r"istio-sidecar-injector|istio-revision-tag|linkerd|kuma|consul|osm-|open-service-mesh")


@dataclass(slots=True)
class Findings:
    """`errors` stop the installation, `warnings` are told. `adopted`: CRDs that were there and will be taken over."""

    errors: list[HeddleError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    adopted: set[Reference] = field(default_factory=set)
    left_alone: set[Reference] = field(default_factory=set)
    former: Inventory | None = None
    others: tuple[Inventory, ...] = ()


@dataclass(frozen=True, slots=True)
class Choices:
    """How the user answered what preflight would refuse."""

    adopt_crds: bool = False
    skip_crds: bool = False
    force: bool = False


def preflight(
    client: Client, rendered: Rendered, choices: Choices, *, native_sidecars: bool, now: datetime
) -> Findings:
    """Raises only when the API server does not answer at all."""
    findings = Findings()
    findings.errors += too_old(client, native_sidecars=native_sidecars)
    denied = list(missing_rights(client, rendered))
    if denied:
        findings.errors.append(
            HeddleError(
                "you may not do all that an installation needs: " + "; ".join(denied),
                hint="ask for the cluster role cluster-admin, or have an administrator install",
            )
        )
        return findings
    # What is found while somebody else changes it, half of an installation above all, is nothing to act upon.
    if busy := at_work(client, rendered.namespace, now):
        findings.errors.append(busy)
        return findings
    inventories = read_inventories(client)
    here = [each for each in inventories if each.revision == rendered.revision]
    findings.former = next((each for each in here if each.namespace == rendered.namespace), None)
    findings.others = tuple(each for each in inventories if each is not findings.former)
    findings.errors += _elsewhere(inventories, rendered)
    if findings.former is not None and not findings.former.complete:
        findings.warnings.append(
            f"an installation of version {findings.former.version} was begun and not finished; it is completed now"
        )
    _crds(client, rendered, choices, findings)
    _other_injectors(client, rendered, choices, findings)
    if not findings.errors:
        findings.errors += _namespace(client, rendered)
    if not findings.errors:
        findings.errors += _trial(client, rendered, findings.left_alone)
    return findings


def server_version(client: Client) -> tuple[int, int]:
    """`(1, 37)`. Managed clusters write a minor version such as `37+`."""
    said = client.get("/version")
    return int(said["major"]), int(re.sub(r"\D.*", "", said["minor"]))


def too_old(client: Client, *, native_sidecars: bool) -> Iterator[HeddleError]:
    """Why this cluster is, if it is."""
    oldest = OLDEST if native_sidecars else OLDEST_WITHOUT_NATIVE
    found = server_version(client)
    if found < oldest:
        hint = "upgrade the cluster"
        if native_sidecars and found >= OLDEST_WITHOUT_NATIVE:
            hint += ", or go without native sidecars: --set values.pilot.env.ENABLE_NATIVE_SIDECARS=false"
        says = f"this cluster is Kubernetes {found[0]}.{found[1]}, and {oldest[0]}.{oldest[1]} is needed"
        yield HeddleError(says, hint=hint)


def missing_rights(client: Client, rendered: Rendered) -> Iterator[str]:
    """What the user may not do of all that install, upgrade and uninstall do."""
    wanted: dict[tuple[str, str, str, str], None] = {}
    for raw in rendered.objects:
        reference = reference_of(raw)
        for verb in ("get", "create", "patch", "delete"):
            wanted[verb, reference.group, reference.resource.plural, reference.namespace] = None
    own = rendered.namespace
    for resource, verbs in ((LEASE, ("get", "create", "update", "delete")), (SECRET, ("get", "create"))):
        wanted |= {(verb, resource.group, resource.plural, own): None for verb in verbs}
    for resource in (POD, CRD, MUTATING):
        wanted["list", resource.group, resource.plural, ""] = None
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda each: allowed(client, *each), wanted))
    for (verb, _, plural, namespace), yes in zip(wanted, answers, strict=True):
        if not yes:
            yield f"{verb} {plural}" + (f" in {namespace}" if namespace else "")


def allowed(client: Client, verb: str, group: str, plural: str, namespace: str = "") -> bool:
    """Whether the caller may, as the API server says (SelfSubjectAccessReview)."""
    attributes = {"verb": verb, "group": group, "resource": plural, "namespace": namespace}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = client.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


def _elsewhere(inventories: Iterable[Inventory], rendered: Rendered) -> Iterator[HeddleError]:
    for each in inventories:
        if each.namespace != rendered.namespace:
            yield HeddleError(
                f"Heddle is installed in namespace {each.namespace} already (revision {each.revision})",
                hint=f"install there: --set namespace={each.namespace}, or uninstall it first",
            )


def _crds(client: Client, rendered: Rendered, choices: Choices, findings: Findings) -> None:
    """Istio's definitions may be somebody else's, with objects in them: taken over only when told."""
    ours = {reference_of(raw) for raw in rendered.objects if raw["kind"] == CRD.kind}
    known = {each for inventory in (findings.former, *findings.others) if inventory for each in inventory.objects}
    foreign: list[str] = []
    for page in client.list(CRD.path()):
        for raw in page.items:
            reference = Reference(CRD.group, CRD.kind, "", raw["metadata"]["name"])
            labels = raw["metadata"].get("labels") or {}
            made_here = OWNER_LABEL in labels or labels.get("app.kubernetes.io/part-of") == "heddle"
            if labels.get(OWNER_LABEL) == ADOPTED:
                findings.adopted.add(reference)
            if reference not in ours or reference in known or made_here:
                continue
            if choices.skip_crds:
                findings.left_alone.add(reference)
            elif choices.adopt_crds:
                findings.adopted.add(reference)
            else:
                foreign.append(f"{raw['metadata']['name']} (of {_manager(raw)})")
    for inventory in (findings.former, *findings.others):
        findings.adopted |= inventory.adopted if inventory else set()
    if foreign:
        findings.errors.append(
            HeddleError(
                f"{len(foreign)} definitions are on the cluster that Heddle did not make: {', '.join(foreign)}",
                hint="--adopt-crds takes them over, with the objects in them (uninstall leaves them); "
                "--skip-crds works with them as they are",
            )
        )
    if choices.skip_crds:
        findings.left_alone |= ours


def _manager(raw: dict[str, Any]) -> str:
    """Who wrote the object, as far as it says."""
    metadata = raw["metadata"]
    release = (metadata.get("annotations") or {}).get("meta.helm.sh/release-name")
    managers = [each.get("manager", "") for each in metadata.get("managedFields") or ()]
    named = [name for name in managers if name not in ("", "kube-apiserver")]
    return f"Helm release {release}" if release else (named[0] if named else "somebody unknown")


def _other_injectors(client: Client, rendered: Rendered, choices: Choices, findings: Findings) -> None:
    for page in client.list(MUTATING.path()):
        for raw in page.items:
            name = raw["metadata"]["name"]
            labels = raw["metadata"].get("labels") or {}
            if not _OTHER_INJECTORS.search(name) or OWNER_LABEL in labels:
                continue
            of_istio = name.startswith("istio-")
            if (
                of_istio
                and not choices.force
                and (rendered.revision in (labels.get(REVISION_LABEL, DEFAULT_REVISION), labels.get("istio.io/tag")))
            ):
                findings.errors.append(
                    HeddleError(
                        f"{name} injects Istio's sidecar into the same namespaces (revision {rendered.revision})",
                        hint="install beside it: --revision heddle, and label namespaces istio.io/rev=heddle; "
                        "or remove it first; --force installs all the same",
                    )
                )
            else:
                findings.warnings.append(f"{name} injects as well: no namespace may ask for both")


def _namespace(client: Client, rendered: Rendered) -> Iterator[HeddleError]:
    try:
        found = client.get(NAMESPACE.path("", rendered.namespace))
    except NotFound:
        return
    enforced = (found["metadata"].get("labels") or {}).get(ENFORCE)
    if enforced in WITHOUT_NET_ADMIN and any(raw["kind"] == "DaemonSet" for raw in rendered.objects):
        yield HeddleError(
            f"namespace {rendered.namespace} enforces pod security {enforced}, which the node agent cannot have: "
            "it writes rules in other pods' networks",
            hint=f"kubectl label --overwrite namespace {rendered.namespace} {ENFORCE}=privileged",
        )
    if found["metadata"].get("deletionTimestamp"):
        yield HeddleError(
            f"namespace {rendered.namespace} is being deleted",
            hint=f"wait until it is gone: kubectl wait --for=delete namespace/{rendered.namespace}",
        )


def _trial(client: Client, rendered: Rendered, left_alone: set[Reference]) -> Iterator[HeddleError]:
    """The API server checks every object without keeping it: fields, types, and whether you may give these rights."""
    there = _exists(client, NAMESPACE.path("", rendered.namespace))
    elsewhere = "" if there else rendered.namespace
    tried = [raw for raw in rendered.objects if reference_of(raw) not in left_alone]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for refusal in pool.map(lambda raw: _try(client, raw, elsewhere), tried):
            if refusal is not None:
                yield refusal


def _try(client: Client, raw: dict[str, Any], missing: str) -> HeddleError | None:
    """Why the object is refused. One of the namespace `missing` is tried in another."""
    reference = reference_of(raw)
    path, body = reference.path, raw
    if missing and reference.namespace == missing:
        path = reference.resource.path(SOMEWHERE, reference.name)
        body = {**raw, "metadata": {**raw["metadata"], "namespace": SOMEWHERE}}
    try:
        client.apply(path, body, dry_run=True)
    except NotFound:
        says = f"{reference}: namespace {reference.namespace} does not exist"
        return HeddleError(says, hint=f"kubectl create namespace {reference.namespace}")
    except HeddleError as error:  # a field that Kubernetes does not know is a 500 of its
        if path == reference.path or error.status != 403:
            return HeddleError(f"{reference} is refused: {error.message}", hint=error.hint)
    return None


def _exists(client: Client, path: str) -> bool:
    try:
        client.get(path)
    except NotFound:
        return False
    return True
