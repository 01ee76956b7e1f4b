"""What the API server sends to the validating webhook: mesh/admission.py, and the manifest that is written from it."""

from __future__ import annotations

from mesh import admission
from mesh.kinds import KINDS

ENTRIES = admission.configuration()["webhooks"]


def test_the_manifest_is_up_to_date() -> None:
    assert admission.FILE.read_text() == admission.page(), "run: python -m mesh.admission"


def test_every_kind_is_sent_in_every_version_and_nothing_that_is_deleted() -> None:
    sent = {
        (group, version, plural)
        for entry in ENTRIES
        for rule in entry["rules"]
        for group in rule["apiGroups"]
        for version in rule["apiVersions"]
        for plural in rule["resources"]
    }
    ours = {(kind.group, version, kind.plural) for kind in KINDS if kind.model for version in kind.versions}
    assert sent == ours | {("", "v1", "services"), ("", "v1", "configmaps")}
    assert {operation for entry in ENTRIES for rule in entry["rules"] for operation in rule["operations"]} == {
        "CREATE",
        "UPDATE",
    }


def test_nobody_can_be_locked_out() -> None:
    assert {entry["failurePolicy"] for entry in ENTRIES} == {"Ignore"}
    assert all(entry["timeoutSeconds"] <= 5 for entry in ENTRIES)
    assert all(entry["sideEffects"] == "NoneOnDryRun" for entry in ENTRIES), "or no dry run could be made"
    enforced = [entry for entry in ENTRIES if entry["name"] in admission.ENFORCED]
    assert len(enforced) == len(admission.ENFORCED)
    for entry in enforced:
        (said,) = entry["namespaceSelector"]["matchExpressions"]
        assert (said["key"], said["operator"]) == ("kubernetes.io/metadata.name", "NotIn")
        assert set(said["values"]) == {"kube-system", "kube-public", "kube-node-lease", "istio-system"}
        assert all(group.endswith(".istio.io") for rule in entry["rules"] for group in rule["apiGroups"])


def test_of_config_maps_only_those_of_the_meshs_settings_are_sent() -> None:
    (entry,) = (each for each in ENTRIES if any("configmaps" in rule["resources"] for rule in each["rules"]))
    assert entry["namespaceSelector"]["matchExpressions"][0]["values"] == ["istio-system"]
    assert "'mesh' in object.data" in entry["matchConditions"][0]["expression"]


def test_an_object_is_sent_once() -> None:
    """One that names a revision to that one's entries, one that names none to the default revision's."""
    for entry in ENTRIES:
        if not any(group.endswith(".istio.io") for rule in entry["rules"] for group in rule["apiGroups"]):
            continue
        (said,) = entry["objectSelector"]["matchExpressions"]
        assert said["key"] == "istio.io/rev"
        assert said["operator"] == ("In" if entry["name"].startswith("rev.") else "DoesNotExist")
