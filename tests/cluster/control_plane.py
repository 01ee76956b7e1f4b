"""etcd, the API server and the controller manager of a test cluster."""

from __future__ import annotations

import base64
import secrets
import signal
import time
from pathlib import Path
from typing import Any

import urllib3
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from kube.client import connect
from tests.cluster import builds, missing
from tests.cluster.certificates import ClusterAuthority
from tests.cluster.processes import Processes
from tests.support.ports import free_port

ISSUER = "https://kubernetes.default.svc.cluster.local"
CLUSTER_ADDRESS = "10.96.0.1"  # the first of the service range, which the API server gives to `kubernetes`
NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")

# Memory for time, as each is there for minutes (https://pkg.go.dev/runtime, GOGC): a fifth less for the API server.
GO = {"GOGC": "400"}

# What service accounts other than Kubernetes' own did: who used which right.
AUDIT: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


class ControlPlane:
    """Runs among `processes`; the API server listens on `listen` and says it is at `advertise`.

    `etcd_address` is the URL of etcd, without credentials. `kubeconfig` is an administrator's.
    """

    def __init__(self, processes: Processes, *, listen: str, advertise: str, outside_port: int = 0) -> None:
        """`outside_port`: where this process reaches the API server, if that is in another network."""
        self.processes = processes
        self.directory = processes.state / "control-plane"
        self.directory.mkdir()
        self._etcd = missing.program("etcd", "etcd-server")
        self._kubernetes = str(builds.built(builds.KUBERNETES) / "kubernetes")
        self._listen, self._advertise = listen, advertise
        self._among_components = "127.0.0.1" if listen == "127.0.0.1" else advertise  # from another node, too
        etcd, peer, self.port = (2379, 2380, 6443) if outside_port else (free_port() for _ in range(3))
        self.etcd_address = f"http://127.0.0.1:{etcd}"
        self._peer_address = f"http://127.0.0.1:{peer}"
        self.address = f"https://127.0.0.1:{outside_port or self.port}"
        self.kubeconfig = self.directory / "admin.kubeconfig"
        self.audit_log = self.directory / "audit.log"
        (self.directory / "audit-policy.yaml").write_text(yaml.safe_dump(AUDIT))
        self._write_credentials()

    def launch(self) -> None:
        """Start etcd and the API server, without waiting."""
        self.start_etcd()
        self.start_api_server()

    def wait_working(self) -> None:
        """Until the API server is ready and the controllers are at work; ComponentFailed if they never are.

        The controllers would end if they had to wait for the API server for ten seconds.
        """
        self.wait_ready()
        self.start_controllers()
        client = connect(kubeconfig=str(self.kubeconfig))
        self.processes.wait_until(
            "kube-controller-manager",
            lambda: bool(
                client.get("/api/v1/namespaces/default/serviceaccounts/default")
                and client.get("/api/v1/namespaces/default/configmaps/kube-root-ca.crt")
            ),
        )

    def start_etcd(self) -> None:
        self.processes.start(
            "etcd",
            [
                self._etcd,
                "--name=test",
                f"--data-dir={self.directory / 'etcd'}",
                f"--listen-client-urls={self.etcd_address}",
                f"--advertise-client-urls={self.etcd_address}",
                f"--listen-peer-urls={self._peer_address}",
                f"--initial-advertise-peer-urls={self._peer_address}",
                f"--initial-cluster=test={self._peer_address}",
                "--quota-backend-bytes=2147483648",
                "--unsafe-no-fsync",  # what it has written outlives its process, which is all that tests kill
                "--log-level=warn",
                "--logger=zap",
            ],
            **GO,
        )

    def start_api_server(self) -> None:
        here = self.directory
        self.processes.start(
            "kube-apiserver",
            [
                self._kubernetes,
                "kube-apiserver",
                f"--etcd-servers={self.etcd_address}",
                f"--bind-address={self._listen}",
                f"--advertise-address={self._advertise}",
                f"--secure-port={self.port}",
                f"--tls-cert-file={here / 'apiserver.crt'}",
                f"--tls-private-key-file={here / 'apiserver.key'}",
                f"--client-ca-file={here / 'ca.crt'}",
                f"--kubelet-client-certificate={here / 'kubelet-client.crt'}",
                f"--kubelet-client-key={here / 'kubelet-client.key'}",
                "--kubelet-preferred-address-types=InternalIP",
                f"--requestheader-client-ca-file={here / 'ca.crt'}",
                "--requestheader-username-headers=X-Remote-User",
                "--requestheader-group-headers=X-Remote-Group",
                "--requestheader-extra-headers-prefix=X-Remote-Extra-",
                "--requestheader-allowed-names=front-proxy",
                f"--proxy-client-cert-file={here / 'front-proxy.crt'}",
                f"--proxy-client-key-file={here / 'front-proxy.key'}",
                f"--token-auth-file={here / 'tokens.csv'}",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                f"--service-account-issuer={ISSUER}",
                f"--service-account-signing-key-file={here / 'service-accounts.key'}",
                f"--service-account-key-file={here / 'service-accounts.key'}",
                f"--api-audiences={ISSUER},istio-ca",
                f"--audit-policy-file={here / 'audit-policy.yaml'}",
                f"--audit-log-path={self.audit_log}",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--allow-privileged=true",
                # On loopback there is no address that pods could reach, so the Service `kubernetes` has no endpoints.
                f"--endpoint-reconciler-type={'none' if self._listen == '127.0.0.1' else 'lease'}",
            ],
            **GO,
        )

    def start_controllers(self) -> None:
        here = self.directory
        self.processes.start(
            "kube-controller-manager",
            [
                self._kubernetes,
                "kube-controller-manager",
                f"--kubeconfig={self.component_kubeconfig('controllers', 'system:kube-controller-manager')}",
                "--use-service-account-credentials",
                f"--service-account-private-key-file={here / 'service-accounts.key'}",
                f"--root-ca-file={here / 'ca.crt'}",
                f"--cluster-signing-cert-file={here / 'ca.crt'}",
                f"--cluster-signing-key-file={here / 'ca.key'}",
                "--authentication-skip-lookup",
                "--secure-port=0",
                "--leader-elect=false",
                "--allocate-node-cidrs=false",
                "--node-monitor-grace-period=40s",
                "--profiling=false",
            ],
            **GO,
        )

    def kill(self, name: str) -> None:
        """SIGKILL `etcd`, `kube-apiserver` or `kube-controller-manager`, and wait until it is gone."""
        self.processes.signal(name, signal.SIGKILL)
        while self.processes.exit_code(name) is None:
            time.sleep(0.01)

    def wait_ready(self) -> None:
        """Until the API server says that it is ready."""
        pool = urllib3.PoolManager(ca_certs=str(self.directory / "ca.crt"), retries=False)

        def ready() -> bool:
            try:
                return pool.request("GET", f"{self.address}/readyz", timeout=5).status == 200
            except urllib3.exceptions.HTTPError:
                return False

        self.processes.wait_until("kube-apiserver", ready)

    def compact(self) -> int:
        """Make etcd forget every version before now, as it does every 5 minutes; the version now."""
        now = int(self._ask_etcd("/v3/kv/range", {"key": "AA=="})["header"]["revision"])
        self._ask_etcd("/v3/kv/compaction", {"revision": str(now), "physical": True})
        return now

    def delete_stored(self, key: str) -> None:
        """Take an object out of etcd behind the API server's back."""
        answer = self._ask_etcd("/v3/kv/deleterange", {"key": base64.b64encode(key.encode()).decode()})
        assert int(answer.get("deleted", 0)) == 1, key

    def _ask_etcd(self, path: str, body: dict[str, Any]) -> Any:
        return urllib3.request("POST", self.etcd_address + path, json=body, retries=False, timeout=10).json()

    def _write_credentials(self) -> None:
        here = self.directory
        self.authority = ClusterAuthority(here)
        self.authority.issue(
            "apiserver", "kube-apiserver", names=[*NAMES, "localhost", "127.0.0.1", CLUSTER_ADDRESS, self._advertise]
        )
        self.authority.issue("kubelet-client", "kube-apiserver-kubelet-client", groups=["system:masters"])
        self.authority.issue("front-proxy", "front-proxy")
        key = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (here / "service-accounts.key").write_bytes(key)
        token = secrets.token_hex(16)
        (here / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        write_kubeconfig(self.kubeconfig, self.address, here / "ca.crt", {"token": token})

    def component_kubeconfig(self, name: str, user: str, *groups: str) -> Path:
        """NAME.kubeconfig, for a component here or on a node, of a client certificate for `user` in `groups`."""
        path = self.directory / f"{name}.kubeconfig"
        if not path.exists():
            self.authority.issue(name, user, groups=groups)
            credentials = {
                "client-certificate": str(self.directory / f"{name}.crt"),
                "client-key": str(self.directory / f"{name}.key"),
            }
            address = f"https://{self._among_components}:{self.port}"
            write_kubeconfig(path, address, self.directory / "ca.crt", credentials)
        return path


def write_kubeconfig(path: Path, address: str, authority: Path, user: dict[str, str]) -> None:
    trusted = base64.b64encode(authority.read_bytes()).decode()
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {"name": "test", "cluster": {"server": address, "certificate-authority-data": trusted}},
                ],
                "users": [{"name": "test", "user": user}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "current-context": "test",
            }
        )
    )
    path.chmod(0o600)
