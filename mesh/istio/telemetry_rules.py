"""What is wrong with a Telemetry beyond its shape: expressions that do not parse, labels that make too many series."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from mesh.istio.base import problem
from mesh.istio.cel import CelError, parse_cel
from mesh.problems import FieldProblem, Step

MOST_VALUES = 1000
"""Of the added labels of a metric together: so many times its series."""
_SOME = 100
_MANY = 10_000
_VALUES = {
    "connection.id": 1_000_000,
    "connection.mtls": 2,
    "connection.tls_version": 4,
    "destination.address": 1000,
    "request.duration": _MANY,
    "request.headers": _SOME,
    "request.host": _SOME,
    "request.id": 1_000_000,
    "request.method": 10,
    "request.path": _MANY,
    "request.protocol": 4,
    "request.query": _MANY,
    "request.referer": _MANY,
    "request.scheme": 2,
    "request.size": _MANY,
    "request.time": 1_000_000,
    "request.total_size": _MANY,
    "request.url_path": _MANY,
    "request.useragent": _MANY,
    "response.code": 1,
    "response.code_details": 50,
    "response.duration": _MANY,
    "response.flags": 1,
    "response.grpc_status": 1,
    "response.size": _MANY,
    "response.total_size": _MANY,
    "source.address": 1_000_000,
    "source.port": _MANY,
    "upstream.address": 1000,
    "upstream.local_address": 1_000_000,
}
"""How many values an attribute may well have, by orders of magnitude; others have `_SOME`. Those that are
labels anyway multiply nothing."""
_LABEL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


def check_expression(path: tuple[Step, ...], text: str) -> Iterator[FieldProblem]:
    """`text` is CEL, of attributes that Envoy knows."""
    try:
        parse_cel(text)
    except CelError as error:
        says = f"it is not an expression of CEL: {error.message}, at column {error.column}"
        yield problem(*path, says=says, hint="write one such as response.code >= 400", value=text)


def check_label(path: tuple[Step, ...], name: str) -> Iterator[FieldProblem]:
    """`name` can be that of a label of Prometheus'."""
    if not name or name[0].isdigit() or not _LABEL.issuperset(name) or name.startswith("__"):
        yield problem(
            *path,
            says=f"{name!r} is not the name of a label",
            hint="use letters, digits and underscores, no digit first",
        )


def check_cardinality(path: tuple[Step, ...], expressions: Mapping[str, str]) -> Iterator[FieldProblem]:
    """The labels that `expressions` add to one metric do not multiply its series by more than `MOST_VALUES`."""
    values = {name: _values(text) for name, text in expressions.items()}
    total = prod(values.values())
    if total <= MOST_VALUES:
        return
    listed = " x ".join(f"{name} {count:,}" for name, count in values.items() if count > 1)
    yield problem(
        *path,
        says=f"these labels may well make {total:,} series of each one ({listed}); {MOST_VALUES:,} are the most",
        hint="use expressions with few values, such as request.url_path.startsWith('/api') ? 'api' : 'other'",
    )


def _values(text: str) -> int:
    try:
        expression = parse_cel(text)
    except CelError:
        return 1  # that is said already
    return expression.few or prod(_of(attribute) for attribute in expression.attributes)


def _of(attribute: str) -> int:
    name = ".".join(attribute.split(".")[:2])
    return _VALUES.get(name, _SOME)
