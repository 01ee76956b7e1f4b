"""The API server level: it works as its users need it, and nothing of it stays."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kube.client import Refused
from local.sandbox import PROJECT_ROOT
from tests.cluster.api_server import ApiServer
from tests.cluster.traces import processes_of
from tests.support.waiting import wait_for


def test_a_token_of_a_service_account_is_reviewed_for_its_audience(api_server: ApiServer) -> None:
    with api_server.namespace() as namespace:
        token = api_server.token(namespace, "reviews", audiences=["istio-ca"])
        review = {"spec": {"token": token, "audiences": ["istio-ca"]}}
        status = api_server.client.post("/apis/authentication.k8s.io/v1/tokenreviews", review)["status"]
        assert status["authenticated"]
        assert status["user"]["username"] == f"system:serviceaccount:{namespace}:reviews"
        assert status["audiences"] == ["istio-ca"]
        review["spec"]["audiences"] = ["somebody-else"]
        status = api_server.client.post("/apis/authentication.k8s.io/v1/tokenreviews", review)["status"]
        assert not status.get("authenticated")


def test_a_service_account_without_a_role_may_not_read(api_server: ApiServer, tmp_path: Path) -> None:
    with api_server.namespace() as namespace:
        reader = api_server.as_service_account(namespace, "nobody", tmp_path)
        with pytest.raises(Refused, match="forbidden"):
            reader.get("/api/v1/secrets")


def test_a_restricted_namespace_refuses_net_admin(api_server: ApiServer) -> None:
    with api_server.namespace({"pod-security.kubernetes.io/enforce": "restricted"}) as namespace:
        container = {
            "name": "init",
            "image": "example.org/none",
            "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
        }
        pod = {"metadata": {"name": "pod"}, "spec": {"containers": [container]}}
        with pytest.raises(Refused, match="unrestricted capabilities"):
            api_server.client.post(f"/api/v1/namespaces/{namespace}/pods", pod)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_when_its_owner_dies(api_server: ApiServer, how: signal.Signals) -> None:
    """`api_server` is asked for so that this is skipped where none can be started."""
    command = [sys.executable, "-m", "tests.cluster.up", "--api-only"]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            lines = iter(owner.stdout.readline, "\n")
            (kubeconfig,) = (line.split("=")[1].strip() for line in lines if "KUBECONFIG" in line)
            state = Path(kubeconfig).parent.parent
            assert len(processes_of(state.name)) >= 5  # two of the keeper, three components
            owner.send_signal(how)
            owner.wait()
        finally:
            owner.kill()
    wait_for(lambda: not processes_of(state.name) and not list(state.parent.glob(f"{state.name}*")))
