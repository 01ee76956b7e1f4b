"""A mesh that is nowhere: so many workloads in layers, for what draws one."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from cli.proxies import Proxy
from mesh.errors import Unavailable
from mesh.objects import Key
from mesh.workloads import Workload

LAYERS = 5
BOUNDS = ("1", "5", "25", "100", "+Inf")


def name(number: int) -> str:
    return f"svc-{number:03}"


def exposition(source: str, destination: str, reporter: str, count: int, *, code: str = "200", policy: str = "") -> str:
    """What a proxy tells of `count` requests in namespace `shop`, half of them below 5 ms and all below 25."""
    labels = (
        f'reporter="{reporter}",source_workload="{source}",source_workload_namespace="shop",'
        f'destination_workload="{destination}",destination_workload_namespace="shop",request_protocol="http",'
        f'response_code="{code}",connection_security_policy="{policy or "unknown"}"'
    )
    lines = [f"istio_requests_total{{{labels}}} {count}"]
    for bound, part in zip(BOUNDS, (0, 0.5, 1, 1, 1), strict=True):
        lines.append(f'istio_request_duration_milliseconds_bucket{{{labels},le="{bound}"}} {count * part:g}')
    return "\n".join(lines) + "\n"


class Synthetic:
    """A source of pictures. Each workload of a layer calls two of the next one; every reading has 10 requests more a
    caller. Proxies named in `silent` fail, those in `stuck` never answer."""

    def __init__(self, workloads: int) -> None:
        self.count = workloads
        self.silent: set[str] = set()
        self.stuck: set[str] = set()
        self.down: set[str] = set()
        self.readings = 0

    def status(self) -> Mapping[str, Any]:
        self._perhaps("status")
        self.readings += 1
        since = "2026-01-01T00:00:00.120Z"
        proxies = [
            {
                "namespace": "shop",
                "pod": f"{name(n)}-0",
                "kind": "agent",
                "role": "sidecar",
                "connected": True,
                "upToDate": True,
                "types": {"clusters": {"upToDate": True, "since": since, "rejected": []}},
            }
            for n in range(self.count)
        ]
        components = {"ca": "running", "discovery": "running", "webhook": "running"}
        return {"ready": True, "proxies": proxies, "problems": [], "components": components}

    def certificates(self) -> Sequence[Mapping[str, Any]]:
        self._perhaps("certificates")
        return [
            {
                "serial": f"{n:x}",
                "identity": f"spiffe://cluster.local/ns/shop/sa/{name(n)}",
                "pod": {"namespace": "shop", "name": f"{name(n)}-0"},
                "issuedAt": "2026-01-01T00:00:00Z",
                "secondsToExpiry": 86_400 - n,
                "secondsToRenewal": 43_200 - n,
            }
            for n in range(self.count)
        ]

    def rotation(self) -> Mapping[str, Any]:
        self._perhaps("rotation")
        leaves = {"old": self.count // 2, "new": self.count - self.count // 2}
        return {"phase": "renew", "direction": "forward", "leaves": leaves, "history": [], "waitingFor": "renewals"}

    def proxies(self) -> Sequence[Proxy]:
        self._perhaps("proxies")
        return [
            Proxy(Key("shop", f"{name(n)}-0"), f"10.0.0.{n}", 80, Workload(name(n), "shop", name(n), "latest"))
            for n in range(self.count)
        ]

    def metrics(self, proxy: Proxy) -> str:
        own = proxy.workload.name
        if own in self.stuck:
            threading.Event().wait()
        if own in self.silent:
            raise Unavailable(f"heddle-agent in {proxy.pod} failed: no connection")
        number, total = int(own.removeprefix("svc-")), 10 * self.readings
        text = "".join(exposition(own, name(to), "source", total) for to in callees(number, self.count))
        for caller in range(self.count):
            if number in callees(caller, self.count):
                text += exposition(name(caller), own, "destination", total, policy="mutual_tls")
        return text

    def _perhaps(self, what: str) -> None:
        if what in self.down:
            raise Unavailable(f"nobody answers for {what}")


def callees(number: int, count: int) -> list[int]:
    """Those whom the workload calls: two of the next layer; none of the last."""
    layer = max(1, count // LAYERS)
    if number // layer >= LAYERS - 1 or number + layer >= count:
        return []
    begin = (number // layer + 1) * layer
    return sorted({begin + number % layer, begin + (number + 1) % layer})
