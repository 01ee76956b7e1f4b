"""`heddle config POD TYPE`: what that pod's Envoy runs, in its own words."""

from __future__ import annotations

from typing import Any

import click
import orjson

from cli.cluster_mesh import ClusterMesh
from cli.commands.local import find_pod, run_in_pod
from cli.control_namespace import mesh_options
from cli.mesh_access import connect
from cli.output import columns, output_option, show
from cli.pod_names import the_one
from cli.reach import cluster_asked
from mesh.errors import Unavailable
from mesh.objects import PROXY_CONTAINER

KINDS = ("listeners", "routes", "clusters", "endpoints")
QUERY = {
    "listeners": "/config_dump?resource=dynamic_listeners",
    "routes": "/config_dump?resource=dynamic_route_configs",
    "clusters": "/config_dump?resource=dynamic_active_clusters",
    "endpoints": "/clusters?format=json",
}


@click.command("config")
@click.argument("pod")
@click.argument("what", type=click.Choice(KINDS))
@click.option("-n", "--namespace", default="", help="The pod's namespace, where POD does not name it (NS/POD).")
@mesh_options
@output_option
def command(pod: str, what: str, namespace: str, kubeconfig: str, output: str) -> None:
    """What the Envoy of POD runs: listeners, routes, clusters or endpoints.

    POD is a pod's name, `namespace/name`, or the beginning of a name that only one pod has. On a cluster it is asked in
    its own container, by the user's right to `pods/exec`.
    """
    cluster = cluster_asked(kubeconfig)
    argv = ["heddle-agent", "admin", "GET", QUERY[what]]
    text = _on_cluster(ClusterMesh(cluster), pod, namespace, argv) if cluster else _embedded(pod, namespace, argv)
    try:
        answer = orjson.loads(text)
    except ValueError as error:
        raise Unavailable(f"the Envoy of {pod} did not answer: {text[:200]}") from error
    show(_resources(what, answer), output, lambda value: _TABLES[what](value))


def _embedded(pod: str, namespace: str, argv: list[str]) -> str:
    mesh = connect()
    return run_in_pod(mesh, find_pod(mesh, pod, namespace), PROXY_CONTAINER, argv)


def _on_cluster(mesh: ClusterMesh, pod: str, namespace: str, argv: list[str]) -> str:
    where = pod.rpartition("/")[0] or namespace
    found = the_one(mesh.pods(where), pod, namespace, "`heddle status` lists those that have a sidecar")
    return mesh.run(found, PROXY_CONTAINER, argv)


def _resources(what: str, dump: dict[str, Any]) -> list[dict[str, Any]]:
    if what == "endpoints":
        return [status for status in dump.get("cluster_statuses", ()) if status.get("host_statuses")]
    inner = {"listeners": "listener", "routes": "route_config", "clusters": "cluster"}[what]
    found = []
    for entry in dump.get("configs", ()):
        state = entry.get("active_state", entry)
        if inner in state:
            found.append(state[inner])
    return sorted(found, key=lambda resource: str(resource.get("name", "")))


def _listeners(found: list[dict[str, Any]]) -> str:
    def row(listener: dict[str, Any]) -> tuple[object, ...]:
        address = listener.get("address", {}).get("socket_address", {})
        chains = listener.get("filter_chains", [])
        kinds = {f["name"].rpartition(".")[2] for chain in chains for f in chain.get("filters", ())}
        return (
            listener["name"],
            address.get("address"),
            address.get("port_value"),
            "yes" if listener.get("bind_to_port", True) else "no",
            len(chains),
            ", ".join(sorted(kinds)),
        )

    return columns(("name", "address", "port", "bound", "chains", "filters"), map(row, found))


def _routes(found: list[dict[str, Any]]) -> str:
    rows = [
        (table["name"], host["name"], _match(route.get("match", {})), _action(route))
        for table in found
        for host in table.get("virtual_hosts", ())
        for route in host.get("routes", ())
    ]
    return columns(("table", "virtual host", "match", "goes to"), rows)


def _match(match: dict[str, Any]) -> str:
    path = next((f"{key} {match[key]}" for key in ("prefix", "path", "path_separated_prefix") if key in match), "")
    if "safe_regex" in match:
        path = f"regex {match['safe_regex']['regex']}"
    extra = len(match.get("headers", ())) + len(match.get("query_parameters", ()))
    return path + (f" and {extra} more" if extra else "")


def _action(route: dict[str, Any]) -> str:
    action = route.get("route", {})
    if "cluster" in action:
        return str(action["cluster"])
    if "weighted_clusters" in action:
        return ", ".join(f"{c['name']} ({c.get('weight', 0)})" for c in action["weighted_clusters"]["clusters"])
    if "redirect" in route:
        return "redirect"
    return f"answers {route.get('direct_response', {}).get('status', '')}"


def _clusters(found: list[dict[str, Any]]) -> str:
    def row(cluster: dict[str, Any]) -> tuple[object, ...]:
        tls = "transport_socket" in cluster or any(
            "transport_socket" in match for match in cluster.get("transport_socket_matches", ())
        )
        return (
            cluster["name"],
            cluster.get("type", "STATIC"),
            cluster.get("lb_policy", "ROUND_ROBIN"),
            "yes" if tls else "no",
        )

    return columns(("name", "type", "balance", "tls"), map(row, found))


def _endpoints(found: list[dict[str, Any]]) -> str:
    rows = []
    for status in found:
        for host in status["host_statuses"]:
            address = host.get("address", {}).get("socket_address", {})
            health = host.get("health_status", {})
            failed = [key for key, value in health.items() if key.startswith("failed_") and value]
            place = f"{address['address']}:{address['port_value']}" if address else "-"
            state = ", ".join(failed) or str(health.get("eds_health_status", "HEALTHY"))
            rows.append((status["name"], place, state))
    return columns(("cluster", "endpoint", "health"), rows)


_TABLES = {"listeners": _listeners, "routes": _routes, "clusters": _clusters, "endpoints": _endpoints}
