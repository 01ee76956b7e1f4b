"""manifests/: what `kubectl apply -k` reads is what install applies, and what is generated is current."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml

from install import files
from install.operator import PROFILES
from install.render import COMPONENT_LABEL, OWN_IMAGE, OWNER_LABEL
from mesh.rbac import COMPONENTS, access_page, page_of
from tests.cluster.api_server import ApiServer
from tests.cluster.installing import kubectl
from tests.install.rendering import CRD, profile_objects


@pytest.mark.parametrize("component", COMPONENTS)
def test_rights_are_current(component: str) -> None:
    assert page_of(component).read_text() == access_page(component), "python -m mesh.rbac writes it anew"


@pytest.mark.parametrize("profile", PROFILES)
def test_kubectl_reads_a_profile_as_install_renders_it(profile: str, api_server: ApiServer) -> None:
    assert api_server.address, "where there can be no API server there may be no kubectl either"
    command = [*kubectl(), "kustomize", str(files.ROOT / "profiles" / profile)]
    built = subprocess.run(command, capture_output=True, text=True, check=True)
    ours = {_name(raw): _plain(raw) for raw in profile_objects(profile)}
    theirs = {_name(raw): _plain(raw) for raw in yaml.safe_load_all(built.stdout) if raw["kind"] != CRD}
    assert theirs == ours


def test_every_file_belongs_to_a_kustomization() -> None:
    used = {files.ROOT / "profiles" / profile / "profile.yaml" for profile in PROFILES}
    for kustomization in files.ROOT.rglob(files.KUSTOMIZATION):
        said = yaml.safe_load(kustomization.read_text())
        generated = [name for generator in said.get("configMapGenerator", ()) for name in generator["files"]]
        named = [*said["resources"], *(patch["path"] for patch in said.get("patches", ())), *generated]
        used |= {kustomization, *((kustomization.parent / name).resolve() for name in named)}
    assert {file for file in files.ROOT.rglob("*") if file.is_file()} - used == set()


def test_the_image_is_that_of_this_version() -> None:
    images = {
        container["image"]
        for raw in profile_objects("minimal")
        if raw["kind"] == "Deployment"
        for container in raw["spec"]["template"]["spec"]["containers"]
    }
    assert images == {OWN_IMAGE}


@pytest.mark.parametrize("profile", PROFILES)
def test_every_pod_is_allowed_where_pod_security_is_restricted(profile: str) -> None:
    """By https://kubernetes.io/docs/concepts/security/pod-security-standards/; of gateways injection does the rest."""
    for raw in profile_objects(profile):
        if raw["kind"] != "Deployment":
            continue
        pod = raw["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not any(pod.get(field) for field in ("hostNetwork", "hostPID", "hostIPC"))
        assert all(
            len({"configMap", "secret", "emptyDir", "projected"} & v.keys()) == 1 for v in pod.get("volumes", ())
        )
        for container in pod["containers"]:
            if container["image"] != "auto":
                assert container["securityContext"]["allowPrivilegeEscalation"] is False
                assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def _name(raw: dict[str, object]) -> tuple[object, object]:
    return raw["kind"], raw["metadata"]["name"]  # type: ignore[index]


def _plain(raw: dict[str, object]) -> object:
    """Without the labels of an installation, and with YAML inside as its value."""
    copy = json.loads(json.dumps(raw))
    labels = copy["metadata"].get("labels", {})
    for label in (OWNER_LABEL, COMPONENT_LABEL):
        labels.pop(label, None)
    if not labels:
        copy["metadata"].pop("labels", None)
    if _name(copy) == ("ConfigMap", "istio"):
        copy["data"] = {key: yaml.safe_load(text) for key, text in copy["data"].items()}
    return copy
