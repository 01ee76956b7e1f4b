"""AuthorizationPolicy: who may do what at a workload.

Source: https://istio.io/latest/docs/reference/config/security/authorization-policy/
and, for the keys of conditions, https://istio.io/latest/docs/reference/config/security/conditions/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from mesh.istio import rules as check
from mesh.istio.base import Model, Text, problem
from mesh.istio.schema import Cel, Schema, at_least_one
from mesh.istio.selectors import (
    ONE_WAY_TO_SELECT,
    PolicyTargetReference,
    TargetRefs,
    WorkloadSelector,
    check_one_way_to_select,
)
from mesh.istio.texts import PortText, Value
from mesh.problems import FieldProblem

Rules = Iterator[FieldProblem]
Texts = Annotated[tuple[Value, ...], Schema(minItems=1)]
Ports = Annotated[tuple[PortText, ...], Schema(minItems=1)]
ServiceAccounts = Annotated[
    tuple[Annotated[Text, Schema(minLength=1, maxLength=320)], ...], Schema(minItems=1, maxItems=16)
]
_KEYS = frozenset(
    (
        *("remote.ip", "source.ip", "source.namespace", "source.principal", "source.serviceAccount"),
        *("request.auth.principal", "request.auth.audiences", "request.auth.presenter"),
        *("destination.ip", "destination.port", "connection.sni"),
    )
)
_KEY_WITH_NAME = re.compile(r"(request\.headers|request\.auth\.claims)(\[[^\[\]]+\])+\Z")
_FILTER_METADATA = "experimental.envoy.filters."
_NAMED = r"request\.(headers|auth\.claims)(\[[^\[\]]+\])+"
_KEY_PATTERN = rf"^({'|'.join(map(re.escape, sorted(_KEYS)))}|{_NAMED}|{re.escape(_FILTER_METADATA)}.*)$"
_NOT_FOR_CUSTOM = ("namespaces", "principals", "request_principals")


class Action(StrEnum):
    """DENY and CUSTOM are looked at before ALLOW; AUDIT decides nothing."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    AUDIT = "AUDIT"
    CUSTOM = "CUSTOM"


class ExtensionProvider(Model):
    name: Text = ""
    """Name of the provider in the mesh's `extensionProviders`."""


class Source(Model):
    """Where a request comes from: every field that is set must hold; of the values of one field, one is enough."""

    cel = (
        Cel(
            "!(has(self.serviceAccounts) || has(self.notServiceAccounts)) || (!has(self.principals) && "
            "!has(self.notPrincipals) && !has(self.namespaces) && !has(self.notNamespaces))",
            "serviceAccounts exclude principals and namespaces: keep one of them",
        ),
    )

    principals: Texts = ()
    """Identities of the client's certificate, without `spiffe://`; `*` in front or at the end."""
    not_principals: Texts = ()
    """Identities that it must not be."""
    request_principals: Texts = ()
    """`issuer/subject` of the request's JWT."""
    not_request_principals: Texts = ()
    """`issuer/subject` that it must not be."""
    namespaces: Texts = ()
    """Namespaces of the client's identity."""
    not_namespaces: Texts = ()
    """Namespaces that it must not be in."""
    service_accounts: ServiceAccounts = ()
    """Service accounts of the client: `name` or `namespace/name`."""
    not_service_accounts: ServiceAccounts = ()
    """Service accounts that it must not be."""
    ip_blocks: Texts = ()
    """Addresses or ranges that the connection comes from."""
    not_ip_blocks: Texts = ()
    """Addresses or ranges that it must not come from."""
    remote_ip_blocks: Texts = ()
    """Addresses or ranges of the original client, by X-Forwarded-For or the PROXY protocol."""
    not_remote_ip_blocks: Texts = ()
    """Addresses or ranges that the original client must not have."""

    def rules(self) -> Rules:
        if not self.model_fields_set:
            yield problem(says="the source says nothing", hint="set principals, namespaces, ipBlocks or another field")
        yield from _values(self)
        for name in ("ip_blocks", "not_ip_blocks", "remote_ip_blocks", "not_remote_ip_blocks"):
            yield from check.check_subnets((_alias(self, name),), [each for each in getattr(self, name) if each])
        accounts = bool(self.service_accounts or self.not_service_accounts)
        if accounts and (self.principals or self.not_principals or self.namespaces or self.not_namespaces):
            hint = "keep one of them"
            yield problem("serviceAccounts", says="serviceAccounts exclude principals and namespaces", hint=hint)
        for name in ("service_accounts", "not_service_accounts"):
            for index, account in enumerate(getattr(self, name)):
                parts = account.split("/")
                if account and (len(parts) > 2 or not all(check.is_object_name(part) for part in parts)):
                    says = f"{account!r} is not a service account"
                    yield problem(_alias(self, name), index, says=says, hint="write <name> or <namespace>/<name>")


class From(Model):
    required = ("source",)

    source: Annotated[Source, Schema(minProperties=1)] | None = None
    """Where the request comes from."""

    def rules(self) -> Rules:
        if self.source is None:
            yield problem("source", says="there is no source", hint="set source, or remove the entry")


class Operation(Model):
    """What is asked for: every field that is set must hold; of the values of one field, one is enough."""

    hosts: Texts = ()
    """Hosts of the request; `*` in front or at the end."""
    not_hosts: Texts = ()
    """Hosts that it must not have."""
    ports: Ports = ()
    """Ports of the workload, as text."""
    not_ports: Ports = ()
    """Ports that it must not come in at."""
    methods: Texts = ()
    """Methods of the request."""
    not_methods: Texts = ()
    """Methods that it must not have."""
    paths: Texts = ()
    """Paths of the request; `*` in front or at the end, or a template with `{*}` and `{**}`."""
    not_paths: Texts = ()
    """Paths that it must not have."""

    def rules(self) -> Rules:
        if not self.model_fields_set:
            yield problem(says="the operation says nothing", hint="set hosts, ports, methods or paths")
        yield from _values(self)
        for name in ("ports", "not_ports"):
            for index, port in enumerate(getattr(self, name)):
                if port:
                    yield from _port_text((_alias(self, name), index), port)
        for name in ("paths", "not_paths"):
            for index, path in enumerate(getattr(self, name)):
                yield from _path_template((_alias(self, name), index), path)


class To(Model):
    required = ("operation",)

    operation: Annotated[Operation, Schema(minProperties=1)] | None = None
    """What is asked for."""

    def rules(self) -> Rules:
        if self.operation is None:
            yield problem("operation", says="there is no operation", hint="set operation, or remove the entry")


class Condition(Model):
    cel = (at_least_one("values", "notValues"),)

    key: Annotated[Text, Schema(pattern=_KEY_PATTERN)]
    """An attribute of the request, such as `request.headers[x-version]` or `source.ip`."""
    values: tuple[Text, ...] = ()
    """Values of which it must have one."""
    not_values: tuple[Text, ...] = ()
    """Values that it must not have."""

    def rules(self) -> Rules:
        if not self.key:
            yield problem("key", says="the condition has no key", hint="write one such as source.ip")
        elif self.key not in _KEYS and not _KEY_WITH_NAME.match(self.key) and not self.key.startswith(_FILTER_METADATA):
            hint = f"use request.headers[<name>], request.auth.claims[<name>] or one of {', '.join(sorted(_KEYS))}"
            yield problem("key", says=f"{self.key!r} is not an attribute of requests", hint=hint)
        if not self.values and not self.not_values:
            yield problem("values", says="the condition has no values", hint="set values or notValues")
        if self.key in ("source.ip", "remote.ip", "destination.ip"):
            yield from check.check_subnets(("values",), self.values)
            yield from check.check_subnets(("notValues",), self.not_values)
        elif self.key == "destination.port":
            for name, ports in (("values", self.values), ("notValues", self.not_values)):
                for index, port in enumerate(ports):
                    yield from _port_text((name, index), port)


class Rule(Model):
    """Holds when one of `from`, one of `to` and all of `when` do; an empty rule holds always."""

    from_: Annotated[tuple[From, ...], Schema(minItems=1, maxItems=512)] = ()
    """Where requests come from; anywhere when it is left out."""
    to: Annotated[tuple[To, ...], Schema(minItems=1)] = ()
    """What is asked for; anything when it is left out."""
    when: Annotated[tuple[Condition, ...], Schema(minItems=1)] = ()
    """Further conditions, all of them."""

    def rules(self) -> Rules:
        for name in ("from_", "to", "when"):
            if name in self.model_fields_set and not getattr(self, name):
                alias = _alias(self, name)
                says = f"an empty list for {alias} would hold never"
                yield problem(alias, says=says, hint=f"remove {alias}: without it, the rule does not ask")


class AuthorizationPolicy(Model):
    """The spec. ALLOW without rules lets nothing through."""

    cel = (
        ONE_WAY_TO_SELECT,
        Cel(
            "!has(self.provider) || (has(self.action) && self.action == 'CUSTOM')",
            "a provider is asked by action CUSTOM only",
        ),
        Cel(
            "!has(self.action) || self.action != 'CUSTOM' || (has(self.provider) && has(self.provider.name) && "
            "self.provider.name != '')",
            "action CUSTOM asks a provider: set provider.name",
        ),
        Cel(
            "!has(self.action) || !(self.action in ['DENY', 'CUSTOM']) || (has(self.rules) && self.rules.size() > 0)",
            "without rules this action has no effect: add a rule, {} for every request",
        ),
    )

    selector: WorkloadSelector | None = None
    """The workloads that it is for; all of the namespace (of the mesh, in the root namespace) without it."""
    target_ref: PolicyTargetReference | None = None
    """The Gateway or Service that it is for; use targetRefs."""
    target_refs: TargetRefs = ()
    """Gateways or services that it is for, instead of selector."""
    rules_: Annotated[tuple[Rule, ...], Schema(maxItems=512)] = ()
    """The policy holds for a request when one of these rules does."""
    action: Action = Action.ALLOW
    """What is done with requests that a rule holds for."""
    provider: ExtensionProvider | None = None
    """Who decides for CUSTOM."""

    def rules(self) -> Rules:
        yield from check_one_way_to_select(self.selector, self.target_ref, self.target_refs)
        if self.action is Action.CUSTOM:
            if self.provider is None or not self.provider.name:
                says = "CUSTOM does not say who decides"
                yield problem("provider", "name", says=says, hint="name one of the mesh's extensionProviders")
            yield from _custom_rules(self)
        elif self.provider is not None:
            yield problem("provider", says=f"{self.action} asks no provider", hint="remove it, or set action: CUSTOM")
        if not self.rules_ and self.action in (Action.DENY, Action.CUSTOM):
            says = f"{self.action} without rules has no effect"
            yield problem("rules", says=says, hint="add a rule; an empty one, {}, is for every request")


def _alias(model: Model, name: str) -> str:
    return type(model).model_fields[name].alias or name


def _values(model: Model) -> Rules:
    """A list that is given has entries, and none of them is empty."""
    for name in sorted(model.model_fields_set):
        values, alias = getattr(model, name), _alias(model, name)
        if not values:
            yield problem(alias, says="an empty list holds never", hint=f"remove {alias}, or add a value")
        for index, value in enumerate(values):
            if not value:
                yield problem(alias, index, says="an empty value holds never", hint="remove it")


def _port_text(path: tuple[str, int], text: str) -> Rules:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        yield problem(*path, says=f"{text!r} is not a port number", hint="use 1 to 65535")


def _path_template(path: tuple[str, int], text: str) -> Rules:
    """`{*}` stands for one part of a path, `{**}` for any number of them, once."""
    if "{" not in text and "}" not in text:
        return
    parts = text.split("/")
    wrong = [part for part in parts if ("{" in part or "}" in part) and part not in ("{*}", "{**}")]
    if wrong:
        yield problem(*path, says=f"{wrong[0]!r} is not a part of a template", hint="{*} and {**} are whole parts")
    elif "*" in text.replace("{*}", "").replace("{**}", ""):
        yield problem(*path, says="a template has no other wildcards", hint="use {*} and {**} only")
    elif "{**}" in parts[:-1] and ("{*}" in parts[parts.index("{**}") :] or parts.count("{**}") > 1):
        yield problem(*path, says="{**} stands once, after every {*}", hint="shorten the template")


def _custom_rules(policy: AuthorizationPolicy) -> Rules:
    """An external provider is asked before the proxy knows who authenticated, so it cannot be asked by that."""
    for index, rule in enumerate(policy.rules_):
        for nth, each in enumerate(rule.from_):
            for name in _NOT_FOR_CUSTOM if each.source is not None else ():
                for field in (name, f"not_{name}"):
                    if getattr(each.source, field):
                        alias = _alias(each.source or each, field)
                        where = ("rules", index, "from", nth, "source", alias)
                        says = f"CUSTOM cannot depend on {alias}"
                        yield problem(*where, says=says, hint="use ipBlocks, or an ALLOW or DENY policy beside it")
        for nth, condition in enumerate(rule.when):
            if condition.key in ("source.namespace", "source.principal") or condition.key.startswith("request.auth."):
                says = f"CUSTOM cannot depend on {condition.key}"
                hint = "use another key, or an ALLOW or DENY policy beside it"
                yield problem("rules", index, "when", nth, "key", says=says, hint=hint)
