"""kube.client against a real API server: each way in which it says no is told apart."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kube.client import Client, Refused, connect
from mesh.errors import Gone, NotFound, Unavailable
from tests.cluster.api_server import ApiServer
from tests.support.certificates import Authority


@pytest.fixture
def configmaps(api_server: ApiServer) -> Iterator[str]:
    """The path of the ConfigMaps of a new namespace."""
    with api_server.namespace() as namespace:
        yield f"/api/v1/namespaces/{namespace}/configmaps"


def changed_kubeconfig(api_server: ApiServer, folder: Path, part: str, settings: dict[str, str]) -> Client:
    """A client whose kubeconfig has these settings instead, of the `cluster` or the `user`."""
    config: dict[str, Any] = yaml.safe_load(api_server.kubeconfig.read_text())
    config[f"{part}s"][0][part] |= settings
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return connect(kubeconfig=str(path))


def test_apply_creates_then_changes_and_takes_over_what_others_set(api_server: ApiServer, configmaps: str) -> None:
    def body(value: str) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"value": value}}

    assert api_server.client.apply(f"{configmaps}/one", body("1"))["data"] == {"value": "1"}
    patch = {"data": {"value": "theirs", "more": "theirs"}}
    api_server.client.call("PATCH", f"{configmaps}/one", body=patch, content_type="application/merge-patch+json")
    assert api_server.client.apply(f"{configmaps}/one", body("2"))["data"] == {"value": "2", "more": "theirs"}


def test_an_object_that_is_there_already_is_refused_with_409(api_server: ApiServer, configmaps: str) -> None:
    api_server.client.post(configmaps, {"metadata": {"name": "one"}})
    with pytest.raises(Refused, match="already exists") as caught:
        api_server.client.post(configmaps, {"metadata": {"name": "one"}})
    assert caught.value.status == 409


@pytest.mark.parametrize("path", ["/api/v1/namespaces/default/configmaps/none", "/apis/example.org/v1/things"])
def test_an_object_or_kind_that_is_not_there(api_server: ApiServer, path: str) -> None:
    with pytest.raises(NotFound):
        api_server.client.get(path)


def test_a_server_of_another_authority_is_not_talked_to(api_server: ApiServer, tmp_path: Path) -> None:
    other = base64.b64encode(Authority().root_pem.encode()).decode()
    client = changed_kubeconfig(api_server, tmp_path, "cluster", {"certificate-authority-data": other})
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        client.get("/version")


def test_a_token_that_nobody_issued_is_refused_with_401(api_server: ApiServer, tmp_path: Path) -> None:
    client = changed_kubeconfig(api_server, tmp_path, "user", {"token": "made-up"})
    with pytest.raises(Refused, match="Unauthorized") as caught:
        client.get("/api/v1/namespaces")
    assert caught.value.status == 401


def test_a_list_that_outlives_what_etcd_remembers_is_gone(own_api_server: ApiServer) -> None:
    """The next page is asked of a server that has forgotten the version of the first."""
    path = "/api/v1/namespaces/default/configmaps"
    for number in range(3):
        own_api_server.client.post(path, {"metadata": {"name": f"page-{number}"}})
    following = own_api_server.client.get(path, {"limit": "1"})["metadata"]["continue"]
    control_plane = own_api_server.control_plane
    assert control_plane is not None
    own_api_server.client.post(path, {"metadata": {"name": "page-later"}})
    control_plane.kill("kube-apiserver")
    control_plane.compact()
    control_plane.start_api_server()
    control_plane.wait_ready()
    with pytest.raises(Gone):
        own_api_server.client.get(path, {"limit": "1", "continue": following})
