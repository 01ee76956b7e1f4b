"""Snapshot -> Plan -> resources for one proxy: from nothing, for a second proxy, and after one change.

    python tests/bench/bench_compile.py [services] [endpoints of each]

The alternative, measured in the same run, is to make everything anew at each change, as one would without shared parts.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from discovery.envoy.render import render
from discovery.plan.memo import Scopes
from discovery.plan.plan import plan, proxy_of
from mesh.kinds import parse_istio
from mesh.objects import Key
from mesh.snapshot import Snapshot
from tests.support.snapshots import mesh_of

ROUNDS = 15


def main() -> None:
    services = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    endpoints = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    # A VirtualService each, as a mesh has that uses them.
    routed = {Key("default", f"svc-{n}"): _virtual_service(n, 100) for n in range(services)}
    print(f"{services} services x {endpoints} endpoints, one port, one proxy; ms: median (worst) of {ROUNDS}")
    print(f"{'':38}{'plan':>18}{'render':>18}{'together':>18}")
    for title, istio in (("no VirtualServices", {}), ("a VirtualService each", {"VirtualService": routed})):
        _measure(title, mesh_of(services, endpoints, istio=istio))


def _measure(title: str, before: Snapshot) -> None:
    print(title)
    client = Key("default", "client")
    cold = [_timed(before, client, Scopes()) for _ in range(3)]
    _row("  from nothing (first in this process)", cold[:1])
    _row("  from nothing, render warm", cold[1:])
    scopes = Scopes()
    _timed(before, client, scopes)
    _row("  a second proxy, nothing changed", [_timed(before, Key("default", "svc-1-0"), scopes) for _ in range(1)])
    snapshot = before
    changes: list[tuple[str, Callable[[Snapshot, int], Snapshot]]] = [
        ("  one endpoint changed", _endpoint_changed),
        ("  one pod changed (labels), nothing else", _pod_changed),
    ]
    if before.of("VirtualService"):
        changes.append(("  one VirtualService changed", _route_changed))
    for name, change in changes:
        times, anew = [], []
        for number in range(ROUNDS):
            snapshot = change(snapshot, number)
            times.append(_timed(snapshot, client, scopes))
        anew.append(_timed(change(snapshot, 0), client, Scopes()))
        _row(name, times)
        _row("    everything anew instead", anew)


def _timed(snapshot: Snapshot, key: Key, scopes: Scopes) -> tuple[float, float]:
    proxy = proxy_of(snapshot, key)
    gc.collect()
    gc.freeze()
    start = time.perf_counter()
    made = plan(snapshot, proxy, scopes)
    planned = time.perf_counter()
    render(made)
    return (planned - start) * 1000, (time.perf_counter() - planned) * 1000


def _row(name: str, times: list[tuple[float, float]]) -> None:
    columns = ([a for a, _ in times], [b for _, b in times], [a + b for a, b in times])
    print(f"{name:40}" + "".join(f"{f'{statistics.median(c):8.2f} ({max(c):.2f})':>18}" for c in columns))


def _endpoint_changed(snapshot: Snapshot, number: int) -> Snapshot:
    """The readiness of one endpoint, and the pod's with it, as in a cluster."""
    key = Key("default", f"svc-{number}-0")
    piece = snapshot.slices[key]
    first, *rest = piece.endpoints
    pod = snapshot.pods[key]
    return snapshot.replacing(
        slices={**snapshot.slices, key: replace(piece, endpoints=(replace(first, ready=not first.ready), *rest))},
        pods={**snapshot.pods, key: replace(pod, ready=not first.ready)},
    )


def _pod_changed(snapshot: Snapshot, number: int) -> Snapshot:
    key = Key("default", f"svc-{number}-0")
    return snapshot.replacing(pods={**snapshot.pods, key: replace(snapshot.pods[key])})


def _route_changed(snapshot: Snapshot, number: int) -> Snapshot:
    found = snapshot.of("VirtualService")
    changed = {**found, Key("default", f"svc-{number}"): _virtual_service(number, 50 + number)}
    return snapshot.replacing(istio={**snapshot.istio, "VirtualService": changed})


def _virtual_service(number: int, weight: int) -> Any:
    own, other = f"svc-{number}", f"svc-{number // 2}"
    return parse_istio(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": own, "namespace": "default"},
            "spec": {
                "hosts": [own],
                "http": [
                    {
                        "route": [
                            {"destination": {"host": own}, "weight": weight},
                            {"destination": {"host": other}, "weight": 100 - weight + 1},
                        ]
                    }
                ],
            },
        }
    )


if __name__ == "__main__":
    main()
