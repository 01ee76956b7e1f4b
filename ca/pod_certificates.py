"""The ca as a signer of PodCertificateRequests: a pod has its SVID from a projected volume, and never talks to the ca.

The kubelet makes key and request for a volume source `podCertificate` of signer `heddle.dev/spiffe`; the API server has
verified that it runs that pod under that service account, and the request's signature.
Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/ (pod certificate requests)
"""

from __future__ import annotations

import base64
import binascii
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from ca.callers import PodLookup
from ca.issue import Issuance, Issued, rfc3339
from ca.metrics import Metrics
from ca.policy import Caller, check_key
from ca.request import parse_request
from ca.settings import CaSettings
from kube.client import Client, Refused
from kube.source import Changed, Event, Listed, Source, Watched
from mesh.errors import HeddleError, InvalidInput, NotFound
from mesh.identity import Identity
from svid.material import TrustBundle

SIGNER = "heddle.dev/spiffe"
API = "/apis/certificates.k8s.io/v1"
PATH = f"{API}/podcertificaterequests"
BUNDLE = f"{SIGNER.replace('/', ':')}:roots"  # Kubernetes wants the signer in its name
LOOK_SECONDS = 0.5
DAY = 86400
_NOTHING = TrustBundle("", 0, ())

log = structlog.get_logger("ca")


class PodCertificates:
    """Answers requests while `leads()`: of several replicas one at a time."""

    def __init__(
        self,
        client: Client,
        issuance: Issuance,
        settings: CaSettings,
        pods: PodLookup,
        now: Callable[[], float],
        bundle: Callable[[], TrustBundle],
        metrics: Metrics,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        """`bundle`: what everyone trusts, for the ClusterTrustBundle beside the certificates."""
        self._metrics = metrics
        self._client, self._issuance, self._settings = client, issuance, settings
        self._pods, self._now, self._leads = pods, now, leads
        self._bundle, self._published = bundle, _NOTHING
        self._open: dict[str, Mapping[str, Any]] = {}  # by uid: requests without an answer
        self._guard = threading.Lock()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin. Needs the rights of `mesh.rbac` for pod certificates."""
        Source([Watched("PodCertificateRequest", PATH)], self._client).start(self.take)
        threading.Thread(target=self._run, name="pod-certificates", daemon=True).start()

    def stop(self) -> None:
        """No more after the request that is being answered."""
        self._stopping.set()

    def take(self, event: Event) -> None:
        """One event of the watch."""
        with self._guard:
            match event:
                case Listed(objects=objects):
                    self._open = {each["metadata"]["uid"]: each for each in objects if waits(each)}
                case Changed(object=found, deleted=deleted):
                    self._open.pop(found["metadata"]["uid"], None)
                    if not deleted and waits(found):
                        self._open[found["metadata"]["uid"]] = found

    def step(self) -> None:
        """Answer what is there to answer. What cannot be answered now stays for the next step."""
        with self._guard:
            waiting = list(self._open.items())
        for uid, found in waiting:
            if self._answer(found):
                with self._guard:
                    self._open.pop(uid, None)

    def publish(self) -> None:
        """Have the ClusterTrustBundle say what the roots are now."""
        bundle = self._bundle()
        if _says_the_same(bundle, self._published):
            return
        spec = {"signerName": SIGNER, "trustBundle": bundle.pem}
        metadata = {"name": BUNDLE, "labels": {"app.kubernetes.io/managed-by": "heddle"}}
        body = {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "ClusterTrustBundle",
            "metadata": metadata,
            "spec": spec,
        }
        try:
            self._client.apply(f"{API}/clustertrustbundles/{BUNDLE}", body)
        except HeddleError as error:
            log.warning("the ClusterTrustBundle is not written yet", error=str(error))
            return
        self._published = bundle

    @property
    def published(self) -> int:
        """The sequence of the bundle that this replica has published; 0 for none."""
        return self._published.sequence

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                if (self._open or not _says_the_same(self._bundle(), self._published)) and self._leads():
                    self.publish()
                    self.step()
            except Exception:  # a bug in one answer must not end the thread that gives the next
                log.exception("pod certificates failed")

    def _answer(self, found: Mapping[str, Any]) -> bool:
        metadata = found["metadata"]
        name = f"{metadata['namespace']}/{metadata['name']}"
        began = time.perf_counter()
        self._metrics.asked()
        try:
            status = self._issued(metadata["namespace"], found["spec"])
            self._metrics.issued("pod", time.perf_counter() - began)
        except HeddleError as error:
            self._metrics.certificate_refused(error)
            if error.status >= 500:
                log.warning("a pod's certificate is not issued yet", request=name, error=str(error))
                return False
            log.warning("a pod's certificate is refused", request=name, error=str(error))
            status = {"conditions": [self._condition("Denied", _reason(error), str(error))]}
        path = f"{API}/namespaces/{metadata['namespace']}/podcertificaterequests/{metadata['name']}/status"
        try:
            self._client.put(path, {**found, "status": status})
        except NotFound:
            return True  # whoever asked has gone
        except Refused as error:
            log.warning("a pod's certificate is not taken", request=name, error=str(error))
            return error.status in (409, 422)  # somebody else has answered, or the answer can never be taken
        except HeddleError as error:
            log.warning("a pod's certificate is not delivered yet", request=name, error=str(error))
            return False
        return True

    def _issued(self, namespace: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        unknown = sorted(spec.get("unverifiedUserAnnotations") or {})
        if unknown:
            raise InvalidInput(f"{unknown[0]} means nothing here", field="userAnnotations", hint="leave it out")
        account = spec["serviceAccountName"]
        facts = self._pods(namespace, spec["podName"], spec["podUID"])
        if facts is None or facts.uid != spec["podUID"] or facts.service_account != account or facts.deleting:
            raise InvalidInput(f"there is no pod {namespace}/{spec['podName']} that runs as {account}", field="podName")
        identity = Identity(self._settings.trust_domain, namespace, account)
        caller = Caller("pod", identity, namespace, spec["podName"], spec["podUID"], spec["nodeName"])
        longest = int(spec.get("maxExpirationSeconds") or DAY) - self._settings.backdate
        issued = self._issuance.issue(caller, self._key(spec), min(longest, self._settings.leaf_ttl))
        return {**_certificate(issued), "conditions": [self._condition("Issued", "Issued", issued.serial)]}

    def _key(self, spec: Mapping[str, Any]) -> Any:
        try:
            key = parse_request(base64.b64decode(spec["stubPKCS10Request"], validate=True))
            check_key(key, self._settings)
        except binascii.Error as error:
            raise InvalidInput(f"the request is not base64: {error}", field="stubPKCS10Request") from None
        except HeddleError as error:
            raise _KeyRefused(error.message, field="keyType", hint=error.hint) from None
        return key

    def _condition(self, kind: str, reason: str, message: str) -> dict[str, str]:
        when = rfc3339(int(self._now()))
        return {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": when}


class _KeyRefused(InvalidInput):
    """The kind of key is the reason, for which Kubernetes has a word of its own."""


def _says_the_same(one: TrustBundle, other: TrustBundle) -> bool:
    return (one.sequence, one.roots) == (other.sequence, other.roots)


def waits(found: Mapping[str, Any]) -> bool:
    """Whether the request is for this signer and has no answer."""
    status = found.get("status") or {}
    return bool(
        found["spec"]["signerName"] == SIGNER and not status.get("certificateChain") and not status.get("conditions")
    )


def _certificate(issued: Issued) -> dict[str, str]:
    half = (issued.not_before + issued.not_after) // 2
    return {
        "certificateChain": issued.leaf_pem + issued.intermediate_pem,
        "notBefore": rfc3339(issued.not_before),
        "beginRefreshAt": rfc3339(half),
        "notAfter": rfc3339(issued.not_after),
    }


def _reason(error: HeddleError) -> str:
    if isinstance(error, _KeyRefused):
        return "UnsupportedKeyType"
    return "InvalidUnverifiedUserAnnotations" if error.field == "userAnnotations" else "Refused"
