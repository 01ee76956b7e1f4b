"""How a client's proxy chooses among the endpoints of a service: part of DestinationRule.

Source: https://istio.io/latest/docs/reference/config/networking/destination-rule/
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from mesh.istio import rules as check
from mesh.istio.base import EMPTY, Duration, Flag, Map, Model, Real, Text, TimeSpan, UInt, Whole, planned, problem
from mesh.istio.schema import Schema, at_most_one, exactly_one, not_together
from mesh.istio.texts import HeaderName, Value
from mesh.problems import FieldProblem

Rules = Iterator[FieldProblem]


class SimpleLB(StrEnum):
    UNSPECIFIED = "UNSPECIFIED"
    LEAST_CONN = "LEAST_CONN"
    RANDOM = "RANDOM"
    PASSTHROUGH = "PASSTHROUGH"
    ROUND_ROBIN = "ROUND_ROBIN"
    LEAST_REQUEST = "LEAST_REQUEST"


class RingHash(Model):
    minimum_ring_size: Annotated[Whole, Schema(minimum=0)] = 0
    """Least number of virtual nodes on the ring; more spread the load better."""


class MagLev(Model):
    table_size: Annotated[Whole, Schema(minimum=0)] = 0
    """Size of the table, a prime number."""


class CookieAttribute(Model):
    name: Value
    """Name of the attribute, such as SameSite."""
    value: Text = ""
    """Its value, if it has one."""

    def rules(self) -> Rules:
        if not self.name:
            yield problem("name", says="the attribute has no name", hint="name it, such as SameSite")


class HTTPCookie(Model):
    """`ttl` None: the application sets the cookie; 0: Envoy sets a session cookie."""

    name: Value
    """Name of the cookie."""
    path: Text = ""
    """Path of the cookie."""
    ttl: Duration | None = None
    """How long the cookie lives; without it the application sets the cookie."""
    attributes: tuple[CookieAttribute, ...] = planned(())
    """Further attributes of the cookie."""

    def rules(self) -> Rules:
        if not self.name:
            yield problem("name", says="the cookie has no name", hint="name it")
        yield from check.check_duration(("ttl",), self.ttl, zero=True)


class ConsistentHashLB(Model):
    cel = (
        exactly_one("httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"),
        at_most_one("ringHash", "maglev"),
        at_most_one("ringHash", "minimumRingSize"),
    )

    http_header_name: HeaderName | None = None
    """Hash of this header."""
    http_cookie: HTTPCookie | None = None
    """Hash of this cookie, which Envoy sets if it must."""
    use_source_ip: Flag | None = None
    """Hash of the client's address."""
    http_query_parameter_name: Value | None = None
    """Hash of this query parameter."""
    ring_hash: RingHash | None = planned()
    """Envoy's ring hash."""
    maglev: MagLev | None = planned()
    """Envoy's Maglev."""
    minimum_ring_size: Annotated[Whole, Schema(minimum=0)] = planned(0)
    """Least number of virtual nodes; use ringHash."""

    def rules(self) -> Rules:
        keys = (self.http_header_name, self.http_cookie, self.use_source_ip, self.http_query_parameter_name)
        if sum(key is not None for key in keys) != 1:
            names = "httpHeaderName, httpCookie, useSourceIp, httpQueryParameterName"
            yield problem(says="a consistent hash has exactly one key", hint=f"set one of {names}")
        if self.http_header_name is not None:
            yield from check.check_header_name(("httpHeaderName",), self.http_header_name)
        if self.http_query_parameter_name == "":
            yield problem("httpQueryParameterName", says="the name is empty", hint="name the query parameter")
        if self.ring_hash is not None and self.maglev is not None:
            yield problem("maglev", says="ringHash and maglev exclude each other", hint="keep one of the two")
        if self.ring_hash is not None and self.minimum_ring_size:
            yield problem("minimumRingSize", says="ringHash says it already", hint="set ringHash.minimumRingSize only")


class Distribute(Model):
    from_: Text = ""
    """Locality of the client: `region/zone/subzone`, with `*` at the end."""
    to: Map[UInt] = EMPTY
    """Share of the traffic in percent, by locality of the endpoints."""


class Failover(Model):
    from_: Text = ""
    """Region of the client."""
    to: Text = ""
    """Region whose endpoints take over."""


class LocalityLoadBalancerSetting(Model):
    cel = (not_together("distribute", "failover", "failoverPriority"),)

    distribute: tuple[Distribute, ...] = ()
    """Shares by locality."""
    failover: tuple[Failover, ...] = ()
    """Which region takes over for which."""
    failover_priority: tuple[Text, ...] = ()
    """Labels that make an endpoint near, the most important first."""
    enabled: Flag | None = None
    """Whether localities count; as the mesh says by default."""

    def rules(self) -> Rules:
        if self.distribute and (self.failover or self.failover_priority):
            yield problem(says="distribute and failover exclude each other", hint="keep one of them")
        for index, share in enumerate(self.distribute):
            if sum(share.to.values()) != 100:
                yield problem(
                    "distribute",
                    index,
                    "to",
                    says=f"the shares add to {sum(share.to.values())}",
                    hint="make them add to 100",
                )
        for index, pair in enumerate(self.failover):
            if pair.from_ == pair.to:
                yield problem("failover", index, says="a region cannot fail over to itself", hint="name another region")


class WarmupConfiguration(Model):
    required = ("duration",)

    duration: TimeSpan | None = None
    """How long a new endpoint gets less than its share."""
    minimum_percent: Annotated[Real | None, Schema(minimum=0, maximum=100)] = None
    """Share that it gets at the beginning."""
    aggression: Annotated[Real | None, Schema(minimum=1)] = None
    """How fast its share grows; 1 is linear."""

    def rules(self) -> Rules:
        yield from check.check_duration(("duration",), self.duration)
        if self.duration is None:
            yield problem("duration", says="the warm-up has no length", hint="set it, such as 30s")
        yield from check.check_percentage(("minimumPercent",), self.minimum_percent)
        if self.aggression is not None and self.aggression < 1:
            yield problem("aggression", says=f"{self.aggression:g} is less than 1", hint="use 1 for a linear warm-up")


class LoadBalancerSettings(Model):
    cel = (at_most_one("simple", "consistentHash"),)

    simple: SimpleLB | None = None
    """A standard algorithm."""
    consistent_hash: ConsistentHashLB | None = None
    """Requests with the same key go to the same endpoint."""
    locality_lb_setting: LocalityLoadBalancerSetting | None = planned()
    """Prefer near endpoints, or spread by locality."""
    warmup_duration_secs: Duration | None = planned()
    """How long a new endpoint gets less than its share; use warmup."""
    warmup: WarmupConfiguration | None = planned()
    """Let new endpoints take their share slowly."""

    def rules(self) -> Rules:
        if self.simple is not None and self.consistent_hash is not None:
            yield problem(
                "consistentHash", says="simple and consistentHash exclude each other", hint="keep one of the two"
            )
        yield from check.check_duration(("warmupDurationSecs",), self.warmup_duration_secs, zero=True)
