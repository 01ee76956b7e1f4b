"""Who gets a gate instead of `istio-init`, and that pod security `restricted` lets the result in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.annotations import PodOptions
from mesh.interception import InterceptionSpec, arguments, parse_arguments
from mesh.settings import parse_mesh_settings
from node.pods import GATE_COMMAND, GATE_CONTAINER, gated
from tests.webhook.judge import check_like_kubernetes
from webhook import gate
from webhook.config import InjectionConfig
from webhook.gate import ENFORCE, for_namespace
from webhook.inject import inject
from webhook.workloads import inject_object

EVERYWHERE = InjectionConfig(settings=parse_mesh_settings("heddle: {nodeAgent: true}"))
LABELLED = {"istio-injection": "enabled"}
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "shop", "namespace": "shop"},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000},
        "initContainers": [{"name": "prepare", "image": "app:1"}],
        "containers": [{"name": "app", "image": "app:1"}],
    },
}


def injected(config: InjectionConfig, labels: dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    pod = {**POD, "metadata": {**POD["metadata"], **metadata}}
    result = inject(pod, for_namespace(config, "shop", labels or {}))
    check_like_kubernetes(result)
    return result


def inits(pod: dict[str, Any]) -> list[str]:
    return [container["name"] for container in pod["spec"]["initContainers"]]


@pytest.mark.parametrize(
    ("config", "labels", "first"),
    [
        (InjectionConfig(), {}, "istio-init"),
        (InjectionConfig(), {ENFORCE: "privileged"}, "istio-init"),
        (InjectionConfig(), {"pod-security.kubernetes.io/warn": "restricted"}, "istio-init"),
        (InjectionConfig(), {ENFORCE: "restricted"}, "istio-validation"),
        (InjectionConfig(), {ENFORCE: "baseline"}, "istio-validation"),
        (EVERYWHERE, {}, "istio-validation"),
        (InjectionConfig(node_agent=False), {ENFORCE: "restricted"}, "istio-init"),
        (
            InjectionConfig(
                settings=parse_mesh_settings("heddle: {nodeAgent: true, nodeAgentExcludeNamespaces: [shop]}")
            ),
            {ENFORCE: "restricted"},
            "istio-init",
        ),
    ],
)
def test_who_waits_at_a_gate(config: InjectionConfig, labels: dict[str, str], first: str) -> None:
    assert inits(injected(config, labels)) == [first, "istio-proxy", "prepare"]


def test_nothing_that_was_added_needs_a_right() -> None:
    """The rules of level `restricted` for containers, on those that the injection adds."""
    pod = injected(EVERYWHERE)
    for container in pod["spec"]["initContainers"][:2]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["privileged"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not any("hostPort" in port for port in container.get("ports", ()))
    allowed = {"name", "configMap", "downwardAPI", "emptyDir", "projected", "secret", "ephemeral", "csi"}
    assert all(set(volume) <= allowed for volume in pod["spec"]["volumes"])


def test_the_gate_asks_for_what_the_annotations_say() -> None:
    pod = injected(EVERYWHERE, annotations={"traffic.sidecar.istio.io/excludeInboundPorts": "22"})
    args = pod["spec"]["initContainers"][0]["args"]
    assert parse_arguments(args) == InterceptionSpec(exclude_inbound_ports=(22,))


def test_the_gate_is_the_user_of_the_proxy() -> None:
    own = {"name": "istio-proxy", "image": "auto", "securityContext": {"runAsUser": 5000, "runAsGroup": 5001}}
    pod = {**POD, "spec": {**POD["spec"], "containers": [*POD["spec"]["containers"], own]}}
    first = inject(pod, for_namespace(EVERYWHERE, "shop", {}))["spec"]["initContainers"][0]
    assert (first["securityContext"]["runAsUser"], first["securityContext"]["runAsGroup"]) == (5000, 5001)
    assert parse_arguments(first["args"]).proxy_uid == 5000


def test_a_gateway_has_no_rules_and_no_gate() -> None:
    pod = injected(EVERYWHERE, annotations={"inject.istio.io/templates": "gateway"})
    assert inits(pod) == ["prepare"]
    proxy = next(c for c in pod["spec"]["containers"] if c["name"] == "istio-proxy")
    assert proxy["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_injected_once() -> None:
    config = for_namespace(EVERYWHERE, "shop", {})
    once = inject(POD, config)
    assert inject(once, config) == once


def test_heddle_inject_decides_alike() -> None:
    result = inject_object(POD, "shop", {**LABELLED, ENFORCE: "restricted"}, InjectionConfig())
    assert result is not None
    assert inits(result.object)[0] == "istio-validation"


def test_the_node_agent_knows_the_gate() -> None:
    """Webhook and node agent do not import each other."""
    assert gate.GATE_CONTAINER == GATE_CONTAINER
    pod = injected(EVERYWHERE)
    pod["spec"]["nodeName"] = "node-1"
    found = gated(pod, "node-1")
    assert found is not None
    assert found.spec() == InterceptionSpec()
    assert pod["spec"]["initContainers"][0]["command"] == [GATE_COMMAND]


PORTS = st.lists(st.integers(1, 65535), max_size=4, unique=True).map(tuple)


@given(PORTS, PORTS, st.sampled_from([None, (), ("10.0.0.0/8",), ("0.0.0.0/0", "::/0")]))
def test_options_survive_the_way_to_the_node_agent(
    inbound: tuple[int, ...], outbound: tuple[int, ...], cidrs: tuple[str, ...] | None
) -> None:
    options = PodOptions(exclude_inbound_ports=inbound, exclude_outbound_ports=outbound, include_outbound_cidrs=cidrs)
    spec = InterceptionSpec(
        exclude_inbound_ports=options.exclude_inbound_ports,
        exclude_outbound_ports=options.exclude_outbound_ports,
        include_outbound_cidrs=options.include_outbound_cidrs,
    )
    raw = {
        "metadata": {"namespace": "a", "name": "b", "uid": "c"},
        "spec": {
            "nodeName": "n",
            "initContainers": [{"name": GATE_CONTAINER, "command": [GATE_COMMAND], "args": arguments(spec)}],
        },
    }
    found = gated(raw, "n")
    assert found is not None
    assert found.spec() == spec
