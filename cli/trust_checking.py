"""Looks at every proxy for `heddle trust check`: what its Envoy uses, and what a handshake with it shows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from cryptography.hazmat.primitives import serialization

from cli.output import columns
from cli.proxies import Proxies, Proxy
from cli.trust_check import SECRETS, Roots, failures, in_use
from mesh.errors import HeddleError, Unavailable

AT_ONCE = 8
BATCH = 200  # targets in one command: its argument is 128 KiB at most
NO_HANDSHAKE = "none: "


def examine(proxies: Proxies, listed: Sequence[Proxy], roots: Roots) -> dict[str, Any]:
    """`{"failing": {name: [sentence]}, "unknown": {name: [sentence]}, "fine": [name]}`."""
    failing: dict[str, list[str]] = {}
    unknown: dict[str, list[str]] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for proxy, said in zip(listed, pool.map(partial(_of_envoy, proxies, roots), listed), strict=True):
            if isinstance(said, HeddleError):
                unknown[str(proxy.pod)] = [f"its Envoy cannot be asked: {said}"]
            elif said:
                failing[str(proxy.pod)] = said
    for name, verdict in _handshakes(proxies, listed, roots, unknown).items():
        if verdict.startswith(NO_HANDSHAKE):
            unknown.setdefault(name, []).append(f"no handshake: {verdict.removeprefix(NO_HANDSHAKE)}")
        elif verdict:
            failing.setdefault(name, []).append(f"a handshake with what would be left is {verdict}")
    names = {*(str(proxy.pod) for proxy in listed), *(name for name, _, _ in proxies.control_plane())}
    return {"failing": failing, "unknown": unknown, "fine": sorted(names - failing.keys() - unknown.keys())}


def _of_envoy(proxies: Proxies, roots: Roots, proxy: Proxy) -> list[str] | HeddleError:
    try:
        text = proxies.run(proxy.pod, ["heddle-agent", "admin", "GET", SECRETS])
        return failures(in_use(json.loads(text)), roots)
    except HeddleError as error:
        return error
    except ValueError:
        return Unavailable("its answer is no JSON")


def _handshakes(
    proxies: Proxies, listed: Sequence[Proxy], roots: Roots, unknown: dict[str, list[str]]
) -> dict[str, str]:
    """By name; from the first proxy that can be asked. A handshake of a proxy with itself would not pass its Envoy."""
    able = [proxy for proxy in listed if str(proxy.pod) not in unknown]
    targets = [(str(proxy.pod), proxy.ip, proxy.port) for proxy in listed if proxy.port]
    left = "".join(root.public_bytes(serialization.Encoding.PEM).decode() for root in roots.left)
    if not able:
        return {name: f"{NO_HANDSHAKE}there is no proxy to make one from" for name, _, _ in targets}
    first, second = able[0], able[min(1, len(able) - 1)]
    found: dict[str, str] = {}
    for place, wanted in (
        (first, [target for target in targets if target[0] != str(first.pod)] + proxies.control_plane()),
        (second, [target for target in targets if target[0] == str(first.pod) and second != first]),
    ):
        for batch in _batches(wanted):
            asked = json.dumps({"roots": left, "targets": batch})
            found |= json.loads(proxies.run(place.pod, ["python", "-m", "svid.probe", asked]))
    return found


def _batches(targets: Sequence[tuple[str, str, int]]) -> Iterator[Sequence[tuple[str, str, int]]]:
    for start in range(0, len(targets), BATCH):
        yield targets[start : start + BATCH]


def verdict_table(found: dict[str, Any], leaving: str) -> str:
    """For people: who would fail and why, then whom nobody knows of, then how many are fine."""
    rows = [(name, "WOULD FAIL", said) for name, each in sorted(found["failing"].items()) for said in each]
    rows += [(name, "unknown", said) for name, each in sorted(found["unknown"].items()) for said in each]
    total = len(found["fine"]) + len({*found["failing"], *found["unknown"]})
    lines = [columns(("who", "verdict", "why"), rows)] if rows else []
    return "\n".join([*lines, f"{len(found['fine'])} of {total} go on without root {leaving[:16]}"])
