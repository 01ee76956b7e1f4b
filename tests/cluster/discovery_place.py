"""For tests of discovery at a real API server: its service account with the rights that are installed, Istio's kinds as
they are installed, and pods that are only objects (no kubelet runs them: tests write their status)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from install.names import in_namespace
from mesh.errors import NotFound
from mesh.identity import CONTROL_NAMESPACE
from mesh.objects import SIDECAR_STATUS_ANNOTATION
from mesh.rbac import access
from tests.cluster.api_server import ApiServer
from tests.discovery.harness import Agent, DiscoveryProcess, Json
from tests.support.waiting import wait_for

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CRD_FILES = Path(__file__).parents[2] / "manifests" / "crds"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
PODS = "/api/v1/namespaces/{}/pods"
SERVICES = "/api/v1/namespaces/{}/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"
NODE = "node-of-discovery-tests"


def istio_kinds() -> list[Json]:
    """The definitions of Istio's kinds, as they are installed."""
    found = [yaml.safe_load(file.read_text()) for file in sorted(CRD_FILES.glob("*.yaml"))]
    return [one for one in found if one.get("spec", {}).get("group", "").endswith(".istio.io")]


class Place:
    """A cluster with discovery's account and rights in the namespace `home`, and a namespace for workloads."""

    def __init__(self, api: ApiServer, directory: Path, namespace: str, home: str) -> None:
        self.api, self.directory, self.namespace, self.home = api, directory, namespace, home
        self._made: list[str] = []
        self.kubeconfig = directory / f"{home}.heddle-discovery.kubeconfig"
        self._numbers = iter(range(1, 250))

    def open(self, *, kinds: bool = True) -> None:
        self._apply(f"/api/v1/namespaces/{self.home}", {"apiVersion": "v1", "kind": "Namespace"})
        self.api.as_service_account(self.home, "heddle-discovery", self.directory)
        for one in (in_namespace(one, self.home) for one in access("discovery")):
            if one["kind"] == "ServiceAccount":
                continue
            plural = {"Role": "roles", "RoleBinding": "rolebindings"}.get(one["kind"], f"{one['kind'].lower()}s")
            namespace = one["metadata"].get("namespace")
            self._apply(f"{RBAC}/{f'namespaces/{namespace}/' if namespace else ''}{plural}/{name_of(one)}", one)
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"labels": {"topology.kubernetes.io/zone": "z1"}}}
        self._apply(f"/api/v1/nodes/{NODE}", node)
        if kinds:
            self.define()

    def define(self) -> None:
        """Install Istio's kinds."""
        for one in istio_kinds():
            self._apply(f"{CRDS}/{name_of(one)}", one)
        for one in istio_kinds():
            wait_for(lambda one=one: self._established(name_of(one)))  # type: ignore[misc]

    def close(self) -> None:
        for path in reversed(self._made):
            with suppress(NotFound):
                self.api.client.delete(path)

    def _established(self, name: str) -> bool:
        found = (self.api.client.get(f"{CRDS}/{name}").get("status") or {}).get("conditions") or []
        return any(each["type"] == "Established" and each["status"] == "True" for each in found)

    def _apply(self, path: str, body: Json) -> None:
        metadata = {**body.get("metadata", {}), "name": path.rpartition("/")[2]}
        self.api.client.apply(path, {**body, "metadata": metadata})
        self._made.append(path)

    # ---- objects

    def put(self, path: str, body: Mapping[str, Any]) -> Json:
        """Create or change the object `path` in the workloads' namespace (`{}` in it)."""
        applied: Json = self.api.client.apply(path.format(self.namespace), body)
        return applied

    def service(self, name: str, **spec: Any) -> Json:
        ports = spec.pop("ports", [{"name": "http", "port": 80, "targetPort": 8080}])
        body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}}
        return self.put(f"{SERVICES}/{name}", {**body, "spec": {"selector": {"app": name}, "ports": ports, **spec}})

    def pod(
        self, name: str, *, app: str = "", ready: bool = True, annotations: Mapping[str, str] | None = None
    ) -> Json:
        """A running pod with a sidecar, of account `name`."""
        path = PODS.format(self.namespace)
        with suppress(NotFound):
            self.api.client.get(f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{name}")
        self.put(
            f"/api/v1/namespaces/{{}}/serviceaccounts/{name}",
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}},
        )
        self.api.client.post(
            path,
            {
                "metadata": {
                    "name": name,
                    "labels": {"app": app or name},
                    "annotations": {SIDECAR_STATUS_ANNOTATION: "{}", **(annotations or {})},
                },
                "spec": {
                    "serviceAccountName": name,
                    "nodeName": NODE,
                    "containers": [{"name": "app", "image": "example.org/app"}],
                },
            },
        )
        return self.set_ready(name, ready, ip=f"10.244.7.{next(self._numbers)}")

    def set_ready(self, name: str, ready: bool, *, ip: str = "") -> Json:
        path = f"{PODS.format(self.namespace)}/{name}"
        status: Json = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        }
        if ip:
            status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
        changed: Json = self.api.client.call(
            "PATCH", f"{path}/status", body={"status": status}, content_type="application/merge-patch+json"
        )
        return changed

    def delete(self, path: str, *, grace: int = 0) -> None:
        self.api.client.call("DELETE", path.format(self.namespace), query={"gracePeriodSeconds": str(grace)})

    def agent(self, discovery: DiscoveryProcess, pod: Json) -> Agent:
        return Agent(
            discovery,
            pod["metadata"]["name"],
            pod["status"]["podIP"],
            account=pod["metadata"]["name"],
            namespace=self.namespace,
        )


class Follower:
    """An agent that is asked again and again what it has."""

    def __init__(self, agent: Agent, namespace: str) -> None:
        self.agent, self.namespace = agent, namespace

    def poll(self) -> None:
        status, body = self.agent.poll(0.05)
        if status == 410:
            self.agent.session, self.agent.sequence = "", 0
        assert status in (200, 204, 404, 410, 503), body

    def addresses(self, service: str, port: int = 80) -> list[str]:
        """The addresses that answer for the service, after a poll."""
        self.poll()
        name = f"outbound|{port}||{service}.{self.namespace}.svc.cluster.local"
        found = self.agent.has.get("endpoints", {}).get(name, {"endpoints": []})
        return [
            each["endpoint"]["address"]["socket_address"]["address"]
            for group in found["endpoints"]
            for each in group["lb_endpoints"]
        ]

    def services(self) -> set[str]:
        """The services that it has endpoint sets of."""
        self.poll()
        return {name.split("|")[3].split(".")[0] for name in self.agent.has.get("endpoints", {}) if self._own(name)}

    def paths(self, service: str, port: int = 80) -> list[str]:
        """The path prefixes that are routed."""
        self.poll()
        name = f"{port}/{service}.{self.namespace}.svc.cluster.local:{port}"
        host = self.agent.has.get("virtualHosts", {}).get(name, {"routes": []})
        found = []
        for route in host["routes"]:
            match = route["match"]
            found.append(match.get("prefix") or match.get("path_separated_prefix") or "")
        return found

    def _own(self, name: str) -> bool:
        return name.endswith(f".{self.namespace}.svc.cluster.local")


def name_of(raw: Mapping[str, Any]) -> str:
    name: str = raw["metadata"]["name"]
    return name


def virtual_service(name: str, host: str, prefix: str, version: str = "v1") -> Json:
    return {
        "apiVersion": f"networking.istio.io/{version}",
        "kind": "VirtualService",
        "metadata": {"name": name},
        "spec": {
            "hosts": [host],
            "http": [{"match": [{"uri": {"prefix": prefix}}], "route": [{"destination": {"host": host}}]}],
        },
    }


@contextmanager
def place(api: ApiServer, directory: Path, *, kinds: bool = True, home: str = CONTROL_NAMESPACE) -> Iterator[Place]:
    """A place, with everything gone afterwards."""
    with api.namespace(prefix="discovered") as namespace:
        made = Place(api, directory, namespace, home)
        try:
            made.open(kinds=kinds)
            yield made
        finally:
            made.close()
