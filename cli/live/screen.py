"""A picture in a terminal's lines. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cli.output import columns, duration
from cli.rotation.view import Progress, bar

LOCKS = {"mutual": "mTLS", "plain": "PLAIN", "mixed": "MIXED", "unknown": "-"}
CERTIFICATES = 5

Json = Mapping[str, Any]


def screen(picture: Json) -> str:
    """Edges with most requests first, then workloads in trouble, certificates that expire first, rotation, changes."""
    return "\n".join(_lines(picture))


def _lines(picture: Json) -> Iterator[str]:
    converged = picture["convergence"]
    with_proxy = [each for each in picture["workloads"] if each["pods"]]
    yield (
        f"{datetime.fromtimestamp(picture['at'], UTC):%H:%M:%S} UTC  {len(with_proxy)} workloads, "
        f"{converged['current']} of {converged['proxies']} proxies are current"
    )
    for name, standing in picture["components"].items():
        if standing != "running":
            yield f"{name}: {standing}"
    yield from (f"PROBLEM {each}" for each in picture["problems"])
    yield from (f"BEHIND {each}" for each in converged["behind"])
    yield from (
        f"SILENT {workload['namespace']}/{pod['name']}: {pod['silent']}"
        for workload in with_proxy
        for pod in workload["pods"]
        if pod["silent"]
    )
    yield ""
    yield columns(("from", "to", "req/s", "errors", "p50", "p99", "conn/s", "lock"), map(_edge, _busiest(picture)))
    yield ""
    yield columns(
        ("certificate of", "expires in", "renewal in"),
        [
            (each["holder"], _until(each["expires"], picture, "expired"), _until(each["renews"], picture, "due"))
            for each in picture["certificates"][:CERTIFICATES]
        ],
    )
    if len(picture["certificates"]) > CERTIFICATES:
        yield f"and {len(picture['certificates']) - CERTIFICATES} that expire later"
    yield ""
    yield from _rotation(picture["rotation"])
    yield ""
    yield columns(
        ("changed", "proxies", "first to last", "types"),
        [
            (
                f"{datetime.fromtimestamp(each['at'], UTC):%H:%M:%S}",
                each["proxies"],
                duration(each["seconds"]),
                " ".join(each["types"]),
            )
            for each in picture["changes"]
        ],
    )


def _busiest(picture: Json) -> Sequence[Json]:
    return sorted(
        picture["edges"],
        key=lambda each: (
            -(each["requestsPerSecond"] or 0) - (each["connectionsPerSecond"] or 0),
            each["source"],
            each["destination"],
        ),
    )


def _edge(edge: Json) -> tuple[object, ...]:
    return (
        _end(edge["source"]),
        _end(edge["destination"]),
        _number(edge["requestsPerSecond"]),
        "" if edge["errors"] is None else f"{100 * edge['errors']:.1f}%",
        _milliseconds(edge["p50Milliseconds"]),
        _milliseconds(edge["p99Milliseconds"]),
        _number(edge["connectionsPerSecond"]),
        LOCKS[edge["lock"]],
    )


def _end(name: str) -> str:
    """Of what is outside the mesh, the name alone."""
    return name.removeprefix("/")


def _number(value: float | None) -> str:
    return "..." if value is None else f"{value:.1f}" if value else ""


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def _until(moment: float, picture: Json, over: str) -> str:
    left = moment - picture["at"]
    return duration(left) if left > 0 else over


def _rotation(rotation: Json | None) -> Iterator[str]:
    if rotation is None:
        return
    yield rotation["headline"]
    for each in rotation["phases"]:
        yield bar(Progress(each["phase"], each["state"], each["have"], each["of"], each["unit"]))
    if rotation["waitingFor"]:
        yield f"waiting for: {rotation['waitingFor']}"
