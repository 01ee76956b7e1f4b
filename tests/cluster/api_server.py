"""A Kubernetes API server to test against: one started here, or an existing cluster's."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from kube.client import Client, connect
from mesh.errors import NotFound
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import Processes


class ApiServer:
    """`client` is an administrator's, and so is the file `kubeconfig`. `control_plane` is None where it is not ours."""

    def __init__(self, kubeconfig: Path, control_plane: ControlPlane | None = None) -> None:
        self.kubeconfig = kubeconfig
        self.control_plane = control_plane
        self.client = connect(kubeconfig=str(kubeconfig))
        self.address = self.client.address

    @contextmanager
    def namespace(self, labels: Mapping[str, str] | None = None, prefix: str = "test") -> Iterator[str]:
        """The name of a new namespace, which is deleted at the end."""
        name = f"{prefix}-{secrets.token_hex(3)}"
        self.client.post("/api/v1/namespaces", {"metadata": {"name": name, "labels": dict(labels or {})}})
        try:
            yield name
        finally:
            self.client.call("DELETE", f"/api/v1/namespaces/{name}")

    def token(
        self,
        namespace: str,
        service_account: str,
        *,
        audiences: Sequence[str] = (),
        pod: Mapping[str, Any] | None = None,
        seconds: int = 3600,
    ) -> str:
        """A token of the service account, which is made if need be; `pod`, an object, is what it is bound to."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        try:
            self.client.get(f"{path}/{service_account}")
        except NotFound:
            self.client.post(path, {"metadata": {"name": service_account}})
        spec: dict[str, Any] = {"audiences": list(audiences), "expirationSeconds": seconds}
        if pod is not None:
            meta = pod["metadata"]
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        answer = self.client.post(f"{path}/{service_account}/token", {"spec": spec})
        token: str = answer["status"]["token"]
        return token

    def as_service_account(self, namespace: str, name: str, directory: Path) -> Client:
        """A client that is the service account; its kubeconfig is written to `directory`."""
        config = yaml.safe_load(self.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": self.token(namespace, name)}
        path = directory / f"{namespace}.{name}.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return connect(kubeconfig=str(path))


@contextmanager
def running() -> Iterator[ApiServer]:
    """etcd, an API server and the controllers on loopback, with no node; gone at the end."""
    processes = Processes(isolate=False)
    try:
        # 192.0.2.1 is of a range that is nobody's (RFC 5737): an address must be given where there is no default route.
        control_plane = ControlPlane(processes, listen="127.0.0.1", advertise="192.0.2.1")
        control_plane.launch()
        control_plane.wait_working()
        yield ApiServer(control_plane.kubeconfig, control_plane)
    finally:
        processes.close()
