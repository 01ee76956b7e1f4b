"""webhook/registration.py: what is written into webhook configurations, and what is left alone."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from kube.source import Changed, Listed
from mesh import admission
from tests.support.certificates import Authority
from webhook.registration import MUTATING, VALIDATING, Registration, Trust, certificates, revisions_of
from webhook.registration import patch_of as patch_for

OLD, NEW = (certificates(Authority(name).root_pem)[0] for name in ("old", "new"))
ENTRY = "rev.namespace.sidecar-injector.heddle.dev"
Raw = dict[str, Any]


def patch_of(configuration: Raw, roots: tuple[str, ...], sequence: int, **more: Any) -> Raw | None:
    own = more.pop("own", roots)
    return patch_for(configuration, Trust(roots, sequence, own, **more))


def configuration(*roots: str, sequence: str = "", names: tuple[str, ...] = (ENTRY,), bundle: str = "") -> Raw:
    pem = "".join(f"{root}\n" for root in roots)
    client = {"service": {"name": "x"}, "caBundle": bundle or base64.b64encode(pem.encode()).decode()}
    annotations = {"heddle.dev/bundle-sequence": sequence} if sequence else {}
    return {
        "metadata": {"name": "c", "resourceVersion": "7", "annotations": annotations},
        "webhooks": [{"name": name, "clientConfig": client} for name in names],
    }


def written(patch: Raw | None) -> tuple[str, ...]:
    assert patch is not None
    (entry,) = patch["webhooks"]
    assert entry["name"] == ENTRY
    return certificates(base64.b64decode(entry["clientConfig"]["caBundle"]).decode())


def test_a_new_configuration_gets_the_roots() -> None:
    patch = patch_of(configuration(), (OLD,), 1)
    assert written(patch) == (OLD,)
    assert patch is not None
    assert patch["metadata"] == {"resourceVersion": "7", "annotations": {"heddle.dev/bundle-sequence": "1"}}


def test_what_is_right_is_not_written_again() -> None:
    assert patch_of(configuration(OLD, sequence="1"), (OLD,), 1) is None
    assert patch_of(configuration(NEW, OLD, sequence="1"), (OLD, NEW), 1) is None


def test_a_root_is_added_before_the_bundle_changes() -> None:
    assert written(patch_of(configuration(OLD, sequence="1"), (OLD, NEW), 1)) == (OLD, NEW)


def test_a_root_goes_with_a_later_bundle_only() -> None:
    assert written(patch_of(configuration(OLD, NEW, sequence="2"), (NEW,), 3)) == (NEW,)
    assert patch_of(configuration(OLD, NEW, sequence="3"), (NEW,), 3) is None


def test_a_replica_that_is_behind_takes_nothing_away_and_adds_what_it_needs_itself() -> None:
    assert patch_of(configuration(OLD, NEW, sequence="2"), (OLD,), 1) is None
    assert written(patch_of(configuration(NEW, sequence="3"), (OLD,), 1)) == (NEW, OLD)
    assert patch_of(configuration(NEW, sequence="3"), (OLD, NEW), 2, own=(NEW,)) is None


def test_what_was_added_while_behind_goes_when_the_bundle_is_known() -> None:
    both = configuration(NEW, OLD, sequence="3")
    assert patch_of(both, (NEW,), 3) is None
    assert written(patch_of(both, (NEW,), 3, owed=True)) == (NEW,)
    assert patch_of(both, (OLD,), 1, owed=True) is None


def test_two_replicas_do_not_undo_each_others_work() -> None:
    state = configuration(OLD, sequence="1")
    for roots, sequence in [((NEW,), 3), ((OLD,), 1), ((NEW,), 3), ((OLD,), 1)]:
        patch = patch_of(state, roots, sequence)
        if patch:
            annotations = patch["metadata"]["annotations"] or state["metadata"]["annotations"]
            state = configuration(*written(patch), sequence=annotations["heddle.dev/bundle-sequence"])
    assert patch_of(state, (NEW,), 3) is None
    assert patch_of(state, (OLD,), 1) is None


def test_a_ca_that_started_anew_is_trusted() -> None:
    assert written(patch_of(configuration(OLD, sequence="9"), (NEW,), 1)) == (OLD, NEW)


def test_later_bundle_with_the_same_roots_is_noted_only() -> None:
    assert patch_of(configuration(OLD, sequence="1"), (OLD,), 2) == {
        "metadata": {"resourceVersion": "7", "annotations": {"heddle.dev/bundle-sequence": "2"}}
    }


@pytest.mark.parametrize("bundle", ["", "!!", base64.b64encode(b"\xff\xfe").decode(), base64.b64encode(b"x").decode()])
def test_what_cannot_be_read_is_replaced(bundle: str) -> None:
    assert written(patch_of(configuration(bundle=bundle, sequence="1"), (OLD,), 1)) == (OLD,)


def test_entries_of_others_are_left_alone() -> None:
    assert patch_of(configuration(names=("sidecar-injector.istio.io",)), (OLD,), 1) is None
    assert written(patch_of(configuration(names=("other.example.com", ENTRY)), (OLD,), 1)) == (OLD,)


def test_without_roots_nothing_is_written() -> None:
    assert patch_of(configuration(OLD, sequence="1"), (), 5) is None


def test_the_revisions_that_lead_here() -> None:
    def selecting(name: str, *values: str) -> Raw:
        wanted = [
            {"key": "istio.io/rev", "operator": "In", "values": list(values)},
            {"key": "istio.io/rev", "operator": "DoesNotExist"},
        ]
        return {"webhooks": [{"name": name, "namespaceSelector": {"matchExpressions": wanted}}]}

    found = [selecting(ENTRY, "canary"), selecting(ENTRY, "prod", "default"), selecting("x.istio.io", "not-ours"), {}]
    assert revisions_of(found) == {"canary", "prod", "default"}


def test_certificates_in_a_text() -> None:
    text = f"# old\r\n{OLD}\n\n{NEW}{OLD}\nnothing else"
    assert certificates(text) == (OLD, NEW)
    assert certificates("") == ()


def test_the_entries_of_validation_trust_the_same_roots() -> None:
    raw = admission.configuration()
    raw["metadata"]["resourceVersion"] = "7"
    patch = patch_of(raw, (OLD, NEW), 1)
    assert patch is not None
    assert [entry["name"] for entry in patch["webhooks"]] == [entry["name"] for entry in raw["webhooks"]]
    for entry in patch["webhooks"]:
        assert certificates(base64.b64decode(entry["clientConfig"]["caBundle"]).decode()) == (OLD, NEW)


def test_configurations_of_both_kinds_are_known_side_by_side() -> None:
    told: list[frozenset[str]] = []
    registration = Registration(None, "default", lambda: "", told.append)  # type: ignore[arg-type]
    named = {"webhooks": [{"name": ENTRY}], "metadata": {"name": "same", "resourceVersion": "1"}}
    registration.on_event(Listed(MUTATING.kind, (named,), 1))
    registration.on_event(Listed(VALIDATING.kind, (named,), 1))
    registration.on_event(Listed(MUTATING.kind, (), 2))
    assert registration.configurations(MUTATING) == []
    assert registration.configurations(VALIDATING) == [named]
    registration.on_event(Changed(VALIDATING.kind, named, deleted=True, resource_version=3))
    assert registration.configurations(VALIDATING) == []
    assert len(told) == 2, "revision tags are those of injection alone"
