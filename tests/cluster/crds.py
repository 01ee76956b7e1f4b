"""Heddle's definitions at a real API server, as people apply them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kube.client import Client
from mesh import crd
from mesh.kinds import Kind
from tests.cluster.api_server import ApiServer
from tests.cluster.kubectl import kubectl
from tests.support.waiting import wait_for

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@contextmanager
def defined(server: ApiServer) -> Iterator[None]:
    """With the CRDs of manifests/crds/. A cluster that was there before is left as it was."""
    before = definitions(server.client)
    ours = {kind.definition for kind in crd.defined()}
    somebodys = [name for name in before.keys() & ours if before[name] != "heddle"]
    assert not somebodys, f"the cluster that the tests were told to use has somebody else's {', '.join(somebodys)}"
    kubectl(server, "apply", "--server-side", "--force-conflicts", "-k", str(crd.DIRECTORY))
    for kind in crd.defined():
        wait_for(lambda kind=kind: conditions(server.client, kind).get("Established") == "True")
    yield
    if server.control_plane is None:
        for name in ours - before.keys():
            server.client.delete(f"{DEFINITIONS}/{name}")
        wait_for(lambda: definitions(server.client).keys() == before.keys())


def definitions(client: Client) -> dict[str, str]:
    """Name of each CRD, and which project it says that it is part of."""
    part_of = "app.kubernetes.io/part-of"
    found = client.get(DEFINITIONS)["items"]
    return {each["metadata"]["name"]: each["metadata"].get("labels", {}).get(part_of, "") for each in found}


def conditions(client: Client, kind: Kind) -> dict[str, str]:
    status = client.get(f"{DEFINITIONS}/{kind.definition}").get("status") or {}
    return {each["type"]: each["status"] for each in status.get("conditions") or ()}
