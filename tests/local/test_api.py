"""The engine's Kubernetes API over real HTTP: list, watch, TokenReview, and clear words for everything else."""

from __future__ import annotations

import itertools
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from local import api
from local.store import Raw, Store
from local.tokens import TokenIssuer, reviewer
from mesh.objects import Key
from tests.support.ports import free_port

NOW = 1_800_000_000.0


class Server:
    def __init__(self) -> None:
        numbers = itertools.count(1)
        self.store = Store(uid=lambda: f"uid-{next(numbers)}", now=lambda: "2026-01-01T00:00:00Z")
        self.issuer = TokenIssuer(ec.generate_private_key(ec.SECP256R1()))
        self.now = NOW
        port = free_port()
        app = api.create_app(self.store, reviewer(self.issuer, self.store, lambda: self.now), self.issuer.jwks)
        self.url = f"http://127.0.0.1:{port}"
        self.stop = api.serve_in_thread(app, "127.0.0.1", port)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def refusal(self, path: str, body: bytes | None = None, method: str = "GET") -> tuple[int, Raw]:
        request = urllib.request.Request(self.url + path, data=body, method=method)
        with pytest.raises(urllib.error.HTTPError) as got:
            urllib.request.urlopen(request, timeout=60)
        return got.value.code, json.load(got.value)

    def review(self, token: str, audiences: list[str]) -> Raw:
        body = json.dumps({"spec": {"token": token, "audiences": audiences}}).encode()
        request = urllib.request.Request(f"{self.url}/apis/authentication.k8s.io/v1/tokenreviews", data=body)
        with urllib.request.urlopen(request, timeout=60) as answer:
            status: Raw = json.load(answer)["status"]
            return status


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


def pod(name: str, namespace: str = "n") -> Raw:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": name}, "spec": {}}


def test_list_all_of_a_namespace_and_one(server: Server) -> None:
    server.store.put(pod("a"))
    server.store.put(pod("b", "other"))
    everything = server.get("/api/v1/pods")
    assert everything["kind"] == "PodList"
    assert everything["metadata"]["resourceVersion"] == "2"
    assert [item["metadata"]["name"] for item in everything["items"]] == ["a", "b"]
    assert [item["metadata"]["name"] for item in server.get("/api/v1/namespaces/other/pods")["items"]] == ["b"]
    assert server.get("/api/v1/namespaces/n/pods/a")["metadata"]["uid"] == "uid-1"


def test_an_istio_object_is_read_in_the_version_asked_for(server: Server) -> None:
    raw = {"apiVersion": "networking.istio.io/v1beta1", "kind": "Gateway", "metadata": {"namespace": "n", "name": "g"}}
    server.store.put(raw)
    for version in ("v1", "v1beta1", "v1alpha3"):
        (item,) = server.get(f"/apis/networking.istio.io/{version}/gateways")["items"]
        assert item["apiVersion"] == f"networking.istio.io/{version}"


def test_watch_streams_changes_as_they_happen(server: Server) -> None:
    server.store.put(pod("a"))
    url = f"{server.url}/api/v1/pods?watch=1&resourceVersion=1&timeoutSeconds=30"
    with urllib.request.urlopen(url, timeout=60) as stream:
        threading.Timer(0.05, lambda: server.store.put(pod("b"))).start()
        event = json.loads(stream.readline())
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "b")


def test_watch_from_nothing_begins_with_what_there_is(server: Server) -> None:
    server.store.put(pod("a"))
    with urllib.request.urlopen(f"{server.url}/api/v1/pods?watch=true", timeout=60) as stream:
        assert json.loads(stream.readline())["object"]["metadata"]["name"] == "a"


def test_a_quiet_watch_gets_bookmarks(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "QUIET_SECONDS", 0.05)
    server.store.put(pod("a"))
    with urllib.request.urlopen(f"{server.url}/api/v1/pods?watch=1&resourceVersion=1", timeout=60) as stream:
        event = json.loads(stream.readline())
    assert event["type"] == "BOOKMARK"
    assert event["object"]["metadata"]["resourceVersion"] == "1"


def test_a_watch_learns_soon_that_only_others_were_written(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "QUIET_SECONDS", 3600.0)  # without the write the next bookmark would come then
    server.store.put(pod("a"))
    with urllib.request.urlopen(f"{server.url}/api/v1/secrets?watch=1&resourceVersion=1", timeout=60) as stream:
        server.store.put(pod("b"))
        event = json.loads(stream.readline())
    assert (event["type"], event["object"]["metadata"]["resourceVersion"]) == ("BOOKMARK", "2")


@pytest.mark.parametrize(
    "path", ["/api/v1/none", "/apis/no.group/v1/things", "/nothing", "/api/v1/namespaces/n/pods/none"]
)
def test_what_is_not_there_is_404_with_a_status_object(server: Server, path: str) -> None:
    code, body = server.refusal(path)
    assert (code, body["kind"], body["reason"]) == (404, "Status", "NotFound")


def test_a_write_is_refused_and_says_where_to_write(server: Server) -> None:
    code, body = server.refusal("/api/v1/namespaces/n/pods", b"{}", "POST")
    assert code == 405
    assert "change the manifests" in body["message"]


@pytest.mark.parametrize("body", [b"", b"no json", b"[]", b'{"spec": {}}', b'{"spec": {"token": 5}}'])
def test_a_malformed_token_review_is_400(server: Server, body: bytes) -> None:
    code, answer = server.refusal("/apis/authentication.k8s.io/v1/tokenreviews", body, "POST")
    assert code == 400
    assert "spec.token" in answer["message"]


def token(server: Server, *, bound: bool = True, audience: str = "istio-ca") -> str:
    meta = {"namespace": "n", "name": "account"}
    account = server.store.put({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    running = server.store.put(pod("a"))
    return server.issuer.token(
        namespace="n",
        service_account="account",
        service_account_uid=account["metadata"]["uid"],
        audience=audience,
        now=NOW,
        seconds=600,
        token_id="t",
        pod=("a", running["metadata"]["uid"]) if bound else None,
    )


def test_a_token_is_reviewed_like_kubernetes_does(server: Server) -> None:
    status = server.review(token(server), ["istio-ca"])
    assert status["authenticated"] is True
    assert status["user"]["username"] == "system:serviceaccount:n:account"
    assert status["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["a"]
    assert status["audiences"] == ["istio-ca"]


def test_a_token_of_a_pod_that_is_gone_no_longer_counts(server: Server) -> None:
    held = token(server)
    server.store.delete("Pod", Key("n", "a"))
    assert server.review(held, ["istio-ca"])["authenticated"] is False


def test_other_audience_expired_and_foreign_tokens_do_not_count(server: Server) -> None:
    held = token(server)
    assert server.review(held, ["other"])["authenticated"] is False
    assert server.review(TokenIssuer(ec.generate_private_key(ec.SECP256R1())).token(
        namespace="n", service_account="account", service_account_uid="x", audience="istio-ca", now=NOW,
        seconds=600, token_id="t"), ["istio-ca"])["authenticated"] is False  # fmt: skip
    assert server.review("rubbish", ["istio-ca"])["authenticated"] is False
    server.now = NOW + 601
    assert server.review(held, ["istio-ca"])["authenticated"] is False


def test_discovery_documents_name_every_kind(server: Server) -> None:
    groups = {group["name"] for group in server.get("/apis")["groups"]}
    assert {"networking.istio.io", "security.istio.io", "apps"} <= groups
    kinds = {resource["kind"] for resource in server.get("/apis/networking.istio.io/v1")["resources"]}
    assert "VirtualService" in kinds
    assert {"Pod", "Service"} <= {resource["kind"] for resource in server.get("/api/v1")["resources"]}
    assert server.refusal("/apis/networking.istio.io/v9")[0] == 404


def test_readers_do_not_wait_for_each_other(server: Server) -> None:
    watches = [
        urllib.request.urlopen(f"{server.url}/api/v1/pods?watch=1&resourceVersion=0", timeout=60) for _ in range(20)
    ]
    server.store.put(pod("a"))
    names = [json.loads(watch.readline())["object"]["metadata"]["name"] for watch in watches]
    assert names == ["a"] * 20
    for watch in watches:
        watch.close()
