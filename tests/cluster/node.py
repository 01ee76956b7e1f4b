"""A node of a test cluster: its network, containerd, kubelet and kube-proxy; on the first one also scheduler and DNS.

All in one network namespace that has no way out: pods are routed (CNI's `ptp`), so that every packet to a Service
passes the node's rules, also between pods. The API server is on the first node; `second_node` connects another.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from kube.client import Client
from tests.cluster import builds, images, missing
from tests.cluster.control_plane import ControlPlane
from tests.cluster.namespaces import NODE
from tests.cluster.processes import ComponentFailed, Processes

POD_RANGE = "10.244.0.0/16"  # of all nodes
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


class Place(NamedTuple):
    """What a node has for itself: its name, its address, the range of its pods' addresses, and its zone."""

    name: str
    address: str
    pods: str
    zone: str


FIRST = Place(NODE, "10.250.0.1", "10.244.0.0/24", "test-a")
SECOND = Place(f"{NODE}-2", "10.250.0.2", "10.244.1.0/24", "test-b")


class Node:
    """Start with `start_network`, then the control plane if it is here, then `start` or `join`."""

    def __init__(self, processes: Processes, place: Place = FIRST) -> None:
        self.processes = processes
        self.place = place
        self.directory = processes.state / "node"
        self.directory.mkdir()
        self.kept_images = self.directory / "kept-images"
        self._images = self.directory / "containerd"
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
        self.run("ip", "address", "add", f"{self.place.address}/32", "dev", "lo")
        self.run("ip", "route", "add", SERVICE_RANGE, "dev", "lo", "src", self.place.address)
        self.run("sysctl", "-qw", "net.ipv4.ip_forward=1")

    def start_forwarding(self, port: int) -> None:
        """Pass what comes to `processes.port`, on this machine's loopback, on to a port of the node's loopback."""
        self.processes.start("forward", [self._kubernetes, "forward", "{listener}", f"127.0.0.1:{port}"])

    def start_containerd(self, images_of: Node | None = None) -> None:
        """`images_of`: a node whose kept images this one has from the start."""
        if images_of is not None:
            _copy_with_links(images_of.kept_images, self._images)
        config = self.directory / "containerd.toml"
        config.write_text(
            CONTAINERD_CONFIG.format(
                root=self._images, directory=self.directory, socket=SOCKET, pause=images.PAUSE, cni=CNI_PROGRAMS
            )
        )
        network = self.directory / "cni"
        network.mkdir()
        (network / "10-test.conflist").write_text(json.dumps(_network(self.place.pods, self.directory)))
        self.processes.start(
            "containerd",
            [str(self._containerd / "containerd"), "--config", str(config)],
            PATH=f"{self._containerd}:{missing.SEARCH}",
        )
        self.run("sh", "-c", "until ctr version >/dev/null 2>&1; do sleep 0.05; done")

    def import_image(self, archive: Path) -> None:
        """Import a docker-archive or OCI tar, under the names that it has."""
        self.run("ctr", "--namespace=k8s.io", "images", "import", "--local", "--snapshotter=overlayfs", str(archive))

    def keep_images(self) -> None:
        """Keep what was imported as it is now, before there are pods, for nodes that come later."""
        # What a process that stands still has written is what one that was killed there would find again (bbolt).
        self.processes.signal("containerd", signal.SIGSTOP)
        _copy_with_links(self._images, self.kept_images)
        self.processes.signal("containerd", signal.SIGCONT)

    def start(self, control_plane: ControlPlane, client: Client) -> None:
        """Everything else, on the first node; returns when it is ready for pods and DNS answers."""
        self._start_component("kube-scheduler", control_plane)
        self._start_dns(control_plane, client)
        self.join(control_plane, client)

    def join(self, control_plane: ControlPlane, client: Client) -> None:
        """kubelet and kube-proxy; returns when the node is ready for pods."""
        self.start_kubelet(control_plane)
        self._start_component("kube-proxy", control_plane, hostnameOverride=self.place.name)
        self.processes.wait_until("kubelet", lambda: _is_ready(client.get(f"/api/v1/nodes/{self.place.name}")))

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
        name, address, _, zone = self.place
        kubeconfig = control_plane.component_kubeconfig(f"kubelet-{name}", f"system:node:{name}", "system:nodes")
        self.processes.start(
            "kubelet",
            [
                self._kubernetes,
                "kubelet",
                f"--config={self._config('kubelet', settings)}",
                f"--kubeconfig={kubeconfig}",
                f"--root-dir={self.directory / 'kubelet'}",
                f"--cert-dir={self.directory / 'kubelet-pki'}",
                f"--node-ip={address}",
                f"--hostname-override={name}",
                f"--node-labels=topology.kubernetes.io/region=test,topology.kubernetes.io/zone={zone}",
            ],
        )

    def _start_dns(self, control_plane: ControlPlane, client: Client) -> None:
        kubeconfig = control_plane.component_kubeconfig("coredns", "system:coredns", "system:masters")
        corefile = self.directory / "Corefile"
        corefile.write_text(COREFILE.format(address=self.place.address, kubeconfig=kubeconfig, domain=DOMAIN))
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
                "endpoints": [{"addresses": [self.place.address], "conditions": {"ready": True}}],
            },
        )

    def _start_component(self, name: str, control_plane: ControlPlane, **settings: Any) -> None:
        """kube-proxy or kube-scheduler."""
        kubeconfig = control_plane.component_kubeconfig(name, f"system:{name}")
        config = self._config(name, COMPONENTS[name] | settings, kubeconfig=kubeconfig)
        self.processes.start(name, [self._kubernetes, name, f"--config={config}", *FLAGS[name]])

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


def _copy_with_links(source: Path, target: Path) -> None:
    """A copy of a containerd's directory. Layers are never written to, so they are links; its databases are not."""
    subprocess.run(["cp", "--archive", "--link", source, target], check=True)
    for database in source.glob("*/*.db"):
        copy = target / database.relative_to(source)
        copy.unlink()
        shutil.copy(database, copy)


def _network(pods: str, directory: Path) -> dict[str, Any]:
    ranges = [[{"subnet": pods}]]
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
root = "{root}"
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
