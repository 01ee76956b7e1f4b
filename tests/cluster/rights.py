"""Which rights of a component were used, by the API server's audit log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mesh.rbac import Right, rights


@dataclass(frozen=True)
class Use:
    """One request that was allowed. `resource` has its subresource: `pods/status`."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str


def uses(audit_log: Iterable[str], service_account: str) -> frozenset[Use]:
    """What `istio-system:heddle-ca`, say, did. A list or watch of one object by its field selector has that name."""
    return frozenset(_uses(audit_log, f"system:serviceaccount:{service_account}"))


def denied(audit_log: Iterable[str], service_account: str) -> frozenset[Use]:
    """What it tried and was not allowed."""
    return frozenset(_uses(audit_log, f"system:serviceaccount:{service_account}", decision="forbid"))


def unused(component: str, done: Iterable[Use]) -> list[str]:
    """Each verb of each right of `component` that nothing in `done` needed, as the table names it."""
    known = list(done)
    left = []
    for right in rights(component):
        for verb in right.verbs:
            if not any(_needs(use, right, verb) for use in known):
                names = f" {', '.join(right.names)}" if right.names else ""
                left.append(f"{verb} {right.resource}{names} ({right.why})")
    return left


def _needs(use: Use, right: Right, verb: str) -> bool:
    same = (use.verb, use.group, use.resource) == (verb, right.group, right.resource)
    # A name is not part of what is asked when something is created.
    return same and (not right.names or verb == "create" or use.name in right.names)


def _uses(audit_log: Iterable[str], user: str, decision: str = "allow") -> Iterator[Use]:
    for line in audit_log:
        event = json.loads(line)
        asked = event.get("objectRef")
        if event["user"]["username"] != user or asked is None:
            continue
        if event.get("annotations", {}).get("authorization.k8s.io/decision") != decision:
            continue
        subresource = f"/{asked['subresource']}" if asked.get("subresource") else ""
        resource = asked["resource"] + subresource
        name = asked.get("name", "")
        yield Use(event["verb"], asked.get("apiGroup", ""), resource, asked.get("namespace", ""), name)
        # Server-side apply of what is not there yet needs the right to create it too.
        if event["verb"] == "patch" and event.get("responseStatus", {}).get("code") == 201:
            yield Use("create", asked.get("apiGroup", ""), resource, asked.get("namespace", ""), name)
