"""What `heddle doctor` makes of facts; with a real API server in tests/cluster/install."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from install.doctor import Facts, Severity, diagnose
from install.files import folder
from install.inventory import BEGUN, COMPLETE, Inventory
from install.names import REVISION_LABEL
from mesh import admission
from mesh.kinds import KINDS
from tests.support.certificates import Authority

NOW = datetime.now(UTC)
HOME = "istio-system"
ROOT = Authority().root_pem


def configuration(bundle: str = ROOT) -> dict[str, Any]:
    (raw,) = [each for each in folder("base/webhook") if each["kind"] == "MutatingWebhookConfiguration"]
    encoded = base64.b64encode(bundle.encode()).decode()
    entries = [{**each, "clientConfig": {**each["clientConfig"], "caBundle": encoded}} for each in raw["webhooks"]]
    return {**raw, "webhooks": entries}


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {key.replace("_", "-"): value for key, value in labels.items()}}}


def roots(namespace: str, pem: str = ROOT) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": "istio-ca-root-cert"}, "data": {"root-cert.pem": pem}}


def definition(plural: str, group: str, versions: tuple[str, ...]) -> dict[str, Any]:
    served = [{"name": version, "served": True} for version in versions]
    return {"metadata": {"name": f"{plural}.{group}"}, "spec": {"versions": served}}


SLICE = {
    "metadata": {"namespace": HOME, "name": "w", "labels": {"kubernetes.io/service-name": "heddle-webhook"}},
    "endpoints": [{"conditions": {"ready": True}}],
}
WELL = Facts(
    inventories=[Inventory(HOME, "default", "0.1.0", COMPLETE, frozenset())],
    namespaces=[namespace(HOME), namespace("a", istio_injection="enabled")],
    webhooks=[configuration()],
    slices=[SLICE],
    definitions=[definition(kind.plural, kind.group, kind.versions) for kind in KINDS if kind.of_istio],
    roots=[roots(HOME), roots("a")],
)


def messages(facts: Facts, now: datetime = NOW) -> list[str]:
    return [f"{finding.severity} {finding.about}: {finding.message}" for finding in diagnose(facts, now)]


def test_nothing_is_wrong() -> None:
    # A root of an hour, as the test's is, ends soon; nothing else may be said.
    assert all("its certificates end on" in message for message in messages(WELL))


def test_nothing_is_installed() -> None:
    (finding,) = diagnose(Facts([]), NOW)
    assert finding.way_out == ("heddle install",)


def test_an_installation_that_did_not_finish() -> None:
    facts = replace(WELL, inventories=[replace(WELL.inventories[0], state=BEGUN)])
    assert "error revision default: the installation of version 0.1.0 did not finish" in messages(facts)


def test_no_webhook_answers() -> None:
    gone = {**SLICE, "endpoints": [{"conditions": {"ready": False}}]}
    (found,) = [each for each in diagnose(replace(WELL, slices=[gone]), NOW) if each.severity is Severity.ERROR]
    assert "no pod can be created in labelled namespaces (a)" in found.message
    assert any("kubectl delete mutatingwebhookconfiguration heddle-sidecar-injector" in line for line in found.way_out)


def validator(policy: str) -> dict[str, Any]:
    raw = admission.configuration()
    for entry in raw["webhooks"]:
        entry["failurePolicy"] = policy
        entry["clientConfig"]["caBundle"] = base64.b64encode(ROOT.encode()).decode()
    return raw


def test_nobody_validates() -> None:
    gone = {**SLICE, "endpoints": [{"conditions": {"ready": False}}]}
    about = "ValidatingWebhookConfiguration heddle-validator"
    (found,) = [
        each
        for each in diagnose(replace(WELL, slices=[gone], validators=[validator("Fail")]), NOW)
        if each.severity is Severity.ERROR and each.about == about
    ]
    assert "no object of Istio's kinds can be created or changed" in found.message
    assert any("kubectl delete validatingwebhookconfiguration heddle-validator" in line for line in found.way_out)
    for slices, policy in (([gone], "Ignore"), ([SLICE], "Fail")):
        facts = replace(WELL, slices=slices, validators=[validator(policy)])
        assert not any(message.startswith(f"error {about}") for message in messages(facts))


def test_certificates_that_expired_are_named() -> None:
    said = messages(WELL, NOW + timedelta(hours=2))
    assert any(
        m.startswith("error MutatingWebhookConfiguration heddle-sidecar-injector") and "expired" in m for m in said
    )
    assert any(m.startswith("error ConfigMap a/istio-ca-root-cert: its certificates expired") for m in said)


def test_what_is_no_certificate() -> None:
    facts = replace(WELL, roots=[roots(HOME), roots("a", "x")])
    assert "error ConfigMap a/istio-ca-root-cert: it holds no certificate that can be read" in messages(facts)


def test_definitions_that_lack_a_version_or_are_not_there() -> None:
    (first, second, *rest) = WELL.definitions
    less = {**second, "spec": {"versions": second["spec"]["versions"][:1]}}
    said = messages(replace(WELL, definitions=[less, *rest]))
    assert any(first["metadata"]["name"] in m and "is not defined" in m for m in said)
    assert any(second["metadata"]["name"] in m and "are not served" in m for m in said)


def test_pods_without_the_sidecar_that_their_namespace_asks_for() -> None:
    def pod(name: str, home: str = "a", **more: Any) -> dict[str, Any]:
        return {"metadata": {"name": name, "namespace": home, **more}, "spec": {}, "status": {"phase": "Running"}}

    pods = [
        pod("before"),
        pod("injected", annotations={"sidecar.istio.io/status": "{}"}),
        pod("never", labels={"sidecar.istio.io/inject": "false"}),
        pod("elsewhere", "b"),
        {**pod("job"), "status": {"phase": "Succeeded"}},
        {**pod("host"), "spec": {"hostNetwork": True}},
    ]
    (said,) = [message for message in messages(replace(WELL, pods=pods)) if "Namespace a" in message]
    assert said.endswith("1 of its pods have none: before")


def test_namespaces_that_ask_for_a_revision_that_is_not_there() -> None:
    asking = {"metadata": {"name": "b", "labels": {REVISION_LABEL: "canary"}}}
    facts = replace(WELL, namespaces=[*WELL.namespaces, asking], roots=[*WELL.roots, roots("b")])
    assert any("Namespace b: it is labelled istio.io/rev=canary" in message for message in messages(facts))


@pytest.mark.parametrize(("level", "told"), [("restricted", True), ("baseline", True), ("privileged", False)])
def test_restricted_namespaces_need_the_node_agent(level: str, told: bool) -> None:
    labels = {"istio-injection": "enabled", "pod-security.kubernetes.io/enforce": level}
    strict = {"metadata": {"name": "strict", "labels": labels}}
    facts = replace(WELL, namespaces=[*WELL.namespaces, strict], roots=[*WELL.roots, roots("strict")])
    start = (
        f"warning Namespace strict: it enforces pod security {level} and asks for sidecars, and the node agent is not"
    )
    assert any(message.startswith(start) for message in messages(facts)) is told
    agent = {
        "kind": "DaemonSet",
        "metadata": {"namespace": HOME, "name": "heddle-node"},
        "spec": {"selector": {"matchLabels": {"app": "heddle-node"}}},
    }
    assert not any("node agent" in message for message in messages(replace(facts, workloads=[agent])))
