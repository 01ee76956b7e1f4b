"""A mesh at one moment, as `heddle top` and `heddle dashboard` show it. Pure: made of what was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cli.commands.certificates import current, pod_of
from cli.live.changes import Change
from cli.live.layout import places
from cli.live.traffic import Edge
from cli.rotation import view
from mesh.objects import Key

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A pod with a proxy, of `workload` (`namespace/name`). `silent` says why its metrics are not there; empty for
    there."""

    pod: Key
    workload: str
    silent: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """What is known of a mesh. `status`, `certificates` and `rotation` are in the forms that `heddle status`,
    `heddle certificates` and `heddle rotate status` print; None where that could not be read, with a sentence for it in
    `troubles`."""

    at: float
    status: Json | None
    certificates: Sequence[Json] | None
    rotation: Json | None
    proxies: Sequence[Asked]
    edges: Sequence[Edge]
    changes: Sequence[Change]
    troubles: Sequence[str]


def picture(read: Read) -> dict[str, Any]:
    """As JSON: `workloads` and `edges` sorted by name, `certificates` by expiry, `rotation`, `changes`, `problems`.

    A workload has its pods, and a place: column and row. What is at an edge and has no proxy is `outside`.
    """
    workloads = _workloads(read)
    found = places(workloads, [(edge.source, edge.destination) for edge in read.edges])
    return {
        "at": read.at,
        "ready": bool(read.status and read.status["ready"]),
        "components": dict((read.status or {}).get("components") or {}),
        "workloads": [{**workloads[name], "place": list(found[name])} for name in sorted(workloads)],
        "edges": [edge.as_json() for edge in read.edges],
        "certificates": _certificates(read),
        "rotation": _rotation(read.rotation),
        "changes": [change.as_json() for change in read.changes],
        "convergence": _convergence(read.status),
        "problems": [*read.troubles, *_problems(read.status)],
    }


def _workloads(read: Read) -> dict[str, dict[str, Any]]:
    by_pod = {(proxy["namespace"], proxy["pod"]): proxy for proxy in (read.status or {}).get("proxies") or ()}
    found: dict[str, dict[str, Any]] = {}
    for asked in sorted(read.proxies, key=lambda each: (each.workload, each.pod)):
        proxy = by_pod.get((asked.pod.namespace, asked.pod.name), {})
        workload = found.setdefault(asked.workload, _workload(asked.workload, "workload"))
        if proxy.get("role") == "gateway":
            workload["kind"] = "gateway"
        workload["pods"].append(
            {
                "name": asked.pod.name,
                "connected": bool(proxy.get("connected")),
                "upToDate": bool(proxy.get("upToDate")),
                "silent": asked.silent,
            }
        )
    for edge in read.edges:
        for name in (edge.source, edge.destination):
            found.setdefault(name, _workload(name, "outside"))
    return found


def _workload(name: str, kind: str) -> dict[str, Any]:
    namespace, _, own = name.partition("/")
    return {"id": name, "namespace": namespace, "name": own, "kind": kind, "pods": []}


def _certificates(read: Read) -> list[dict[str, Any]]:
    """The newest of each holder, the next to expire first; moments in seconds since 1970."""
    return [
        {
            "holder": pod_of(certificate) or certificate["identity"].split("/", 3)[-1],
            "identity": certificate["identity"],
            "serial": certificate["serial"],
            "expires": read.at + certificate["secondsToExpiry"],
            "renews": read.at + certificate["secondsToRenewal"],
        }
        for certificate in sorted(
            current(list(map(dict, read.certificates or ()))),
            key=lambda each: (each["secondsToExpiry"], each["identity"], pod_of(each)),
        )
    ]


def _rotation(body: Json | None) -> dict[str, Any] | None:
    if body is None:
        return None
    return {
        "headline": view.headline(body),
        "waitingFor": body.get("waitingFor") or "",
        "phases": [{**asdict(each), "part": round(each.part, 4)} for each in view.progress(body)],
    }


def _convergence(status: Json | None) -> dict[str, Any]:
    """How many proxies there are, how many run what is current, and the names of those that do not."""
    proxies: Sequence[Json] = (status or {}).get("proxies") or ()
    behind = [f"{proxy['namespace']}/{proxy['pod']}" for proxy in proxies if not proxy["upToDate"]]
    return {"proxies": len(proxies), "current": len(proxies) - len(behind), "behind": behind}


def _problems(status: Json | None) -> list[str]:
    return [
        ": ".join(part for part in (str(each.get("object", "")), str(each.get("field", "")), each["message"]) if part)
        for each in (status or {}).get("problems") or ()
    ]
