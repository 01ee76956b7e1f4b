"""The node of a test cluster: its network, containerd, kubelet, kube-proxy, scheduler and DNS.

All in one network namespace that has no way out: pods are routed (CNI's `ptp`), so that every packet to a Service
passes the node's rules, also between pods. The API server is on the same node.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from kube.client import Client
from tests.cluster import builds, images, missing
from tests.cluster.control_plane import ControlPlane
from tests.cluster.namespaces import NODE
from tests.cluster.processes import ComponentFailed, Processes

ADDRESS = "10.250.0.1"
POD_RANGE = "10.244.0.0/24"
SERVICE_RANGE = "10.96.0.0/16"
DNS_ADDRESS = "10.96.0.10"
DOMAIN = "cluster.local"
SOCKET = "/run/containerd/containerd.sock"
CNI_PROGRAMS = Path("/usr/lib/cni")


def requirements() -> None:
    """Programs that a node needs, built or found; Missing."""
    for name, package in (
        ("runc", "runc"),
        ("iptables", "iptables"),
        ("conntrack", "conntrack"),
        ("ip", "iproute2"),
        ("nsenter", "util-linux"),
    ):
        missing.program(name, package)
    if not (CNI_PROGRAMS / "ptp").exists():
        raise missing.Missing(f"{CNI_PROGRAMS}/ptp is not there (Debian: apt-get install containernetworking-plugins)")
    for build in (builds.CONTAINERD, builds.COREDNS, builds.PAUSE, builds.KUBERNETES):
        builds.built(build)


class Node:
    """Start with `start_network`, then the control plane, then `start`."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.directory = processes.state / "node"
        self.directory.mkdir()
        self._containerd = builds.built(builds.CONTAINERD)
        self._kubernetes = str(builds.built(builds.KUBERNETES) / "kubernetes")

    def inside(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` as root on the node."""
        enter = ["nsenter", f"--target={self.processes.pid}", "--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup"]
        return [missing.program(enter[0], "util-linux"), *enter[1:], "--", *argv]

    def run(self, *argv: str, stdin: Any = None) -> str:
        """What a command on the node prints; ComponentFailed, with what it complained about, when it fails."""
        environment = {
            "PATH": f"{self._containerd}:{missing.SEARCH}",
            "CONTAINERD_ADDRESS": SOCKET,
            "LC_ALL": "C.UTF-8",
        }
        done = subprocess.run(
            self.inside(argv), env=environment, stdin=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ComponentFailed(f"{' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout

    def start_network(self) -> None:
        """The node's address, and a route for Services, whose addresses its rules then rewrite."""
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")
        self.run("ip", "route", "add", SERVICE_RANGE, "dev", "lo", "src", ADDRESS)
        self.run("sysctl", "-qw", "net.ipv4.ip_forward=1")

    def start_forwarding(self, port: int) -> None:
        """Pass what comes to `processes.port`, on this machine's loopback, on to a port of the node's loopback."""
        self.processes.start("forward", [self._kubernetes, "forward", "{listener}", f"127.0.0.1:{port}"])

    def start_containerd(self) -> None:
        config = self.directory / "containerd.toml"
        config.write_text(
            CONTAINERD_CONFIG.format(directory=self.directory, socket=SOCKET, pause=images.PAUSE, cni=CNI_PROGRAMS)
        )
        network = self.directory / "cni"
        network.mkdir()
        (network / "10-test.conflist").write_text(json.dumps(_network(self.directory)))
        self.processes.start(
            "containerd",
            [str(self._containerd / "containerd"), "--config", str(config)],
            PATH=f"{self._containerd}:{missing.SEARCH}",
        )
        self.run("sh", "-c", "until ctr version >/dev/null 2>&1; do sleep 0.05; done")

    def import_image(self, archive: Path) -> None:
        """Import a docker-archive or OCI tar, under the names that it has."""
        self.run("ctr", "--namespace=k8s.io", "images", "import", "--local", "--snapshotter=overlayfs", str(archive))

    def start(self, control_plane: ControlPlane, client: Client) -> None:
        """Everything else; returns when the node is ready for pods and DNS answers."""
        self.start_kubelet(control_plane)
        for name, user in (("kube-proxy", "system:kube-proxy"), ("kube-scheduler", "system:kube-scheduler")):
            config = self._config(name, COMPONENTS[name], kubeconfig=control_plane.component_kubeconfig(name, user))
            self.processes.start(name, [self._kubernetes, name, f"--config={config}", *FLAGS[name]])
        self._start_dns(control_plane, client)
        control_plane.wait_until("kubelet", lambda: _is_ready(client.get(f"/api/v1/nodes/{NODE}")))

    def start_kubelet(self, control_plane: ControlPlane) -> None:
        """Again, too, after it has ended: containers outlive it."""
        resolver = self.directory / "resolv.conf"
        resolver.write_text("")  # what pods with dnsPolicy Default get: nothing outside is known
        settings = KUBELET | {"resolvConf": str(resolver), "podLogsDir": str(self.directory / "pod-logs")}
        settings["authentication"] = {
            "x509": {"clientCAFile": str(control_plane.directory / "ca.crt")},
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
        }
        kubeconfig = control_plane.component_kubeconfig("kubelet", f"system:node:{NODE}", "system:nodes")
        self.processes.start(
            "kubelet",
            [
                self._kubernetes,
                "kubelet",
                f"--config={self._config('kubelet', settings)}",
                f"--kubeconfig={kubeconfig}",
                f"--root-dir={self.directory / 'kubelet'}",
                f"--cert-dir={self.directory / 'kubelet-pki'}",
                f"--node-ip={ADDRESS}",
                f"--hostname-override={NODE}",
                "--node-labels=topology.kubernetes.io/region=test,topology.kubernetes.io/zone=test-a",
            ],
        )

    def _start_dns(self, control_plane: ControlPlane, client: Client) -> None:
        kubeconfig = control_plane.component_kubeconfig("coredns", "system:coredns", "system:masters")
        corefile = self.directory / "Corefile"
        corefile.write_text(COREFILE.format(address=ADDRESS, kubeconfig=kubeconfig, domain=DOMAIN))
        self.processes.start("coredns", [str(builds.built(builds.COREDNS) / "coredns"), "-conf", str(corefile)])
        services = "/api/v1/namespaces/kube-system/services"
        ports = [{"name": f"dns-{kind.lower()}", "port": 53, "protocol": kind} for kind in ("UDP", "TCP")]
        labels = {"k8s-app": "kube-dns"}
        client.post(
            services,
            {"metadata": {"name": "kube-dns", "labels": labels}, "spec": {"clusterIP": DNS_ADDRESS, "ports": ports}},
        )
        client.post(
            "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices",
            {
                "metadata": {"name": "kube-dns", "labels": {"kubernetes.io/service-name": "kube-dns"}},
                "addressType": "IPv4",
                "ports": ports,
                "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": True}}],
            },
        )

    def _config(self, name: str, settings: Mapping[str, Any], *, kubeconfig: Path | None = None) -> Path:
        path = self.directory / f"{name}.yaml"
        chosen = dict(settings)
        if kubeconfig is not None:
            chosen["clientConnection"] = {"kubeconfig": str(kubeconfig)}
        path.write_text(yaml.safe_dump(chosen))
        return path


def _is_ready(node: Mapping[str, Any]) -> bool:
    conditions = node["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _network(directory: Path) -> dict[str, Any]:
    ranges = [[{"subnet": POD_RANGE}]]
    ipam = {
        "type": "host-local",
        "ranges": ranges,
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(directory / "ipam"),
    }
    plugins = [
        {"type": "ptp", "ipMasq": False, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return {"cniVersion": "1.0.0", "name": "test", "plugins": plugins}


CONTAINERD_CONFIG = """\
version = 3
root = "{directory}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri"]

[grpc]
address = "{socket}"

[plugins.'io.containerd.cri.v1.images']
snapshotter = "overlayfs"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{pause}"

[plugins.'io.containerd.cri.v1.runtime']
# Root may lack CAP_SYS_RESOURCE, as in many a container; then no sandbox could have the score that it should.
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{cni}"]
conf_dir = "{directory}/cni"
"""

COREFILE = """\
.:53 {{
    bind {address}
    errors
    ready 127.0.0.1:8181
    kubernetes {domain} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
    loadbalance
}}
"""

KUBELET: dict[str, Any] = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "containerRuntimeEndpoint": f"unix://{SOCKET}",
    "cgroupDriver": "cgroupfs",
    "failCgroupV1": False,
    "failSwapOn": False,
    "localStorageCapacityIsolation": False,
    "enforceNodeAllocatable": [],
    "authorization": {"mode": "AlwaysAllow"},
    "clusterDNS": [DNS_ADDRESS],
    "clusterDomain": DOMAIN,
    "maxPods": 250,
    "serializeImagePulls": False,
    "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
    "imageGCHighThresholdPercent": 100,
    "syncFrequency": "10s",
    "volumePluginDir": "/run/volume-plugins",
    "shutdownGracePeriod": "0s",
}

COMPONENTS: dict[str, dict[str, Any]] = {
    "kube-proxy": {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": POD_RANGE,
        "hostnameOverride": NODE,
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpCloseWaitTimeout": "0s", "tcpEstablishedTimeout": "0s"},
        "iptables": {"minSyncPeriod": "100ms"},
        "nodePortAddresses": ["primary"],
    },
    "kube-scheduler": {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
    },
}
FLAGS: dict[str, list[str]] = {
    "kube-proxy": [],
    "kube-scheduler": ["--authentication-skip-lookup", "--secure-port=0"],
}
