"""What routes of all protocols share: where to, with which weight, and how strings, headers and ports are given.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from mesh.istio import rules as check
from mesh.istio.base import EMPTY, Map, Model, PortNumber, Real, Text, problem
from mesh.istio.schema import Schema, at_most_one
from mesh.istio.texts import Count, HeaderName, OneHost, SubsetName
from mesh.problems import FieldProblem, Path

Rules = Iterator[FieldProblem]


class StringMatch(Model):
    """One of exact, prefix, regex; none of them (`{}`), for headers and query parameters: it is present."""

    cel = (at_most_one("exact", "prefix", "regex"),)

    exact: Text | None = None
    """The whole value."""
    prefix: Text | None = None
    """What the value begins with."""
    regex: Text | None = None
    """RE2 expression that the whole value matches."""

    def rules(self) -> Rules:
        chosen = [name for name in ("exact", "prefix", "regex") if getattr(self, name) is not None]
        if len(chosen) > 1:
            yield problem(says=f"{' and '.join(chosen)} exclude each other", hint="keep one of exact, prefix, regex")
        if self.regex is not None:
            yield from check.check_regex(("regex",), self.regex)

    @property
    def is_presence(self) -> bool:
        """Whether it only asks that the header or parameter is there."""
        return self.exact is None and self.prefix is None and self.regex is None


class PortSelector(Model):
    required = ("number",)

    number: PortNumber = 0
    """Number of a port of the service."""

    def rules(self) -> Rules:
        yield from check.check_port(("number",), self.number)


class Destination(Model):
    """A service by name (short names are of the rule's namespace), optionally a subset of it and one of its ports."""

    host: OneHost
    """Service by name; names without a dot are completed with the object's namespace."""
    subset: SubsetName = ""
    """A subset of the service, defined by a DestinationRule."""
    port: PortSelector | None = None
    """Which port; needed when the service has several."""

    def rules(self) -> Rules:
        yield from check.check_host(("host",), self.host, wildcard=False, address=True)
        if self.subset and not check.is_dns_label(self.subset):
            yield problem(
                "subset", says=f"{self.subset!r} is not a subset's name", hint="use lower-case letters, digits, dashes"
            )


class Percent(Model):
    value: Annotated[Real, Schema(minimum=0, maximum=100)] = 0.0
    """0 to 100, with decimals."""

    def rules(self) -> Rules:
        yield from check.check_percentage(("value",), self.value)


class HeaderOperations(Model):
    set: Map[Text] = EMPTY
    """Headers to set, in place of what is there."""
    add: Map[Text] = EMPTY
    """Headers to add to what is there."""
    remove: tuple[HeaderName, ...] = ()
    """Headers to remove."""

    def rules(self) -> Rules:
        for operation, names in (("set", self.set), ("add", self.add)):
            for name in names:
                if name.lower() not in (":authority", "host"):
                    yield from _changeable((operation, name), name)
        for index, name in enumerate(self.remove):
            yield from _changeable(("remove", index), name)


class Headers(Model):
    request: HeaderOperations | None = None
    """Changes to the request, before it is sent on."""
    response: HeaderOperations | None = None
    """Changes to the response, before it is sent back."""


class HTTPRouteDestination(Model):
    destination: Destination
    """Where to."""
    weight: Count = 0
    """Share of the requests among the destinations of the rule."""
    headers: Headers | None = None
    """Changes of headers for this destination."""

    def rules(self) -> Rules:
        yield from _weight(self.weight)


class RouteDestination(Model):
    destination: Destination
    """Where to."""
    weight: Count = 0
    """Share of the connections among the destinations of the rule."""

    def rules(self) -> Rules:
        yield from _weight(self.weight)


def _changeable(path: Path, name: str) -> Rules:
    """A header that a route may set, add or remove: not a pseudo-header and not Host."""
    if name.startswith(":") or name.lower() == "host":
        yield problem(*path, says=f"{name!r} cannot be changed here", hint="use rewrite.authority for the host")
    else:
        yield from check.check_header_name(path, name)


def _weight(weight: int) -> Rules:
    if weight < 0:
        yield problem("weight", says=f"{weight} is negative", hint="use 0 for no traffic")


def check_weights(routes: tuple[HTTPRouteDestination, ...] | tuple[RouteDestination, ...]) -> Rules:
    total = sum(route.weight for route in routes)
    if len(routes) < 2 or any(route.weight < 0 for route in routes):
        return
    if total == 0:
        yield problem(
            "route", says="the weights add to 0: nothing would be sent anywhere", hint="give one of them a weight"
        )
    elif total > 2**32 - 1:
        yield problem("route", says=f"the weights add to {total}, more than Envoy takes", hint="use smaller numbers")
    elif total != 100:
        shares = ", ".join(f"{route.weight}/{total}" for route in routes)
        yield problem(
            "route", says=f"the weights add to {total}: taken as {shares}", hint="make them add to 100", warning=True
        )
