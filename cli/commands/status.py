"""`heddle status`: has every proxy applied what is current, since when, and if not, why not."""

from __future__ import annotations

from typing import Any

import click

from cli.cluster_mesh import ClusterMesh
from cli.control_namespace import mesh_options
from cli.mesh_access import Mesh, connect
from cli.output import age, columns, output_option, show
from cli.pod_names import meant
from cli.reach import cluster_asked
from mesh.errors import HeddleError, NotFound
from mesh.objects import Key

TYPES = ("clusters", "endpoints", "listeners", "routes", "virtualHosts", "secrets")


@click.command("status")
@click.argument("name", default="")
@click.option("-n", "--namespace", default="", help="Only proxies of this namespace.")
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(0, 60),
    default=0,
    help="Wait up to so many seconds, at most 60, for every proxy to be current.",
)
@mesh_options
@output_option
def command(name: str, namespace: str, wait_seconds: float, kubeconfig: str, output: str) -> None:
    """Every proxy: what it has applied against what is current, per type, and what is wrong in the configuration.

    NAME: only proxies of that pod, `namespace/pod`, or of pods whose names begin so. Of the embedded mesh if one runs
    here and no --kubeconfig is named, else of the cluster, whose replicas of discovery are asked in their own pods, by
    the user's right to `pods/exec` in the control plane's namespace.

    Exit code 0 when every proxy that is shown has applied what is current, otherwise 3.
    """
    cluster = cluster_asked(kubeconfig)
    status = ClusterMesh(cluster).status(wait_seconds) if cluster else read(connect(), wait_seconds)
    status = of_proxies(status, name, namespace)
    show(status, output, table)
    if not status["ready"]:
        raise click.exceptions.Exit(3)


def of_proxies(status: dict[str, Any], name: str, namespace: str) -> dict[str, Any]:
    """`status` of the proxies that are meant, and whether those are ready; NotFound when `name` means none."""
    if not name and not namespace:
        return status
    chosen = set(meant((_key(proxy) for proxy in status["proxies"]), name, namespace))
    proxies = [proxy for proxy in status["proxies"] if _key(proxy) in chosen]
    if name and not proxies and status["proxies"]:
        where = f" in namespace {namespace}" if namespace else ""
        raise NotFound(f"no proxy of a pod {name}{where} is known", hint="`heddle status` lists them all")
    ready = status["ready"] or (bool(proxies) and all(proxy["upToDate"] for proxy in proxies))
    return {**status, "ready": ready, "proxies": proxies}


def read(mesh: Mesh, wait_seconds: float = 0) -> dict[str, Any]:
    """Discovery's status with the engine's own problems added. Without discovery: not ready, and why."""
    engine = mesh.get("/status")
    problems = [{"object": "", "field": "", "message": text, "hint": ""} for text in engine["problems"]]
    try:
        query = f"?observed={engine['resourceVersion']}&wait={wait_seconds:g}" if wait_seconds else ""
        status: dict[str, Any] = mesh.discovery(f"/v1/status{query}")
    except HeddleError as error:
        problems.insert(0, {"object": "discovery", "field": "", "message": str(error), "hint": ""})
        return {"ready": False, "proxies": [], "problems": problems, "components": engine["components"]}
    return {**status, "problems": problems + status["problems"], "components": engine["components"]}


def table(status: dict[str, Any]) -> str:
    """For people: one line a proxy, then every rejection and problem in full."""
    proxies = status["proxies"]
    replicas = any("replica" in proxy for proxy in proxies)
    headers = ("proxy", *TYPES, "since", *(("replica",) if replicas else ()))
    parts = [columns(headers, [_row(proxy) + ((proxy["replica"],) if replicas else ()) for proxy in proxies])]
    parts += [line for proxy in proxies for line in _troubles(proxy)]
    parts += [f"PROBLEM {_problem(problem)}" for problem in status["problems"]]
    stopped = [f"{name} is {state}" for name, state in status.get("components", {}).items() if state != "running"]
    parts += [f"CONTROL PLANE: {line}" for line in stopped]
    parts.append("ready: every proxy has applied what is current" if status["ready"] else "not ready")
    return "\n".join(parts)


def _troubles(proxy: dict[str, Any]) -> list[str]:
    """What is wrong with one proxy, in sentences; Envoy's own words for what it rejects."""
    who = f"{proxy['namespace']}/{proxy['pod']}"
    lines = []
    if not proxy.get("connected", True):
        seen = age(proxy.get("lastSeen") or "")
        lines.append(f"NOT CONNECTED {who}: " + (f"last seen {seen} ago" if seen else "it has not asked yet"))
    if proxy.get("failed"):
        lines.append(f"FAILED {who}: what it should have could not be computed; it keeps what it has")
    for name, state in proxy["types"].items():
        for rejected in state.get("rejected", ()):
            since = age(rejected.get("since") or "")
            words = f"{name} {rejected['name']}" + (f" (for {since})" if since else "")
            lines.append(f"REJECTED by {who}: {words}: {rejected['message']}")
    return lines


def _row(proxy: dict[str, Any]) -> tuple[object, ...]:
    cells = []
    newest = ""
    for name in TYPES:
        state = proxy["types"].get(name)
        if state is None:
            cells.append("-")
            continue
        newest = max(newest, state.get("since") or "")
        if state.get("rejected"):
            cells.append("REJECTED")
        else:
            cells.append("current" if state["upToDate"] else "pending")
    return f"{proxy['namespace']}/{proxy['pod']}", *cells, age(newest)


def _key(proxy: dict[str, Any]) -> Key:
    return Key(proxy["namespace"], proxy["pod"])


def _problem(problem: dict[str, Any]) -> str:
    where = ": ".join(part for part in (str(problem.get("object", "")), str(problem.get("field", ""))) if part)
    hint = f" ({problem['hint']})" if problem.get("hint") else ""
    return f"{where + ': ' if where else ''}{problem['message']}{hint}"
