"""Deployments, ReplicaSets and Jobs: which pods should exist. Pure; what Kubernetes' workload controllers do.

A rollout always surges: the new pods start at once, and an old pod goes when a new one is ready in its place
(`Recreate` first removes the old ones, as it says).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from mesh.objects import Key

Raw = dict[str, Any]
HASH_LABEL = "pod-template-hash"
JOB_LABEL = "batch.kubernetes.io/job-name"


@dataclass(frozen=True, slots=True)
class Create:
    raw: Raw


@dataclass(frozen=True, slots=True)
class Remove:
    kind: str
    key: Key


@dataclass(frozen=True, slots=True)
class SetStatus:
    kind: str
    key: Key
    status: Raw


Action = Create | Remove | SetStatus


def reconcile(
    deployments: Iterable[Raw],
    replica_sets: Iterable[Raw],
    jobs: Iterable[Raw],
    pods: Iterable[Raw],
    suffix: Callable[[], str],
) -> list[Action]:
    """What to do next so that the pods become what the workloads ask for. Nothing to do is an empty list.

    `suffix` makes the random five letters at the end of a pod's name.
    """
    sets, all_pods = list(replica_sets), list(pods)
    actions: list[Action] = []
    for deployment in deployments:
        actions += _deployment(deployment, _owned(sets, deployment), all_pods)
    for replica_set in sets:
        actions += _replica_set(replica_set, _owned(all_pods, replica_set), suffix)
    for job in jobs:
        actions += _job(job, _owned(all_pods, job), suffix)
    owners = {_uid(owner) for owner in (*sets, *jobs)}
    deployed = {_uid(owner) for owner in deployments}
    actions += [Remove("ReplicaSet", _key(rs)) for rs in sets if _orphan(rs, deployed)]
    actions += [Remove("Pod", _key(pod)) for pod in all_pods if _orphan(pod, owners) and not _leaving(pod)]
    return actions


def _deployment(deployment: Raw, sets: list[Raw], pods: list[Raw]) -> list[Action]:
    spec = deployment["spec"]
    wanted = _replicas(spec)
    template = spec["template"]
    digest = hashlib.sha256(orjson.dumps(template, option=orjson.OPT_SORT_KEYS)).hexdigest()[:10]
    name = f"{deployment['metadata']['name']}-{digest}"
    current = next((rs for rs in sets if rs["metadata"]["name"] == name), None)
    old = [rs for rs in sets if rs is not current]
    recreate = (spec.get("strategy") or {}).get("type") == "Recreate"
    actions: list[Action] = []
    running_old = [pod for rs in old for pod in _owned(pods, rs)]
    if current is None and not (recreate and running_old):
        actions.append(Create(_new_replica_set(deployment, name, digest, wanted)))
    elif current is not None and _replicas(current["spec"]) != wanted:
        actions.append(Create({**current, "spec": {**current["spec"], "replicas": wanted}}))
    ready = sum(map(is_ready, _owned(pods, current))) if current is not None else 0
    keep = 0 if recreate else max(0, wanted - ready)
    for rs in old:
        allowed = min(_replicas(rs["spec"]), keep)
        keep -= allowed
        if allowed == 0 and not _owned(pods, rs):
            actions.append(Remove("ReplicaSet", _key(rs)))
        elif allowed != _replicas(rs["spec"]):
            actions.append(Create({**rs, "spec": {**rs["spec"], "replicas": allowed}}))
    status = {"replicas": ready + len(running_old), "readyReplicas": ready, "updatedReplicas": ready}
    return actions + _status("Deployment", deployment, status)


def _new_replica_set(deployment: Raw, name: str, digest: str, replicas: int) -> Raw:
    template = deployment["spec"]["template"]
    labels = {**(template.get("metadata") or {}).get("labels", {}), HASH_LABEL: digest}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "namespace": deployment["metadata"]["namespace"],
            "name": name,
            "labels": labels,
            "ownerReferences": [_owner(deployment)],
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {**template, "metadata": {**(template.get("metadata") or {}), "labels": labels}},
        },
    }


def _replica_set(replica_set: Raw, pods: list[Raw], suffix: Callable[[], str]) -> list[Action]:
    wanted = _replicas(replica_set["spec"])
    failed = [pod for pod in pods if _phase(pod) in ("Failed", "Succeeded") and not _leaving(pod)]
    alive = [pod for pod in pods if pod not in failed and not _leaving(pod)]
    actions: list[Action] = [Remove("Pod", _key(pod)) for pod in failed]
    actions += [Create(_new_pod(replica_set, suffix())) for _ in range(wanted - len(alive))]
    surplus = sorted(alive, key=lambda pod: (is_ready(pod), pod["metadata"]["creationTimestamp"]))
    actions += [Remove("Pod", _key(pod)) for pod in surplus[: max(0, len(alive) - wanted)]]
    status = {"replicas": len(alive), "readyReplicas": sum(map(is_ready, alive))}
    return actions + _status("ReplicaSet", replica_set, status)


def _job(job: Raw, pods: list[Raw], suffix: Callable[[], str]) -> list[Action]:
    spec = job["spec"]
    completions, parallelism = spec.get("completions") or 1, spec.get("parallelism") or 1
    succeeded = sum(_phase(pod) == "Succeeded" for pod in pods)
    failed = sum(_phase(pod) == "Failed" for pod in pods)
    active = [pod for pod in pods if _phase(pod) not in ("Succeeded", "Failed") and not _leaving(pod)]
    status: Raw = {"active": len(active), "succeeded": succeeded, "failed": failed}
    if succeeded >= completions:
        status["conditions"] = [{"type": "Complete", "status": "True"}]
        return _status("Job", job, status)
    if failed > spec.get("backoffLimit", 6):
        reason = "BackoffLimitExceeded"
        status["conditions"] = [{"type": "Failed", "status": "True", "reason": reason}]
        return [*(Remove("Pod", _key(pod)) for pod in active), *_status("Job", job, status)]
    missing = min(parallelism, completions - succeeded) - len(active)
    actions: list[Action] = [Create(_new_pod(job, suffix(), {JOB_LABEL: _key(job).name})) for _ in range(missing)]
    return actions + _status("Job", job, status)


def _new_pod(owner: Raw, suffix: str, labels: dict[str, str] | None = None) -> Raw:
    template = owner["spec"]["template"]
    meta = template.get("metadata") or {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **{name: value for name, value in meta.items() if name in ("annotations",)},
            "namespace": owner["metadata"]["namespace"],
            "name": f"{owner['metadata']['name']}-{suffix}",
            "generateName": f"{owner['metadata']['name']}-",
            "labels": {**meta.get("labels", {}), **(labels or {})},
            "ownerReferences": [_owner(owner)],
        },
        "spec": template["spec"],
    }


def is_ready(pod: Raw) -> bool:
    """The pod's own Ready condition, and not on its way out."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return not _leaving(pod) and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _status(kind: str, raw: Raw, status: Raw) -> list[Action]:
    return [SetStatus(kind, _key(raw), status)] if raw.get("status") != status else []


def _owned(objects: Iterable[Raw], owner: Raw) -> list[Raw]:
    uid = _uid(owner)
    return [raw for raw in objects if any(ref["uid"] == uid for ref in _owners(raw))]


def _orphan(raw: Raw, living: set[str]) -> bool:
    return any(ref.get("controller") and ref["uid"] not in living for ref in _owners(raw))


def _owners(raw: Raw) -> list[Raw]:
    return raw["metadata"].get("ownerReferences") or []


def _owner(raw: Raw) -> Raw:
    return {
        "apiVersion": raw["apiVersion"],
        "kind": raw["kind"],
        "name": raw["metadata"]["name"],
        "uid": _uid(raw),
        "controller": True,
    }


def _uid(raw: Raw) -> str:
    return str(raw["metadata"]["uid"])


def _key(raw: Raw) -> Key:
    return Key(raw["metadata"]["namespace"], raw["metadata"]["name"])


def _phase(pod: Raw) -> str:
    return str((pod.get("status") or {}).get("phase", "Pending"))


def _leaving(pod: Raw) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _replicas(spec: Raw) -> int:
    replicas = spec.get("replicas")
    return 1 if replicas is None else int(replicas)
