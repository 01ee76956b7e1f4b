"""What a container's root shows, decided from a listing; what a container is allowed; what is not honoured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.linux import CAPABILITIES
from local.rootfs import Entry, Needed, plan, survey
from local.security import security
from local.support import pod_fields, service_fields, unhonoured
from mesh.errors import InvalidInput

TOP = [Entry(name) for name in ("etc", "usr", "home", "root", "proc", "tmp", "srv", "lost+found")]


def test_directories_are_layered_private_ones_start_empty_and_links_stay_links() -> None:
    found = plan([*TOP, Entry("bin", "usr/bin")], [Needed("/usr")])
    assert found.layered == ("etc", "srv", "usr")
    assert set(found.fresh) == {"tmp", "run", "home", "root"}
    assert found.links == (("bin", "usr/bin"),)
    assert (found.emptied, found.binds) == ((), ())


def test_what_lies_below_a_hidden_or_private_directory_is_shown_alone() -> None:
    needed = [
        Needed("/root/.pyenv/versions/3.11", private="/root"),
        Needed("/home/ann/heddle/.venv", private="/home/ann"),
        Needed("/home/ann/heddle"),
        Needed("/srv/closed/app", private="/srv/closed"),
        Needed("/srv/open"),
    ]
    found = plan(TOP, needed)
    assert found.emptied == ("/srv/closed",)
    assert set(found.binds) == {"/root/.pyenv/versions/3.11", "/home/ann/heddle", "/srv/closed/app"}


def test_another_file_system_below_a_layered_directory_is_bound() -> None:
    assert plan(TOP, [Needed("/usr/local", elsewhere=True)]).binds == ("/usr/local",)


def test_the_engines_state_is_covered_where_it_would_show() -> None:
    needed = [Needed("/home/ann/heddle")]
    masked = ["/home/ann/heddle/.heddle", "/home/ann/other", "/usr/x", "/run/heddle"]
    assert plan(TOP, needed, masked).masked == ("/home/ann/heddle/.heddle", "/usr/x")


def test_a_survey_finds_the_shallowest_private_ancestor(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "open" / "app"
    inner.mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    entries, needed = survey([inner])
    assert {"etc", "usr"} <= {entry.name for entry in entries}
    assert needed[0].path == str(inner.resolve())
    assert needed[0].private is not None
    assert str(inner.resolve()).startswith(needed[0].private)


paths = st.lists(st.sampled_from(["home", "srv", "a", "b", "usr"]), min_size=1, max_size=4).map(
    lambda p: "/" + "/".join(p)
)


@given(st.lists(paths, max_size=6))
def test_no_bind_lies_in_another_and_all_that_is_hidden_is_bound(needed: list[str]) -> None:
    found = plan(TOP, [Needed(path) for path in needed])
    for one in found.binds:
        assert not any(one != other and one.startswith(f"{other}/") for other in found.binds)
    for path in needed:
        if path.startswith("/home/"):
            assert any(path == bind or path.startswith(f"{bind}/") for bind in found.binds)


# Rights


def rights(pod: dict[str, Any] | None = None, own: dict[str, Any] | None = None, user: int = 0) -> Any:
    return security(
        {"spec": {"securityContext": pod or {}}}, {"name": "c", "securityContext": own or {}}, user, "spec.c"
    )


def names(numbers: tuple[int, ...]) -> set[str]:
    return {CAPABILITIES[number] for number in numbers}


def test_the_containers_own_context_wins_over_the_pods_and_the_images() -> None:
    assert (rights(user=7).uid, rights({"runAsUser": 8}, user=7).uid) == (7, 8)
    assert rights({"runAsUser": 8, "runAsGroup": 9}, {"runAsUser": 0}, user=7).uid == 0
    assert rights({"supplementalGroups": [5], "fsGroup": 4}).groups == (4, 5)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"drop": ["ALL"]}, set()),
        ({"drop": ["all"], "add": ["NET_ADMIN", "CAP_NET_RAW"]}, {"NET_ADMIN", "NET_RAW"}),
        ({"add": ["ALL"]}, set(CAPABILITIES)),
    ],
)
def test_capabilities(wanted: dict[str, Any], expected: set[str]) -> None:
    assert names(rights(own={"capabilities": wanted}).capabilities) == expected
    assert len(rights(own={"privileged": True}).capabilities) == len(CAPABILITIES)


def test_what_makes_no_sense_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"capabilities\.add.*'NET_ADMN'"):
        rights(own={"capabilities": {"add": ["NET_ADMN"]}})
    with pytest.raises(InvalidInput, match="runAsNonRoot"):
        rights({"runAsNonRoot": True})
    assert rights({"runAsNonRoot": True}, {"runAsUser": 1}).uid == 1


# Fields that are not honoured


def test_every_field_that_is_not_honoured_is_named_once() -> None:
    container = {
        "name": "c",
        "image": "i",
        "resources": {"limits": {"cpu": 1}},
        "securityContext": {"seccompProfile": {"type": "Localhost"}, "runAsUser": 1},
        "volumeMounts": [{"name": "h", "mountPath": "/h"}],
        "tty": False,
    }
    spec = {
        "containers": [container, container],
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [],
        "volumes": [{"name": "h", "hostPath": {"path": "/srv"}}, {"name": "e", "emptyDir": {"sizeLimit": "1Gi"}}],
    }
    assert pod_fields({"spec": spec}) == [
        "spec.containers[].resources",
        "spec.containers[].securityContext.seccompProfile",
        "spec.nodeSelector",
        "spec.volumes[].emptyDir.sizeLimit",
    ]
    sentences = unhonoured("Deployment shop/web", {"spec": spec})
    assert [sentence.startswith("Deployment shop/web: ") for sentence in sentences] == [True, True]
    assert "hostPath volumes are read-only" in sentences[1]


def test_a_plain_pod_and_service_have_nothing_to_name() -> None:
    assert unhonoured("Pod a/b", {"spec": {"containers": [{"name": "c", "image": "i"}], "hostPID": False}}) == []
    profile = {"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}
    assert unhonoured("Pod a/b", {"spec": {"containers": [{"name": "c", "image": "i", **profile}], **profile}}) == []
    profile["securityContext"]["seccompProfile"] = {"type": "Localhost", "localhostProfile": "own.json"}
    assert "seccompProfile" in unhonoured("Pod a/b", {"spec": profile})[0]
    assert service_fields({"spec": {"ports": [{"port": 1}], "sessionAffinity": "None"}}) == []
    assert service_fields({"spec": {"sessionAffinity": "ClientIP"}}) == ["spec.sessionAffinity"]
