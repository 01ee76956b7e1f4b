"""`heddle doctor` where the API server runs no pods."""

from __future__ import annotations

import pytest

from kube.client import Refused
from mesh.errors import HeddleError
from tests.cluster.api_server import ApiServer
from tests.cluster.install.objects import INJECTOR
from tests.cluster.installing import eventually, heddle, install


def test_doctor_says_whom_a_webhook_blocks_and_the_way_out(api: ApiServer) -> None:
    assert "no installation" in heddle(api, "doctor").out
    install(api, "--skip-crds")
    with api.namespace({"istio-injection": "enabled"}) as namespace:
        path = f"/api/v1/namespaces/{namespace}"
        eventually(lambda: api.client.get(f"{path}/serviceaccounts/default"))
        pod = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
        with pytest.raises((Refused, HeddleError)):
            api.client.post(f"{path}/pods", pod)
        ran = heddle(api, "doctor")
        assert ran.code == 3
        assert f"no pod can be created in labelled namespaces ({namespace})" in ran.out
        assert "kubectl delete mutatingwebhookconfiguration heddle-sidecar-injector" in ran.out
        assert f"ConfigMap {namespace}/istio-ca-root-cert: it is missing" in ran.out
        api.client.delete(INJECTOR)  # the way out
        eventually(lambda: api.client.post(f"{path}/pods", pod))
        ran = heddle(api, "doctor")
        assert "there is no webhook configuration" in ran.out
        assert "1 of its pods have none: a" in ran.out
    with api.namespace({"istio.io/rev": "typo"}) as namespace:
        assert f"Namespace {namespace}: it is labelled istio.io/rev=typo" in heddle(api, "doctor").out
