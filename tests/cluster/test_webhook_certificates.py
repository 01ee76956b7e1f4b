"""Leaf, intermediate and root of the webhook are replaced while pods are created: not one admission fails."""

from __future__ import annotations

import base64
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kube.client import connect
from mesh.errors import HeddleError
from mesh.identity import Identity
from tests.agent.control_plane import TRUST_DOMAIN
from tests.cluster.api_server import ApiServer
from tests.cluster.rotating_ca import Root, RotatingCa
from tests.cluster.webhooks import CONFIGURATIONS, HOST, Place, names, place, ready_namespace
from tests.support.waiting import wait_for
from tests.webhook.harness import WebhookProcess
from webhook.registration import certificates

pytestmark = pytest.mark.usefixtures("cluster_is_ours")  # its API server calls a webhook of this process

Raw = dict[str, Any]
IDENTITY = Identity(TRUST_DOMAIN, "istio-system", "heddle-webhook")
PAUSE_SECONDS = 0.05  # leaves processors for what is tested
POD: Raw = {"metadata": {"generateName": "web-"}, "spec": {"containers": [{"name": "web", "image": "example.org/w"}]}}


def trusted(api: ApiServer, of: Place) -> set[str]:
    found = api.client.get(f"{CONFIGURATIONS}/{of.configuration}")
    bundles = [base64.b64decode(entry["clientConfig"].get("caBundle", "")).decode() for entry in found["webhooks"]]
    assert len(set(bundles)) == 1
    return set(certificates(bundles[0]))


class Stream:
    """Pods, one after the other, and a handshake with each webhook by what the API server trusts at that moment."""

    def __init__(self, api: ApiServer, of: Place, namespace: str, processes: list[WebhookProcess]) -> None:
        self._api, self._place, self._namespace, self._processes = api, of, namespace, processes
        self.admitted, self.shaken = 0, 0
        self.serials: list[set[int]] = [set() for _ in processes]  # of the certificates that each has shown
        self.failures: list[str] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._create), threading.Thread(target=self._shake)]
        for thread in self._threads:
            thread.start()

    def _create(self) -> None:
        client = connect(kubeconfig=str(self._api.kubeconfig))
        while not self._end.is_set():
            path = f"/api/v1/namespaces/{self._namespace}/pods"
            try:
                made = client.call("POST", path, query={"dryRun": "All"} if self.admitted % 5 else {}, body=POD)
                assert names(made) == ["istio-init", "istio-proxy"]
                self.admitted += 1
            except (HeddleError, AssertionError) as error:
                self.failures.append(f"admission: {error}")
            time.sleep(PAUSE_SECONDS)

    def _shake(self) -> None:
        while not self._end.is_set():
            # First the handshake, then what is trusted: a root that goes in between would not be the webhook's mistake.
            before = trusted(self._api, self._place)
            for process, serials in zip(self._processes, self.serials, strict=True):
                context = ssl.create_default_context(cadata="\n".join(before))
                try:
                    with process.connect(context) as connection:
                        shown = connection.getpeercert()
                        assert shown is not None
                        serials.add(int(str(shown["serialNumber"]), 16))
                        self.shaken += 1
                except OSError as error:
                    self.failures.append(f"handshake: {error}")
            time.sleep(PAUSE_SECONDS)

    def end(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.timeout(240)
def test_a_stream_of_pods_through_every_rotation(api_server: ApiServer, tmp_path: Path) -> None:
    ca = RotatingCa(IDENTITY, HOST)
    (tmp_path / "token").write_text("a token")
    mounted = tmp_path / "roots.pem"
    mounted.write_text(ca.own.root_pem)
    enrol = ("--ca-address", f"127.0.0.1:{ca.port}", "--trust-bundle", str(mounted))
    enrol = (*enrol, "--token-file", str(tmp_path / "token"), "--settle-seconds", "2")
    with place(api_server, tmp_path) as made, ready_namespace(api_server, {"istio.io/rev": made.revision}) as namespace:
        replicas = [made.start(enrol=enrol, root_pem=ca.own.root_pem) for _ in range(2)]
        made.register(replicas[0].port)
        try:
            for replica in replicas:
                replica.ready()
            wait_for(lambda: ca.signing.pem.strip() in trusted(api_server, made))
            stream = Stream(api_server, made, namespace, replicas)
            try:
                _through_all(ca, api_server, made, stream)
            finally:
                stream.end()
            assert stream.failures == []
            assert stream.admitted > 100
            assert stream.shaken > 100
            assert all(len(each) >= 4 for each in stream.serials), "each of two replicas has shown several certificates"
            writes = [line for replica in replicas for line in replica.health("/metrics")[1].splitlines()]
            writes = [line for line in writes if line.startswith("heddle_webhook_ca_bundle_writes_total")]
            # Each change is written once, or twice when both replicas were at it at the same moment.
            assert sum(float(line.split()[1]) for line in writes) <= 10
        finally:
            for replica in replicas:
                replica.close()
            ca.stop()


def _through_all(ca: RotatingCa, api: ApiServer, made: Place, stream: Stream) -> None:
    old, new = ca.signing, Root("second")

    def renewed() -> None:
        """Until every replica has shown a certificate that was issued from now on."""
        issued = len(ca.issued)

        def shown() -> bool:
            new = {int(serial, 16) for serial in ca.issued[issued:]}
            return all(new & serials for serials in stream.serials)

        wait_for(shown)

    renewed()
    old.replace_intermediate()
    renewed()
    ca.set_roots(old, new)  # the new root is made known; certificates are still of the old one
    renewed()
    wait_for(lambda: {old.pem.strip(), new.pem.strip()} <= trusted(api, made))
    ca.sign_with(new)
    renewed()
    ca.set_roots(new)
    renewed()
    assert new.pem.strip() in trusted(api, made)
    wait_for(lambda: old.pem.strip() not in trusted(api, made))
    # A root that comes without warning, with the first certificate of it: written first, shown afterwards.
    third = Root("third")
    ca.set_roots(new, third)
    ca.sign_with(third)
    renewed()
