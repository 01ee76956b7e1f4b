"""The main path as a user sees it: bookinfo's manifests in a running mesh, asked through the `heddle` command."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.load import Load
from tests.support.local_mesh import HEDDLE, LocalMesh

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
PRODUCT = "/api/v1/products/0"
TRUST = "spiffe://cluster.local/ns/bookinfo/sa/"


def version(answer: Any) -> str:
    return str(answer["reviews"].get("version"))


def load(mesh: LocalMesh, requests: int = 0) -> Load:
    """So many requests at full speed; or a stream, which leaves the processors to what happens in it."""
    pause = 0.0 if requests else 0.03
    return Load("127.0.0.1", mesh.port, PRODUCT, version, requests=requests, pause=pause).start()


def pod_name(mesh: LocalMesh, prefix: str) -> str:
    return next(p["name"] for p in mesh.json("local", "status")["pods"] if p["name"].startswith(prefix))


def serial(mesh: LocalMesh, prefix: str) -> str:
    found = mesh.json("certificates")["certificates"]
    return str(next(c["serial"] for c in found if c["pod"]["name"].startswith(prefix)))


def test_every_pod_runs_and_only_labelled_namespaces_join(bookinfo: LocalMesh) -> None:
    pods = {p["name"].partition("-v")[0]: p for p in bookinfo.json("local", "status")["pods"]}
    assert {"details", "ratings", "reviews", "productpage", "legacy"} <= set(pods)
    assert pods["details"]["ready"] == "2/2"
    assert pods["legacy"]["ready"] == "1/1"


def test_every_pod_of_the_mesh_has_its_identity(bookinfo: LocalMesh) -> None:
    found = bookinfo.json("certificates", "-n", "bookinfo")["certificates"]
    accounts = {c["identity"].removeprefix(TRUST) for c in found}
    assert accounts == {
        "bookinfo-details",
        "bookinfo-ratings",
        "bookinfo-reviews",
        "bookinfo-productpage",
        "istio-ingressgateway",
    }
    assert len({c["serial"] for c in found}) == len(found) == 7
    assert all(80_000 < c["secondsToExpiry"] <= 86_400 for c in found)
    assert all(40_000 < c["secondsToRenewal"] <= 43_200 for c in found)


def test_a_request_takes_the_way_that_the_routes_say_with_both_identities(bookinfo: LocalMesh) -> None:
    code, answer = bookinfo.get(PRODUCT, {"end-user": "jason"})
    assert code == 200
    hops = [(hop["pod"].partition("-v")[0], hop["peers"]) for hop in answer["hops"]]
    assert [name for name, _ in hops] == ["productpage", "details", "reviews", "ratings"]
    for (name, peers), caller in zip(
        hops, ("istio-ingressgateway", "bookinfo-productpage", "bookinfo-productpage", "bookinfo-reviews"), strict=True
    ):
        assert f"By={TRUST}bookinfo-{name}" in peers
        assert f"URI={TRUST}{caller}" in peers
    assert version(answer) == "v2"
    assert version(bookinfo.get(PRODUCT)[1]) == "v1"


def test_the_product_page_is_a_page(bookinfo: LocalMesh) -> None:
    code, page = bookinfo.get("/productpage")
    assert code == 200
    assert "The Comedy of Errors" in page
    assert bookinfo.get("/nothing-here")[0] == 404


def test_plain_text_is_refused_under_strict(bookinfo: LocalMesh) -> None:
    script = "import urllib.request as u; print(u.urlopen('http://details.bookinfo:9080/details/0', timeout=5).status)"
    done = bookinfo.run("local", "exec", "outside/legacy", "--", sys.executable, "-c", script, check=False)
    assert done.returncode == 1
    assert re.search("Connection reset by peer|Remote end closed|EOF", done.stderr), done.stderr


def test_a_request_without_host_entry_in_the_mesh_finds_services_by_name(bookinfo: LocalMesh) -> None:
    script = "import socket; print(socket.gethostbyname('reviews'))"
    assert bookinfo.inside("productpage", sys.executable, "-c", script).startswith("10.96.")


def silent(picture: Any) -> list[str]:
    return [pod["silent"] for each in picture["workloads"] for pod in each["pods"] if pod["silent"]]


def hear_ctrl_c() -> None:
    """Also when these tests were started to ignore it, as by nohup."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_top_and_dashboard_see_what_flows(bookinfo: LocalMesh) -> None:
    argv = [HEDDLE, "dashboard", "--port", "0"]
    with (
        load(bookinfo) as stream,
        subprocess.Popen(
            argv,
            env={**os.environ, "HEDDLE_STATE": str(bookinfo.state)},
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=hear_ctrl_c,
        ) as process,
    ):
        try:
            assert process.stdout
            url = process.stdout.readline().split()[0]
            picture = bookinfo.json("top")
            table = bookinfo.run("top", "--once").stdout
            until = time.monotonic() + 60
            while True:
                with urllib.request.urlopen(f"{url}v1/picture", timeout=15) as answer:
                    on_page = json.load(answer)
                if not silent(on_page) and len([each for each in on_page["edges"] if each["p99Milliseconds"]]) >= 3:
                    break
                assert time.monotonic() < until, on_page
                time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
            assert not stream.stop().failures
        finally:
            process.kill()
    for found in (picture, on_page):
        edges = {(each["source"], each["destination"]): each for each in found["edges"]}
        for ends in (
            ("istio-ingressgateway", "productpage-v1"),
            ("productpage-v1", "details-v1"),
            ("productpage-v1", "reviews-v1"),
        ):
            edge = edges["bookinfo/" + ends[0], "bookinfo/" + ends[1]]
            assert edge["requestsPerSecond"] > 0
            assert (edge["errors"], edge["lock"]) == (0, "mutual")
            assert (edge["p50Milliseconds"] or 0) <= (edge["p99Milliseconds"] or 0)
        kinds = {each["id"]: each["kind"] for each in found["workloads"] if each["pods"]}
        assert len(kinds) == 7
        assert kinds["bookinfo/istio-ingressgateway"] == "gateway"
        assert not silent(found)
        assert len([each for each in found["certificates"] if each["holder"].startswith("bookinfo/")]) == 7
        assert found["rotation"]["phases"] == []
        assert found["convergence"]["current"] == found["convergence"]["proxies"] == 7
        assert found["changes"]
        assert found["problems"] == []
    assert re.search(r"bookinfo/productpage-v1 +bookinfo/reviews-v1 .* mTLS", table)


def test_a_weight_changes_without_a_failed_request(bookinfo: LocalMesh) -> None:
    file = bookinfo.manifests / "routing.yaml"
    before = file.read_text()
    edited = before.replace(
        "subset: v1\n          weight: 100",
        "subset: v1\n          weight: 50\n        - destination: {host: reviews, subset: v3}\n          weight: 50",
    )
    assert edited != before
    try:
        with load(bookinfo) as stream:
            bookinfo.change("routing.yaml", edited)
            bookinfo.settle()
            counts = stream.stop()
        assert not counts.failures
        answers = load(bookinfo, 300).wait()
        assert not answers.failures
        assert 90 < answers.answers["v3"] < 210
    finally:
        bookinfo.change("routing.yaml", before)
        bookinfo.settle()
    assert load(bookinfo, 50).wait().answers == {"v1": 50}


def test_a_certificate_is_renewed_without_a_failed_request(bookinfo: LocalMesh) -> None:
    with load(bookinfo) as stream:
        before = serial(bookinfo, "details-v1")
        told = json.loads(bookinfo.inside("details-v1", "heddle-agent", "renew", container="istio-proxy"))
        time.sleep(0.5)
        counts = stream.stop()
    assert not counts.failures
    assert told["old"] == before
    assert told["new"] == serial(bookinfo, "details-v1") != before
    on_envoy = json.loads(
        bookinfo.inside("details-v1", "heddle-agent", "admin", "GET", "/certs", container="istio-proxy")
    )
    assert told["new"] in json.dumps(on_envoy)


@pytest.mark.parametrize("kind", ["listeners", "routes", "clusters", "endpoints"])
def test_config_shows_what_envoy_runs(bookinfo: LocalMesh, kind: str) -> None:
    expected = {
        "listeners": "virtualInbound",
        "routes": "reviews.bookinfo.svc.cluster.local",
        "clusters": "outbound|9080|v3|reviews.bookinfo.svc.cluster.local",
        "endpoints": "outbound|9080||ratings.bookinfo.svc.cluster.local",
    }[kind]
    assert expected in bookinfo.run("config", "productpage", kind).stdout
    assert expected in json.dumps(bookinfo.json("config", "productpage", kind))
    assert yaml.safe_load(bookinfo.run("config", "productpage", kind, "-o", "yaml").stdout)


def test_a_bad_edit_changes_nothing_and_is_shown(bookinfo: LocalMesh) -> None:
    file = bookinfo.manifests / "routing.yaml"
    before = file.read_text()
    try:
        bookinfo.change("routing.yaml", before.replace("subset: v1\n          weight", "subsett: v1\n          weight"))
        time.sleep(0.5)
        status = bookinfo.run("status", check=False).stdout
        assert "routing.yaml" in status
        assert "subset" in status
        assert load(bookinfo, 50).wait().answers == {"v1": 50}
    finally:
        bookinfo.change("routing.yaml", before)
    assert bookinfo.settle()["problems"] == []


def test_a_missing_subset_is_named_and_the_rest_goes_on(bookinfo: LocalMesh) -> None:
    file = bookinfo.manifests / "routing.yaml"
    before = file.read_text()
    try:
        bookinfo.change("routing.yaml", before.replace("subset: v2\n    - route", "subset: v9\n    - route"))
        bookinfo.settle()
        status = bookinfo.run("status", check=False).stdout
        assert "v9" in status
        assert "v1, v2, v3" in status
        assert bookinfo.get(PRODUCT)[0] == 200
    finally:
        bookinfo.change("routing.yaml", before)
    assert bookinfo.settle()["problems"] == []


def test_traffic_goes_on_without_control_plane_and_envoy_restarts(bookinfo: LocalMesh) -> None:
    try:
        bookinfo.run("local", "control-plane", "kill", "discovery", "ca", "webhook")
        assert not load(bookinfo, 100).wait().failures
        assert not bookinfo.json("status")["ready"]
        bookinfo.inside("details-v1", "heddle-agent", "restart-envoy", container="istio-proxy")
        until = time.monotonic() + 120
        while "title" not in bookinfo.get(PRODUCT)[1].get("details", {}):
            assert time.monotonic() < until, "details does not come back"
            time.sleep(0.1)
        assert not load(bookinfo, 100).wait().failures
    finally:
        bookinfo.run("local", "control-plane", "start", "ca", "webhook", "discovery")
    bookinfo.settle()


def test_scaling_adds_and_removes_pods_without_a_failed_request(bookinfo: LocalMesh) -> None:
    file = bookinfo.manifests / "bookinfo.yaml"
    before = file.read_text()
    documents = list(yaml.safe_load_all(before))
    for document in documents:
        if document["kind"] == "Deployment" and document["metadata"]["name"] == "details-v1":
            document["spec"]["replicas"] = 2
    with load(bookinfo) as stream:
        bookinfo.change("bookinfo.yaml", yaml.safe_dump_all(documents))
        time.sleep(1)
        bookinfo.settle()
        assert len([p for p in bookinfo.json("local", "status")["pods"] if p["name"].startswith("details")]) == 2
        bookinfo.change("bookinfo.yaml", before)
        until = time.monotonic() + 120
        while len([p for p in bookinfo.json("local", "status")["pods"] if p["name"].startswith("details")]) > 1:
            assert time.monotonic() < until
            time.sleep(0.2)
        counts = stream.stop()
    assert not counts.failures, counts.failures
    bookinfo.settle()


def test_logs_of_apps_sidecars_and_control_plane(bookinfo: LocalMesh) -> None:
    bookinfo.get(PRODUCT)
    assert "GET /details/0" in bookinfo.run("local", "logs", "details-v1").stdout
    assert bookinfo.run("local", "logs", "details-v1", "-c", "istio-proxy").stdout
    assert "ready" in bookinfo.run("local", "logs", "ca").stdout


def test_the_sidecar_runs_as_its_user_without_capabilities(bookinfo: LocalMesh) -> None:
    status = bookinfo.inside("details-v1", "cat", "/proc/1/status", container="istio-proxy")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split()[0] == "1337"
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"


def test_state_directory_is_private(bookinfo: LocalMesh) -> None:
    assert Path(bookinfo.state).stat().st_mode & 0o077 == 0
