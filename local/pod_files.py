"""What a pod's containers share: host name, /etc files, kernel settings; and expanded command lines. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from local.env import expand
from local.network import DNS_ADDRESS

CLUSTER_DOMAIN = "cluster.local"
_LONGEST_HOST_NAME = 63
_LOCAL_NAMES = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::0\tip6-localnet",
    "fe00::0\tip6-mcastprefix",
    "fe00::1\tip6-allnodes",
    "fe00::2\tip6-allrouters",
)


def hostname(pod: Mapping[str, Any]) -> str:
    """`spec.hostname`, or the pod's name; at most 63 characters, as the kubelet cuts it."""
    name = pod["spec"].get("hostname") or pod["metadata"]["name"]
    return str(name)[:_LONGEST_HOST_NAME].rstrip("-.")


def files(pod: Mapping[str, Any], address: str) -> dict[str, str]:
    """/etc/hosts, /etc/hostname and /etc/resolv.conf."""
    return {
        "/etc/hosts": _hosts(pod, address),
        "/etc/hostname": f"{hostname(pod)}\n",
        "/etc/resolv.conf": resolv_conf(pod),
    }


def resolv_conf(pod: Mapping[str, Any]) -> str:
    """By dnsPolicy and dnsConfig. The cluster's resolver is the only one: every policy but None means ClusterFirst."""
    spec = pod["spec"]
    namespace = pod["metadata"].get("namespace") or "default"
    servers, searches, options = [], [], {}
    if spec.get("dnsPolicy") != "None":
        servers = [DNS_ADDRESS]
        searches = [f"{namespace}.svc.{CLUSTER_DOMAIN}", f"svc.{CLUSTER_DOMAIN}", CLUSTER_DOMAIN]
        options = {"ndots": "5"}
    extra = spec.get("dnsConfig") or {}
    servers += extra.get("nameservers") or []
    searches += extra.get("searches") or []
    options |= {item["name"]: item.get("value") for item in extra.get("options") or []}
    lines = [f"nameserver {server}" for server in dict.fromkeys(servers)]
    if searches:
        lines.append(f"search {' '.join(dict.fromkeys(searches))}")
    if options:
        words = [name if value is None else f"{name}:{value}" for name, value in options.items()]
        lines.append(f"options {' '.join(words)}")
    return "\n".join([*lines, ""])


def sysctls(pod: Mapping[str, Any]) -> dict[str, str]:
    """Settings of the pod's network: ports below 1024 for everybody, as container runtimes do, and its own."""
    wanted = (pod["spec"].get("securityContext") or {}).get("sysctls") or []
    own = {item["name"]: str(item["value"]) for item in wanted if item["name"].startswith("net.")}
    return {"net.ipv4.ip_unprivileged_port_start": "0", **own}


def expanded(line: Sequence[str], container: Mapping[str, Any], env: Mapping[str, str]) -> list[str]:
    """The command line with `$(NAME)` expanded where the pod wrote it; what the image brings is taken as it is."""
    written = {*(container.get("command") or []), *(container.get("args") or [])}
    return [expand(word, env) if word in written else word for word in line]


def _hosts(pod: Mapping[str, Any], address: str) -> str:
    spec = pod["spec"]
    name = hostname(pod)
    names = name
    if spec.get("subdomain"):
        namespace = pod["metadata"].get("namespace") or "default"
        names = f"{name}.{spec['subdomain']}.{namespace}.svc.{CLUSTER_DOMAIN}\t{name}"
    lines = ["# Kubernetes-managed hosts file.", *_LOCAL_NAMES, f"{address}\t{names}"]
    lines += [f"{alias['ip']}\t{' '.join(alias.get('hostnames') or [])}" for alias in spec.get("hostAliases") or []]
    return "\n".join([*lines, ""])
