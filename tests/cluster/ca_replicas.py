"""For tests of the ca at a real API server: replicas that run as their own service account with the rights that
`mesh.rbac` gives them, and pods that are only objects (no kubelet runs them; their tokens are real)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from mesh.errors import NotFound
from mesh.identity import Identity
from mesh.rbac import access
from svid.client import Token, fetch
from svid.material import PodRef, SvidMaterial
from svid.request import new_key_request
from tests.ca.harness import RunningCa
from tests.cluster.api_server import ApiServer
from tests.support.ports import free_port
from tests.support.waiting import wait_for

ROOT_SECRET = "heddle-ca-root"
CERTIFICATES = "/apis/heddle.dev/v1/namespaces/{}/workloadcertificates"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CRD = "workloadcertificates.heddle.dev"
CRD_FILES = Path(__file__).parents[2] / "manifests" / "crds"
LOCAL_VERIFICATION = Path(__file__).parents[2] / "manifests" / "options" / "local-token-verification" / "access.yaml"
PASSPHRASE = "correct horse battery staple"


def crd() -> dict[str, Any]:
    """The definition of WorkloadCertificate, as it is installed."""
    for file in CRD_FILES.rglob("*.yaml"):
        for document in yaml.safe_load_all(file.read_text()):
            if document and document.get("metadata", {}).get("name") == CRD:
                return dict(document)
    raise AssertionError(f"no definition of WorkloadCertificate in {CRD_FILES}")


@contextmanager
def certificates_defined(api: ApiServer) -> Iterator[None]:
    """The kind exists; it is removed again unless it was there before."""
    if _stays(api):
        yield
        return
    define_certificates(api)
    try:
        yield
    finally:
        api.client.delete(f"{CRDS}/{CRD}")


def define_certificates(api: ApiServer) -> None:
    """Install the kind, which is not there, and wait until it is served."""
    wait_for(lambda: not _exists(api))
    api.client.post(CRDS, crd())
    wait_for(lambda: _served(api))


def _served(api: ApiServer) -> bool:
    with suppress(NotFound):
        return bool(api.client.get("/apis/heddle.dev/v1/workloadcertificates"))
    return False


def _stays(api: ApiServer) -> bool:
    """Whether it is there, and not about to go with the tests before these."""
    with suppress(NotFound):
        return "deletionTimestamp" not in api.client.get(f"{CRDS}/{CRD}")["metadata"]
    return False


def _exists(api: ApiServer) -> bool:
    with suppress(NotFound):
        return bool(api.client.get(f"{CRDS}/{CRD}"))
    return False


class Replica(RunningCa):
    """One replica of `place`'s ca, in a pod of its own (an object)."""

    def __init__(self, place: Place, name: str, *more: str) -> None:
        self.place, self.name, port = place, name, free_port()
        pod = place.add_pod(name, account="heddle-ca", namespace=place.namespace, port=port)
        self.pod = pod
        self.identity = Identity("cluster.local", place.namespace, "heddle-ca")
        env = {
            "POD_NAMESPACE": place.namespace,
            "POD_NAME": name,
            "POD_UID": pod["metadata"]["uid"],
            "KUBECONFIG": str(place.kubeconfig),
        }
        arguments = ("--root-secret", ROOT_SECRET, "--root-passphrase-file", str(place.passphrase_file))
        super().__init__(place.directory / f"{name}.log", *arguments, *more, env=env, port=port)

    @property
    def roots(self) -> str:
        return "".join(self.place.bundle()["roots"])

    def operator(self) -> SvidMaterial:
        """The certificate of the operator, who needs no pod."""
        return self.enrol(self.place.api.token(self.place.namespace, "heddle-operator", audiences=["istio-ca"]))

    def enrol(self, token: str, **more: Any) -> SvidMaterial:
        """A certificate by token."""
        return fetch(self.address, self.roots, new_key_request(), Token(token), **more)

    def renew(self, current: SvidMaterial, pod: PodRef) -> SvidMaterial:
        """A certificate by the one in hand."""
        return fetch(self.address, current.bundle.pem, new_key_request(), current, pod=pod)


class Place:
    """A namespace for the ca (in the place of istio-system), its service account and rights, and one for workloads."""

    def __init__(self, api: ApiServer, directory: Path, namespace: str, workloads: str) -> None:
        self.api, self.directory = api, directory
        self.namespace, self.workloads = namespace, workloads
        self.node = f"node-{namespace}"
        self.passphrase_file = directory / "passphrase"
        self.passphrase_file.write_text(PASSPHRASE)
        self._objects: list[str] = []
        self.give([*access("ca"), *yaml.safe_load_all(LOCAL_VERIFICATION.read_text())])
        api.client.post("/api/v1/nodes", {"metadata": {"name": self.node}})
        api.as_service_account(namespace, "heddle-ca", directory)
        self.kubeconfig = directory / f"{namespace}.heddle-ca.kubeconfig"

    def give(self, rights: Iterable[Mapping[str, Any]]) -> None:
        """What is installed, with other names: the objects of the cluster are shared with other tests."""
        for given in rights:
            if given["kind"] == "ServiceAccount":
                continue
            body = json.loads(json.dumps(given).replace('"istio-system"', f'"{self.namespace}"'))
            plural = {"Role": "roles", "RoleBinding": "rolebindings"}.get(body["kind"], f"{body['kind'].lower()}s")
            base = "/apis/rbac.authorization.k8s.io/v1"
            if "namespace" in body["metadata"]:
                self.api.client.post(f"{base}/namespaces/{self.namespace}/{plural}", body)
                continue
            body["metadata"]["name"] += f"-{self.namespace}"
            if "roleRef" in body:
                body["roleRef"]["name"] = body["metadata"]["name"]
            self.api.client.post(f"{base}/{plural}", body)
            self._objects.append(f"{base}/{plural}/{body['metadata']['name']}")

    def close(self) -> None:
        for path in (*self._objects, f"/api/v1/nodes/{self.node}"):
            self.api.client.delete(path)

    def replica(self, name: str = "heddle-ca-0", *more: str) -> Replica:
        return Replica(self, name, *more)

    def add_pod(
        self,
        name: str,
        *,
        account: str = "reviews",
        namespace: str = "",
        node: str | None = None,
        annotations: Mapping[str, str] | None = None,
        port: int = 0,
    ) -> dict[str, Any]:
        """A pod on a node on which no kubelet runs."""
        namespace = namespace or self.workloads
        self._account(namespace, account)
        container: dict[str, Any] = {"name": "app", "image": "example.org/app"}
        if port:
            container["ports"] = [{"name": "https", "containerPort": port}]
        spec = {"serviceAccountName": account, "nodeName": node if node is not None else self.node}
        pod: dict[str, Any] = self.api.client.post(
            f"/api/v1/namespaces/{namespace}/pods",
            {
                "metadata": {"name": name, "annotations": dict(annotations or {})},
                "spec": {**spec, "containers": [container]},
            },
        )
        return pod

    def run(self, pod: Mapping[str, Any]) -> None:
        """Say of the pod what its kubelet would once it runs, on the loopback."""
        meta = pod["metadata"]
        state = {"running": {"startedAt": meta["creationTimestamp"]}}
        container = {"name": "app", "state": state, "ready": True, "restartCount": 0, "image": "", "imageID": ""}
        status = {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status"
        self.api.client.merge(path, {"status": {**status, "containerStatuses": [container]}})

    def _account(self, namespace: str, name: str) -> None:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        try:
            self.api.client.get(f"{path}/{name}")
        except NotFound:
            self.api.client.post(path, {"metadata": {"name": name}})

    def remove_pod(self, name: str, *, grace: int = 0) -> None:
        path = f"/api/v1/namespaces/{self.workloads}/pods/{name}"
        self.api.client.call("DELETE", path, query={"gracePeriodSeconds": str(grace)})

    def token(self, pod: Mapping[str, Any], audience: str = "istio-ca") -> str:
        """A token bound to `pod`, as its kubelet would ask for."""
        account = pod["spec"]["serviceAccountName"]
        return self.api.token(pod["metadata"]["namespace"], account, audiences=[audience], pod=pod)

    def stored(self) -> dict[str, str]:
        """The documents in the root's Secret."""
        secret = self.api.client.get(f"/api/v1/namespaces/{self.namespace}/secrets/{ROOT_SECRET}")
        return {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}

    def bundle(self) -> dict[str, Any]:
        bundle: dict[str, Any] = json.loads(self.stored()["bundle.json"])
        return bundle

    def certificates(self, namespace: str = "") -> dict[str, dict[str, Any]]:
        """The WorkloadCertificates of a namespace, by name."""
        found = self.api.client.get(CERTIFICATES.format(namespace or self.workloads))["items"]
        return {item["metadata"]["name"]: item for item in found}

    def events(self) -> list[dict[str, Any]]:
        """The ca's events of the workloads' namespace."""
        path = f"/apis/events.k8s.io/v1/namespaces/{self.workloads}/events"
        return [e for e in self.api.client.get(path)["items"] if e.get("reportingController") == "heddle.dev/ca"]


@contextmanager
def place(api: ApiServer, directory: Path) -> Iterator[Place]:
    """A ca's place, with everything gone afterwards."""
    with api.namespace(prefix="ca") as namespace, api.namespace(prefix="apps") as workloads:
        made = Place(api, directory, namespace, workloads)
        try:
            yield made
        finally:
            made.close()


def pod_ref(pod: Mapping[str, Any]) -> PodRef:
    meta = pod["metadata"]
    return PodRef(meta["namespace"], meta["name"], meta["uid"])
