"""What is wrong with an installation, from what the API server has. Pure: facts in, findings out; `gather` reads them.

Each finding says what it means for users and the way out, as commands.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from cryptography import x509

from install.inventory import Inventory, read_inventories
from install.names import REVISION_LABEL
from install.operator import DEFAULT_REVISION
from install.readiness import state_of
from install.resources import CONFIG_MAP, CRD, DAEMON_SET, DEPLOYMENT, MUTATING, NAMESPACE, POD, SERVICE, VALIDATING
from install.tags import TAG_LABEL
from kube.client import Client
from kube.source import list_path
from mesh import admission
from mesh.annotations import INJECT, NAMESPACE_INJECTION
from mesh.kinds import KINDS
from mesh.objects import SIDECAR_STATUS_ANNOTATION
from webhook.gate import ENFORCE, WITHOUT_NET_ADMIN

ENTRY_SUFFIX = ".sidecar-injector.heddle.dev"
ROOTS, ROOTS_KEY = "istio-ca-root-cert", "root-cert.pem"
SOON = timedelta(days=30)
NODE_AGENT = "heddle-node"
NEVER = frozenset({"kube-system", "kube-public", "kube-node-lease"})
_SLICES = list_path("discovery.k8s.io", "v1", "endpointslices")

Raw = Mapping[str, Any]


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """`way_out` are lines, commands among them."""

    severity: Severity
    about: str
    message: str
    way_out: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "severity": str(self.severity),
            "about": self.about,
            "message": self.message,
            "wayOut": list(self.way_out),
        }


@dataclass(frozen=True, slots=True)
class Facts:
    """Raw objects of the cluster."""

    inventories: Sequence[Inventory]
    workloads: Sequence[Raw] = ()
    pods: Sequence[Raw] = ()
    namespaces: Sequence[Raw] = ()
    webhooks: Sequence[Raw] = ()
    services: Sequence[Raw] = ()
    slices: Sequence[Raw] = ()
    definitions: Sequence[Raw] = ()
    roots: Sequence[Raw] = field(default_factory=tuple)
    validators: Sequence[Raw] = ()


def gather(client: Client) -> Facts:
    """Reads what `diagnose` looks at."""
    inventories = read_inventories(client)
    homes = sorted({each.namespace for each in inventories})

    def everything(path: str, query: Mapping[str, str] | None = None) -> list[Raw]:
        return [raw for page in client.list(path, query) for raw in page.items]

    def of_homes(paths: Sequence[str]) -> list[Raw]:
        return [raw for path in paths for raw in everything(path)]

    return Facts(
        inventories,
        [
            {**raw, "kind": resource.kind}
            for resource in (DEPLOYMENT, DAEMON_SET)
            for home in homes
            for raw in everything(resource.path(home))
        ],
        everything(POD.path()),
        everything(NAMESPACE.path()),
        everything(MUTATING.path(), {"labelSelector": "app=sidecar-injector"}),
        of_homes([SERVICE.path(home) for home in homes]),
        [raw for raw in everything(_SLICES) if raw["metadata"]["namespace"] in homes],
        everything(CRD.path()),
        everything(CONFIG_MAP.path(), {"fieldSelector": f"metadata.name={ROOTS}"}),
        everything(VALIDATING.path(), {"labelSelector": f"app={admission.NAME}"}),
    )


def diagnose(facts: Facts, now: datetime) -> list[Finding]:
    """Errors first."""
    if not facts.inventories:
        text = "no installation of `heddle install` is on this cluster"
        return [Finding(Severity.ERROR, "installation", text, ("heddle install",))]
    found = [
        *_unfinished(facts),
        *_control_plane(facts),
        *_webhooks(facts, now),
        *_validators(facts, now),
        *_definitions(facts),
        *_roots(facts, now),
        *_not_injected(facts),
        *_without_node_agent(facts),
        *_unknown_revisions(facts),
    ]
    return sorted(found, key=lambda finding: finding.severity is not Severity.ERROR)


def _unfinished(facts: Facts) -> Iterator[Finding]:
    for each in facts.inventories:
        if not each.complete:
            says = f"the installation of version {each.version} did not finish"
            yield Finding(
                Severity.ERROR, f"revision {each.revision}", says, ("heddle install, as before, completes it",)
            )


def _control_plane(facts: Facts) -> Iterator[Finding]:
    for raw in facts.workloads:
        metadata = raw["metadata"]
        if (metadata.get("labels") or {}).get("app.kubernetes.io/part-of") != "heddle":
            continue
        chosen = raw["spec"]["selector"]["matchLabels"].items()
        pods = [
            pod
            for pod in facts.pods
            if pod["metadata"]["namespace"] == metadata["namespace"]
            and chosen <= (pod["metadata"].get("labels") or {}).items()
        ]
        state = state_of(raw, pods)
        if state.done:
            continue
        about = f"{raw['kind']} {metadata['namespace']}/{metadata['name']}"
        says = f"{state.ready} of {state.wanted} pods are ready" + "".join(f"; {reason}" for reason in state.reasons)
        severity = Severity.WARNING if state.ready else Severity.ERROR
        look = f"kubectl -n {metadata['namespace']} describe {raw['kind'].lower()} {metadata['name']}"
        yield Finding(severity, about, says, (look,))


def _webhooks(facts: Facts, now: datetime) -> Iterator[Finding]:
    for inventory in facts.inventories:
        of_revision = [raw for raw in facts.webhooks if _label(raw, REVISION_LABEL) == inventory.revision]
        if not any(TAG_LABEL not in (raw["metadata"].get("labels") or {}) for raw in of_revision):
            says = "there is no webhook configuration: no pod gets a sidecar"
            yield Finding(Severity.ERROR, f"revision {inventory.revision}", says, ("heddle install, as before",))
        for raw in of_revision:
            yield from _configuration(raw, facts, now)


def _configuration(raw: Raw, facts: Facts, now: datetime) -> Iterator[Finding]:
    name = raw["metadata"]["name"]
    about = f"MutatingWebhookConfiguration {name}"
    entries = [entry for entry in raw.get("webhooks") or () if str(entry["name"]).endswith(ENTRY_SUFFIX)]
    if not entries:
        return
    service = entries[0]["clientConfig"].get("service") or {}
    blocked = ", ".join(_namespaces_of(entries, facts)) or "none at present"
    fails = any(entry.get("failurePolicy", "Fail") == "Fail" for entry in entries)
    if fails and not _answers(service, facts):
        where = f"{service.get('namespace')}/{service.get('name')}"
        says = (
            f"no webhook answers behind Service {where}, and failurePolicy is Fail: "
            f"no pod can be created in labelled namespaces ({blocked})"
        )
        yield Finding(Severity.ERROR, about, says, _way_out(name, service))
    lacking = [entry["name"] for entry in entries if not entry["clientConfig"].get("caBundle")]
    if lacking:
        says = (
            f"no caBundle in {', '.join(lacking)}: the API server trusts no webhook; the webhook writes it when it runs"
        )
        logs = f"kubectl -n {service.get('namespace')} logs deployment/{service.get('name')}"
        yield Finding(Severity.ERROR, about, says, (logs,))
    for entry in entries:
        yield from _bundle(about, entry, now)


def _validators(facts: Facts, now: datetime) -> Iterator[Finding]:
    revisions = {inventory.revision for inventory in facts.inventories}
    for raw in facts.validators:
        if _label(raw, REVISION_LABEL) in revisions:
            yield from _validator(raw, facts, now)


def _validator(raw: Raw, facts: Facts, now: datetime) -> Iterator[Finding]:
    name, entries = raw["metadata"]["name"], raw.get("webhooks") or []
    about = f"ValidatingWebhookConfiguration {name}"
    enforced = [entry for entry in entries if entry["name"] in admission.ENFORCED]
    if not enforced:
        return
    service = enforced[0]["clientConfig"].get("service") or {}
    if any(entry.get("failurePolicy", "Fail") == "Fail" for entry in enforced) and not _answers(service, facts):
        says = (
            f"no webhook answers behind Service {service.get('namespace')}/{service.get('name')}, and failurePolicy is "
            "Fail: no object of Istio's kinds can be created or changed in the namespaces of applications"
        )
        pods = f"kubectl -n {service.get('namespace')} get pods -l app=heddle-webhook"
        off = f"kubectl delete validatingwebhookconfiguration {name}"
        back = "and `heddle install`, as before, brings it back"
        yield Finding(Severity.ERROR, about, says, (f"look why: {pods}", f"until then, unchecked: {off}", back))
    for entry in entries:
        yield from _bundle(about, entry, now)


def _way_out(name: str, service: Raw) -> tuple[str, ...]:
    """For whoever has to create a pod now, and for whoever mends it."""
    pods = f"kubectl -n {service.get('namespace')} get pods -l app=heddle-webhook"
    off = f"kubectl delete mutatingwebhookconfiguration {name}"
    return (
        f"look why: {pods}",
        f"until then, pods without sidecars: {off}",
        "and `heddle install`, as before, brings it back",
    )


def _namespaces_of(entries: Sequence[Raw], facts: Facts) -> Iterator[str]:
    """Namespaces that are labelled so that their pods are sent to one of `entries`."""
    wanted = {
        value
        for entry in entries
        for expression in (entry.get("namespaceSelector") or {}).get("matchExpressions") or ()
        if expression["key"] == REVISION_LABEL and expression["operator"] == "In"
        for value in expression["values"]
    }
    everyone = any(entry["name"].startswith("namespace.") for entry in entries)
    for raw in facts.namespaces:
        labels = raw["metadata"].get("labels") or {}
        switch = labels.get(NAMESPACE_INJECTION)
        if (switch == "enabled" and everyone) or (switch is None and labels.get(REVISION_LABEL) in wanted):
            yield raw["metadata"]["name"]


def _answers(service: Raw, facts: Facts) -> bool:
    """Whether a ready endpoint stands behind the Service."""
    for raw in facts.slices:
        same = raw["metadata"]["namespace"] == service.get("namespace")
        if same and _label(raw, "kubernetes.io/service-name") == service.get("name"):
            for endpoint in raw.get("endpoints") or ():
                if (endpoint.get("conditions") or {}).get("ready", True):
                    return True
    return False


def _bundle(about: str, entry: Raw, now: datetime) -> Iterator[Finding]:
    encoded = entry["clientConfig"].get("caBundle")
    if not encoded:
        return
    try:
        pem = base64.b64decode(encoded)
    except ValueError:
        yield Finding(Severity.ERROR, about, f"the caBundle of {entry['name']} is not base64")
        return
    yield from _certificates(f"{about}, {entry['name']}", pem, now)


def _certificates(about: str, pem: bytes, now: datetime) -> Iterator[Finding]:
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError:
        yield Finding(Severity.ERROR, about, "it holds no certificate that can be read")
        return
    valid = [each for each in certificates if each.not_valid_after_utc > now]
    if not valid:
        last = max(each.not_valid_after_utc for each in certificates)
        yield Finding(Severity.ERROR, about, f"its certificates expired, the last on {last:%Y-%m-%d %H:%M} UTC")
    elif max(each.not_valid_after_utc for each in valid) < now + SOON:
        last = max(each.not_valid_after_utc for each in valid)
        yield Finding(Severity.WARNING, about, f"its certificates end on {last:%Y-%m-%d %H:%M} UTC")


def _definitions(facts: Facts) -> Iterator[Finding]:
    there = {raw["metadata"]["name"]: raw for raw in facts.definitions}
    for kind in KINDS:
        if not kind.of_istio:
            continue
        name = kind.definition
        raw = there.get(name)
        if raw is None:
            says = f"{kind.kind} is not defined: such objects cannot be created"
            yield Finding(Severity.ERROR, f"CustomResourceDefinition {name}", says, ("heddle install, as before",))
            continue
        served = {each["name"] for each in raw["spec"]["versions"] if each.get("served")}
        missing = [version for version in kind.versions if version not in served]
        if missing:
            says = f"versions {', '.join(missing)} are not served"
            way_out = ("heddle install --adopt-crds, as before otherwise",)
            yield Finding(Severity.WARNING, f"CustomResourceDefinition {name}", says, way_out)


def _roots(facts: Facts, now: datetime) -> Iterator[Finding]:
    there = {raw["metadata"]["namespace"]: raw for raw in facts.roots}
    homes = {each.namespace for each in facts.inventories}
    labelled = {raw["metadata"]["name"] for raw in facts.namespaces if _asks(raw)}
    for namespace in sorted(homes | labelled):
        raw = there.get(namespace)
        about = f"ConfigMap {namespace}/{ROOTS}"
        if raw is None:
            says = (
                "it is missing: proxies of this namespace trust nobody and do not start; the ca writes it when it runs"
            )
            look = tuple(f"kubectl -n {home} logs deployment/heddle-ca" for home in sorted(homes))
            yield Finding(Severity.ERROR, about, says, look)
        else:
            yield from _certificates(about, (raw.get("data") or {}).get(ROOTS_KEY, "").encode(), now)


def _not_injected(facts: Facts) -> Iterator[Finding]:
    """Pods that were made before their namespace was labelled, or while no webhook was there."""
    labelled = {raw["metadata"]["name"] for raw in facts.namespaces if _asks(raw)} - NEVER
    without: dict[str, list[str]] = {}
    for pod in facts.pods:
        metadata = pod["metadata"]
        if metadata["namespace"] not in labelled or metadata.get("deletionTimestamp"):
            continue
        said = {**(metadata.get("annotations") or {}), **(metadata.get("labels") or {})}
        ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if SIDECAR_STATUS_ANNOTATION in said or said.get(INJECT) == "false" or ended:
            continue
        if (pod.get("spec") or {}).get("hostNetwork"):
            continue
        without.setdefault(metadata["namespace"], []).append(metadata["name"])
    for namespace, names in sorted(without.items()):
        shown = ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        says = f"the namespace asks for sidecars, and {len(names)} of its pods have none: {shown}"
        restart = f"kubectl -n {namespace} rollout restart deployment,statefulset,daemonset"
        yield Finding(Severity.WARNING, f"Namespace {namespace}", says, (restart,))


def _without_node_agent(facts: Facts) -> Iterator[Finding]:
    """Namespaces whose pods may not write their own interception rules, where nothing else writes them."""
    if any(raw["kind"] == DAEMON_SET.kind and raw["metadata"]["name"] == NODE_AGENT for raw in facts.workloads):
        return
    for raw in facts.namespaces:
        level = _label(raw, ENFORCE)
        if _asks(raw) and level in WITHOUT_NET_ADMIN:
            says = (
                f"it enforces pod security {level} and asks for sidecars, and the node agent is not installed: "
                "its pods wait for their interception rules and do not start"
            )
            way_out = ("heddle install --set components.cni.enabled=true, as before otherwise",)
            yield Finding(Severity.WARNING, f"Namespace {raw['metadata']['name']}", says, way_out)


def _unknown_revisions(facts: Facts) -> Iterator[Finding]:
    known = {each.revision for each in facts.inventories} | {_label(raw, TAG_LABEL) for raw in facts.webhooks}
    for raw in facts.namespaces:
        labels = raw["metadata"].get("labels") or {}
        wanted = labels.get(REVISION_LABEL)
        about = f"Namespace {raw['metadata']['name']}"
        if labels.get(NAMESPACE_INJECTION) is None and wanted and wanted not in known:
            says = f"it is labelled {REVISION_LABEL}={wanted}, and there is neither such a revision nor such a tag"
            yield Finding(Severity.WARNING, about, says, ("heddle tag list",))
        if labels.get(NAMESPACE_INJECTION) == "enabled" and DEFAULT_REVISION not in known:
            says = f"it is labelled {NAMESPACE_INJECTION}=enabled, and no revision {DEFAULT_REVISION} is installed"
            others = sorted(each.revision for each in facts.inventories)
            relabel = (
                f"kubectl label namespace {raw['metadata']['name']} {NAMESPACE_INJECTION}- {REVISION_LABEL}={others[0]}"
            )
            yield Finding(Severity.WARNING, about, says, (relabel,))


def _asks(namespace: Raw) -> bool:
    """Whether the namespace asks for sidecars, of whatever revision."""
    labels = namespace["metadata"].get("labels") or {}
    switch = labels.get(NAMESPACE_INJECTION)
    return switch == "enabled" or (switch is None and REVISION_LABEL in labels)


def _label(raw: Raw, name: str) -> str:
    return str((raw["metadata"].get("labels") or {}).get(name, ""))
