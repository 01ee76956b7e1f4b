"""A plan that fails leaves the last good one in force; equal sets stay the same objects."""

from __future__ import annotations

from typing import Any

from discovery.compiling import Compiled, Compiler
from discovery.envoy.render import render
from discovery.plain import without_identity
from discovery.plan.model import PeerTls, Plan
from discovery.plan.plan import plan, proxy_of
from mesh.objects import Key, Pod
from mesh.snapshot import Snapshot
from mesh.wire import ResourceType
from tests.support.snapshots import snapshot

TEXT = """
apiVersion: v1
kind: Pod
metadata: {name: a-0, namespace: default, labels: {app: a}}
spec: {serviceAccountName: a, containers: [{name: app, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec: {selector: {app: a}, ports: [{name: http, port: 80, targetPort: 8080}]}
"""
POD = Key("default", "a-0")


def make(of: Snapshot, pod: Pod) -> Plan:
    return plan(of, proxy_of(of, pod.meta.key))


def broken(*_: Any) -> Plan:
    raise RuntimeError("a bug")


def test_a_failing_plan_leaves_the_last_in_force() -> None:
    now = snapshot(TEXT)
    good = Compiler(make, render).compile(now, now.pods[POD], Compiled())
    after = Compiler(broken, render).compile(now, now.pods[POD], good)
    assert after.failed
    assert after.resources is good.resources
    (finding,) = after.findings
    assert (finding.kind, finding.name) == ("Pod", "a-0")
    assert "RuntimeError: a bug" in finding.message
    assert finding.effect == "its last good configuration stays in force"
    again = Compiler(make, render).compile(now, now.pods[POD], after)
    assert not again.failed
    assert not again.findings


def test_a_failing_render_likewise() -> None:
    now = snapshot(TEXT)
    after = Compiler(make, broken).compile(now, now.pods[POD], Compiled())  # type: ignore[arg-type]
    assert after.failed
    assert not after.resources
    assert after.findings[0].effect == "it has no configuration"


def test_equal_sets_are_the_same_objects() -> None:
    compiler = Compiler(make, render)
    one = snapshot(TEXT)
    first = compiler.compile(one, one.pods[POD], Compiled())
    two = snapshot(TEXT.replace("port: 80,", "port: 81,"))
    second = compiler.compile(two, two.pods[POD], first)
    assert second.resources[ResourceType.SECRETS] is first.resources[ResourceType.SECRETS]
    assert second.resources[ResourceType.ROUTES] is not first.resources[ResourceType.ROUTES]
    third = compiler.compile(two, two.pods[POD], second)
    assert all(third.resources[kind] is second.resources[kind] for kind in third.resources)


def test_without_identity_is_plain_where_that_is_allowed() -> None:
    now = snapshot(TEXT)
    before = make(now, now.pods[POD])
    after = without_identity(before)
    assert all(each.tls is None or not each.tls.automatic for each in after.destinations)
    assert before.inbound_default is PeerTls.PERMISSIVE
    assert after.inbound_default is PeerTls.DISABLE
    assert {each.peer_tls for each in after.inbound} == {PeerTls.DISABLE}


def test_without_identity_keeps_what_is_strict() -> None:
    strict = """
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
"""
    now = snapshot(TEXT + strict)
    after = without_identity(make(now, now.pods[POD]))
    assert after.inbound_default is PeerTls.STRICT
    assert {each.peer_tls for each in after.inbound} == {PeerTls.STRICT}
