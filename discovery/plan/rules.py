"""DestinationRules: which one a client uses for a host, and what its traffic policy amounts to on a port.

Precedence: the client's namespace, the service's, the root namespace; in each, the exact host before the longest
wildcard. Several rules of one namespace for one host are one rule: subsets unite, the oldest traffic policy stands.
Port-level settings do not inherit, a subset's settings override one by one.
Source: https://istio.io/latest/docs/reference/config/networking/destination-rule/ (TrafficPolicy.PortTrafficPolicy),
https://istio.io/latest/docs/ops/best-practices/traffic-management/#cross-namespace-configuration
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from discovery.plan.hosts import by_specificity, covers, is_visible, qualify
from discovery.plan.memo import Memo
from discovery.plan.model import Balance, ConnectionLimits, HashBy, OutlierDetection
from discovery.plan.origins import Origin, Problem, origin_of, problem_with
from mesh.istio.base import IstioObject, age
from mesh.istio.destination_rule import (
    ClientTLSSettings,
    ConnectionPoolSettings,
    DestinationRule,
    PortTrafficPolicy,
    Subset,
    TrafficPolicy,
)
from mesh.istio.destination_rule import OutlierDetection as OutlierSettings
from mesh.istio.load_balancing import LoadBalancerSettings, SimpleLB

RuleObject = IstioObject[DestinationRule]

UNLIMITED = 2**32 - 1
DEFAULT_LIMITS = ConnectionLimits(
    max_connections=UNLIMITED, max_pending_requests=UNLIMITED, max_requests=UNLIMITED, max_retries=UNLIMITED
)
"""Istio sets no limits of its own; Envoy would take 1024 connections, pending requests and requests, and 3 retries."""

_BALANCES = {
    None: Balance.LEAST_REQUEST,
    SimpleLB.UNSPECIFIED: Balance.LEAST_REQUEST,
    SimpleLB.LEAST_CONN: Balance.LEAST_REQUEST,
    SimpleLB.LEAST_REQUEST: Balance.LEAST_REQUEST,
    SimpleLB.RANDOM: Balance.RANDOM,
    SimpleLB.ROUND_ROBIN: Balance.ROUND_ROBIN,
    SimpleLB.PASSTHROUGH: Balance.PASSTHROUGH,
}


@dataclass(frozen=True, slots=True)
class Policy:
    """What a destination does to its connections. `tls` as the rule has it; None where it says nothing."""

    balance: Balance = Balance.LEAST_REQUEST
    hash_by: HashBy | None = None
    limits: ConnectionLimits = DEFAULT_LIMITS
    outliers: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None
    balanced: bool = False
    """The rule says how to balance, which goes before what the service says."""


NO_POLICY = Policy()
STICKY = Policy(Balance.HASH, HashBy(source_ip=True))


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """The rules of one namespace for one host, as one."""

    subsets: Mapping[str, Subset]
    traffic: TrafficPolicy | None
    origins: tuple[Origin, ...]

    def policy(self, port: int, subset: str) -> Policy:
        return _policy(_settings(self.traffic, self.subsets[subset].traffic_policy if subset else None, port))


def policy_for(rule: Rule | None, port: int, subset: str, *, sticky: bool) -> Policy:
    """What holds for a destination. `sticky`: the service itself asks that a client stay with one endpoint."""
    policy = rule.policy(port, subset) if rule else NO_POLICY
    if not sticky or policy.balanced:
        return policy
    return replace(policy, balance=STICKY.balance, hash_by=STICKY.hash_by)


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """All DestinationRules: namespace -> full host -> rules, oldest first."""

    by_namespace: Mapping[str, Mapping[str, tuple[RuleObject, ...]]]
    wildcards: Mapping[str, tuple[str, ...]]
    root_namespace: str
    problems: tuple[Problem, ...]

    def find(self, memo: Memo, host: str, owner: str, client: str) -> Rule | None:
        """The rule that clients in namespace `client` use for `host`, a service of namespace `owner`."""
        if not self.by_namespace:
            return None
        for namespace in dict.fromkeys((client, owner, self.root_namespace)):
            rules = self._in(namespace, host, client)
            if rules:
                return memo(merged, rules)
        return None

    def _in(self, namespace: str, host: str, client: str) -> tuple[RuleObject, ...]:
        hosts = self.by_namespace.get(namespace)
        if hosts is None:
            return ()
        patterns = (host, *(pattern for pattern in self.wildcards[namespace] if covers(pattern, host)))
        for pattern in patterns:
            rules = hosts.get(pattern, ())
            if namespace != client:
                rules = tuple(rule for rule in rules if is_visible(rule.spec.export_to, namespace, client))
            if rules:
                return rules
        return ()


def rules_of(objects: Iterable[IstioObject[Any]], domain: str, root_namespace: str) -> Rules:
    by_namespace: dict[str, dict[str, list[RuleObject]]] = {}
    problems: list[Problem] = []
    for rule in sorted(objects, key=age):
        if rule.spec.workload_selector is not None:
            says = "rules for some clients only are not acted upon yet: the whole rule is left out"
            problems.append(problem_with(rule, "spec.workloadSelector", says, "remove it, if the rule is for all"))
            continue  # it is for some clients only, and these are not told apart yet: for all it would do harm
        host = qualify(rule.spec.host, rule.namespace, domain)
        by_namespace.setdefault(rule.namespace, {}).setdefault(host, []).append(rule)
    return Rules(
        by_namespace={
            namespace: {host: tuple(rules) for host, rules in hosts.items()}
            for namespace, hosts in by_namespace.items()
        },
        wildcards={
            namespace: tuple(by_specificity(host for host in hosts if host.startswith("*")))
            for namespace, hosts in by_namespace.items()
        },
        root_namespace=root_namespace,
        problems=(*problems, *_overlaps(by_namespace)),
    )


def _overlaps(by_namespace: Mapping[str, Mapping[str, list[RuleObject]]]) -> list[Problem]:
    problems = []
    for hosts in by_namespace.values():
        for host, (first, *others) in hosts.items():
            taken = {subset.name for subset in first.spec.subsets}
            for other in others:
                for index, subset in enumerate(other.spec.subsets):
                    if subset.name in taken:
                        says = f"subset {subset.name!r} of {host} is defined in an older rule too, such as {first.name}"
                        field = f"spec.subsets[{index}].name"
                        problems.append(problem_with(other, field, says, "keep one of the two definitions"))
                    taken.add(subset.name)
                if other.spec.traffic_policy and first.spec.traffic_policy:
                    says = f"the older rule {first.name} sets the traffic policy of {host} already: this one is unused"
                    problems.append(problem_with(other, "spec.trafficPolicy", says, "merge the two rules"))
    return problems


def merged(rules: tuple[RuleObject, ...]) -> Rule:
    subsets: dict[str, Subset] = {}
    for rule in rules:
        for subset in rule.spec.subsets:
            subsets.setdefault(subset.name, subset)
    traffic = next((rule.spec.traffic_policy for rule in rules if rule.spec.traffic_policy), None)
    return Rule(subsets, traffic, tuple(origin_of(rule) for rule in rules))


Settings = TrafficPolicy | PortTrafficPolicy


def _settings(traffic: TrafficPolicy | None, subset: TrafficPolicy | None, port: int) -> Settings | None:
    """The settings that count for `port`: the port's own ones replace the rest of the policy that they stand in."""
    wide = _on_port(traffic, port)
    if subset is None:
        return wide
    narrow = _on_port(subset, port)
    if wide is None or narrow is None or isinstance(narrow, PortTrafficPolicy):
        return narrow or wide
    return TrafficPolicy(
        load_balancer=narrow.load_balancer or wide.load_balancer,
        connection_pool=narrow.connection_pool or wide.connection_pool,
        outlier_detection=narrow.outlier_detection or wide.outlier_detection,
        tls=narrow.tls or wide.tls,
    )


def _on_port(traffic: TrafficPolicy | None, port: int) -> Settings | None:
    if traffic is None:
        return None
    return next((settings for settings in traffic.port_level_settings if settings.port.number == port), traffic)


def _policy(settings: Settings | None) -> Policy:
    if settings is None:
        return NO_POLICY
    balance, hash_by = _balance(settings.load_balancer)
    return Policy(
        balance=balance,
        hash_by=hash_by,
        limits=_limits(settings.connection_pool),
        outliers=_outliers(settings.outlier_detection),
        tls=settings.tls,
        balanced=settings.load_balancer is not None,
    )


def _balance(settings: LoadBalancerSettings | None) -> tuple[Balance, HashBy | None]:
    if settings is None:
        return Balance.LEAST_REQUEST, None
    key = settings.consistent_hash
    if key is None:
        return _BALANCES[settings.simple], None
    cookie = key.http_cookie
    return Balance.HASH, HashBy(
        header=(key.http_header_name or "").lower(),
        cookie=cookie.name if cookie else "",
        cookie_path=cookie.path if cookie else "",
        cookie_ttl=cookie.ttl if cookie else None,
        source_ip=bool(key.use_source_ip),
        query_parameter=key.http_query_parameter_name or "",
    )


def _limits(pool: ConnectionPoolSettings | None) -> ConnectionLimits:
    if pool is None:
        return DEFAULT_LIMITS
    tcp, http = pool.tcp, pool.http
    return ConnectionLimits(
        connect_timeout=(tcp.connect_timeout if tcp else None) or 10.0,
        max_connections=(tcp.max_connections if tcp else 0) or UNLIMITED,
        max_pending_requests=(http.http1_max_pending_requests if http else 0) or UNLIMITED,
        max_requests=(http.http2_max_requests if http else 0) or UNLIMITED,
        max_requests_per_connection=(http.max_requests_per_connection if http else 0) or None,
        max_retries=(http.max_retries if http else 0) or UNLIMITED,
        idle_timeout=http.idle_timeout if http else None,
        tcp_keepalive_seconds=tcp.tcp_keepalive.time if tcp and tcp.tcp_keepalive else None,
    )


def _outliers(settings: OutlierSettings | None) -> OutlierDetection | None:
    if settings is None:
        return None
    return OutlierDetection(
        consecutive_5xx=settings.consecutive_5xx_errors,
        consecutive_gateway_errors=settings.consecutive_gateway_errors,
        interval=settings.interval,
        base_ejection_time=settings.base_ejection_time,
        max_ejection_percent=settings.max_ejection_percent or None,
        min_health_percent=settings.min_health_percent or None,
    )
