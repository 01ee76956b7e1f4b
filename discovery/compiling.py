"""One proxy's resources from one snapshot, and what holds when they cannot be made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import structlog

from discovery.findings import Finding, of_plan
from discovery.layers import Entries
from discovery.plan.model import Plan
from discovery.plan.origins import Problem
from discovery.secrets import secrets_of
from discovery.versions import Resources, entries_of, set_version
from mesh.objects import Pod
from mesh.snapshot import Snapshot
from mesh.wire import ResourceType

log = structlog.get_logger("discovery")

MakePlan = Callable[[Snapshot, Pod], Plan]
Render = Callable[[Plan], Resources]


@dataclass(frozen=True, eq=False)
class Compiled:
    """`plan` None: it could never be made. `failed`: `resources` are the last good ones, not what is asked for now."""

    plan: Plan | None = None
    resources: Resources = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    failed: bool = False

    @cached_property
    def set_versions(self) -> dict[str, str]:
        """Type -> short hash of its whole set."""
        return {str(kind): set_version(entries) for kind, entries in self.resources.items()}


@dataclass(frozen=True)
class Compiler:
    """`make_plan` and `render` are pure and remember what they computed by its inputs.

    `with_secrets` False is for those who may not have the private keys of gateways. `newest`: the sets made last;
    `said`: the problems told last, in words.
    """

    make_plan: MakePlan
    render: Render
    with_secrets: bool = True
    newest: dict[ResourceType, Entries] = field(default_factory=dict, repr=False)
    said: list[tuple[tuple[Problem, ...], tuple[Finding, ...]]] = field(default_factory=list, repr=False)

    def compile(self, snapshot: Snapshot, pod: Pod, last: Compiled) -> Compiled:
        """Never raises: what cannot be planned leaves `last` in force for this proxy, with a finding that says so."""
        try:
            plan = self.make_plan(snapshot, pod)
            secrets, findings = (
                secrets_of(plan, snapshot.secrets, tell_missing=False) if self.with_secrets else ({}, ())
            )
            rendered = last.resources if plan is last.plan else self.render(plan)
        except Exception as error:  # a bug in planning for one proxy must not hurt the others
            log.exception("no configuration for a proxy", namespace=pod.meta.namespace, pod=pod.meta.name)
            effect = "its last good configuration stays in force" if last.plan else "it has no configuration"
            said = f"its configuration could not be computed ({type(error).__name__}: {error})"
            hint = "this is a fault of Heddle; discovery's log has the details"
            finding = Finding("Pod", pod.meta.namespace, pod.meta.name, "", said, hint, effect)
            return replace(last, findings=(finding,), failed=True)
        resources = dict(rendered)
        resources[ResourceType.SECRETS] = secrets
        found = self._said(plan.problems)
        return Compiled(plan, self._sharing(last.resources, resources), (*found, *findings) if findings else found)

    def _said(self, problems: tuple[Problem, ...]) -> tuple[Finding, ...]:
        """Plans of many proxies have the same problems, and share what is said of them."""
        if not self.said or self.said[-1][0] is not problems:
            self.said[:] = [(problems, tuple(map(of_plan, problems)))]
        return self.said[-1][1]

    def _sharing(self, last: Resources, now: Resources) -> Resources:
        """`now`, with equal sets of `last` or of the proxy before in their place: an unchanged type is seen at a
        glance, and what many proxies have in common is held once."""
        shared: dict[ResourceType, Entries] = {}
        for kind, entries in now.items():
            before = entries_of(last, kind)
            if before is not entries and before != entries:
                before = self.newest.get(kind, entries)
            shared[kind] = self.newest[kind] = before if before is entries or before == entries else entries
        return shared
