"""`WorkloadCertificate` objects: one for each pod, with its current certificate, as `kubectl get svid -A` shows it.

The object is named after its pod and owned by it, so that it goes with it. A certificate that was issued without a pod
has no object: it is in the ledger and the log of the replica that issued it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ca.issue import rfc3339
from ca.ledger import Record
from kube.client import Client, Refused
from mesh.errors import Conflict, NotFound
from svid.schedule import RENEW_FROM

GROUP, VERSION, PLURAL, KIND = "heddle.dev", "v1", "workloadcertificates", "WorkloadCertificate"
COLLECTION = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
ISSUED, RENEWED = "Issued", "Renewed"
MOST_EARLIER = 16
_ATTEMPTS = 5


def workload_certificate(record: Record, replica: str) -> dict[str, Any]:
    """The object for a certificate that was issued to a pod; `replica` is the ca's own pod."""
    pod = {"apiVersion": "v1", "kind": "Pod", "name": record.pod_name, "uid": record.pod_uid}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"namespace": record.pod_namespace, "name": record.pod_name, "ownerReferences": [pod]},
        "spec": {
            "pod": record.pod_name,
            "identity": record.identity,
            "serial": record.serial,
            "issued": _moment(record.prepared_at),
            "expires": rfc3339(record.not_after),
            "renewsAt": rfc3339(int(renews_at(record))),
            "root": record.root,
            "issuer": record.issuer,
            "node": record.node,
            "key": {"kind": record.key_kind, "sha256": record.key_fingerprint},
            "state": ISSUED,
            "caller": record.caller,
            "replica": replica,
        },
    }


def renews_at(record: Record) -> float:
    """The earliest moment at which its holder renews it (Unix seconds)."""
    start = max(record.not_before, int(record.prepared_at))
    return start + RENEW_FROM * (record.not_after - start)


def write(client: Client, body: Mapping[str, Any], there: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """Create the object or bring it up to date, unless it tells of a later certificate already; what is there then.

    `there` is what was there when somebody looked last, which saves looking again. Several replicas may write about one
    pod, in any order: the resourceVersion decides whether what was read still holds. Needs the rights to `create`,
    `get` and `patch` WorkloadCertificates.
    """
    collection = f"/apis/{GROUP}/{VERSION}/namespaces/{body['metadata']['namespace']}/{PLURAL}"
    path = f"{collection}/{body['metadata']['name']}"
    # Whoever renews has an object already, whoever comes with a token mostly has none.
    if there is not None and not is_later(body, there):  # which is rare, and may no longer be so
        there = None
    expected = there is not None or body["spec"]["caller"] == "certificate"
    for _ in range(_ATTEMPTS):
        try:
            if not expected:
                return _object(client.post(collection, body))
            found = there if there is not None else _object(client.get(path))
            if is_later(body, found):
                return _object(client.merge(path, replacing(body, found)))
            if body["spec"]["serial"] not in _serials(found):
                return _object(client.merge(path, remembering(body, found)))
            return found
        except NotFound:
            if not expected:  # the namespace is gone, or the kind is not installed
                raise
            expected, there = False, None
        except Refused as error:
            if error.status != 409:
                raise
            expected, there = True, None
    raise Conflict(f"WorkloadCertificate {path} is changed by others all the time")


def essence(there: Mapping[str, Any]) -> dict[str, Any]:
    """What `write` needs to know of an object that is there."""
    metadata, spec = there["metadata"], there.get("spec") or {}
    return {
        "metadata": {name: metadata[name] for name in ("resourceVersion", "ownerReferences") if name in metadata},
        "spec": {
            name: spec[name] for name in ("serial", "issued", "expires", "root", "caller", "earlier") if name in spec
        },
    }


def replacing(body: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, Any]:
    """`body` as the patch of the object that is there, if nobody has changed that meanwhile."""
    metadata = {**body["metadata"], "resourceVersion": there["metadata"]["resourceVersion"]}
    state = RENEWED if _owners(there) == _owners(body) else ISSUED
    return {**body, "metadata": metadata, "spec": {**body["spec"], "state": state, "earlier": earlier(body, there)}}


def remembering(body: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, Any]:
    """The patch of the object that is there, and tells of a later certificate, by which it knows of `body`'s too."""
    kept = [_entry(body), *(there["spec"].get("earlier") or ())][:MOST_EARLIER]
    return {"metadata": {"resourceVersion": there["metadata"]["resourceVersion"]}, "spec": {"earlier": kept}}


def earlier(body: Mapping[str, Any], there: Mapping[str, Any]) -> list[dict[str, str]]:
    """What the object that is there tells of and `body`, which takes its place, does not; without what has expired."""
    before = there.get("spec") or {}
    if not before.get("serial"):
        return []
    known = [_entry(there), *(before.get("earlier") or ())]
    now, own = body["spec"]["issued"], body["spec"]["serial"]
    return [one for one in known if one["expires"] > now and one["serial"] != own][:MOST_EARLIER]


def is_later(body: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    """Whether `body` is of a later issuance than the object that is there."""
    before = there.get("spec") or {}
    return bool(body["spec"]["issued"] > before.get("issued", ""))


def _entry(certificate: Mapping[str, Any]) -> dict[str, str]:
    """What is kept of a certificate once the object tells of another."""
    spec = certificate["spec"]
    kept = {name: spec[name] for name in ("serial", "expires", "root", "caller") if spec.get(name)}
    return kept | {"uid": next(iter(_owners(certificate)), "")}


def _serials(there: Mapping[str, Any]) -> set[str]:
    spec = there["spec"]
    return {spec["serial"], *(one["serial"] for one in spec.get("earlier") or ())}


def _moment(at: float) -> str:
    """With its fraction, and of one length, so that two certificates of one second have an order as text."""
    return f"{rfc3339(int(at))[:-1]}.{int(at * 1_000_000) % 1_000_000:06d}Z"


def _owners(certificate: Mapping[str, Any]) -> list[str]:
    return [owner.get("uid", "") for owner in certificate["metadata"].get("ownerReferences") or ()]


def _object(answer: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = answer
    return found
