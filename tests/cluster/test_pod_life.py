"""Real pods with sidecars, from the first request of their app to the last: jobs that end, start order, shutdown."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from local.linux import die_with_parent
from tests.cluster import builds
from tests.cluster.cluster import Cluster
from tests.cluster.images import TOOLS
from tests.cluster.installing import install, uninstall

pytestmark = pytest.mark.timeout(300)

# Answers after the seconds that the query asks for.
SLOW_SERVER = """
import http.server, time
class Slow(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(float(self.path.partition("?")[2] or 0))
        self.send_response(200); self.end_headers(); self.wfile.write(b"answered")
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("", 8000), Slow)
import signal, threading
def end():
    signal.sigwait({signal.SIGTERM}); time.sleep(1); server.shutdown()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
threading.Thread(target=end).start()
server.daemon_threads = False
server.serve_forever()
server.server_close()
"""


@pytest.fixture(scope="module")
def mesh(cluster: Cluster) -> Iterator[Cluster]:
    """The control plane alone; init containers write the rules."""
    install(cluster)
    for part in ("ca", "discovery", "webhook"):
        cluster.kubectl("rollout", "status", f"deployment/heddle-{part}", "--namespace=istio-system", "--timeout=120s")
    yield cluster
    uninstall(cluster, "--purge")


@pytest.fixture(scope="module")
def namespace(mesh: Cluster) -> Iterator[str]:
    """With a server behind the Service `web`, port 80, that only takes mutual TLS."""
    with mesh.namespace({"istio-injection": "enabled"}, "life") as name:
        mesh.client.post(f"/api/v1/namespaces/{name}/pods", pod("web", "python3", "-c", SLOW_SERVER))
        ports = [{"name": "http", "port": 80, "targetPort": 8000}]
        service = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": ports}}
        mesh.client.post(f"/api/v1/namespaces/{name}/services", service)
        strict = {
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": {"name": "default"},
            "spec": {"mtls": {"mode": "STRICT"}},
        }
        mesh.client.post(f"/apis/security.istio.io/v1/namespaces/{name}/peerauthentications", strict)
        mesh.wait_pod(name, "web")
        yield name


def pod(name: str, *command: str, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    container = {"name": "app", "image": TOOLS, "command": list(command)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}, "annotations": annotations or {}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 20, **spec},
    }


def job(name: str, script: str, **template: Any) -> dict[str, Any]:
    made = pod(name, "sh", "-c", script, restartPolicy="Never", **template)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "backoffLimit": 0,
            "template": {"metadata": {"annotations": made["metadata"]["annotations"]}, "spec": made["spec"]},
        },
    }


ASK = "curl -sS --fail --max-time 10 http://web/"  # once, as the first thing that the app does


def finished_pod(cluster: Cluster, namespace: str, name: str) -> dict[str, Any]:
    """The pod of the job, once it is complete."""
    cluster.kubectl("wait", f"job/{name}", "--for=condition=Complete", "--timeout=120s", f"--namespace={namespace}")
    found = cluster.client.get(
        f"/api/v1/namespaces/{namespace}/pods?labelSelector=batch.kubernetes.io/job-name%3D{name}"
    )
    (made,) = found["items"]
    return dict(made)


def test_a_job_asks_at_once_and_completes(mesh: Cluster, namespace: str) -> None:
    mesh.client.post(f"/apis/batch/v1/namespaces/{namespace}/jobs", job("once", ASK))
    made = finished_pod(mesh, namespace, "once")
    assert made["status"]["phase"] == "Succeeded"
    assert [each["name"] for each in made["spec"]["initContainers"]] == ["istio-init", "istio-proxy"]
    assert mesh.kubectl("logs", "job/once", "--container=app", f"--namespace={namespace}") == "answered"


def test_a_cron_jobs_job_completes(mesh: Cluster, namespace: str) -> None:
    spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job("timed", ASK)["spec"]}}
    mesh.client.post(f"/apis/batch/v1/namespaces/{namespace}/cronjobs", {"metadata": {"name": "timed"}, "spec": spec})
    mesh.kubectl("create", "job", "timed-now", "--from=cronjob/timed", f"--namespace={namespace}")
    assert finished_pod(mesh, namespace, "timed-now")["status"]["phase"] == "Succeeded"


def test_an_ordinary_sidecar_that_holds_the_app_back(mesh: Cluster, namespace: str) -> None:
    """The app's first request succeeds; it ends the sidecar itself, which an ordinary one needs."""
    annotations = {
        "sidecar.istio.io/nativeSidecar": "false",
        "proxy.istio.io/config": "holdApplicationUntilProxyStarts: true",
    }
    script = f"{ASK} && curl -sS --fail -X POST http://127.0.0.1:15020/quitquitquit"
    mesh.client.post(f"/apis/batch/v1/namespaces/{namespace}/jobs", job("ordinary", script, annotations=annotations))
    made = finished_pod(mesh, namespace, "ordinary")
    assert [each["name"] for each in made["spec"]["containers"]] == ["istio-proxy", "app"]


def test_a_request_that_is_under_way_when_its_server_is_deleted_is_answered(mesh: Cluster, namespace: str) -> None:
    mesh.client.post(f"/api/v1/namespaces/{namespace}/pods", pod("going", "python3", "-c", SLOW_SERVER))
    ports = [{"name": "http", "port": 80, "targetPort": 8000}]
    service = {"metadata": {"name": "going"}, "spec": {"selector": {"app": "going"}, "ports": ports}}
    mesh.client.post(f"/api/v1/namespaces/{namespace}/services", service)
    client = pod("client", "sleep", "infinity", terminationGracePeriodSeconds=0)
    mesh.client.post(f"/api/v1/namespaces/{namespace}/pods", client)
    for name in ("going", "client"):
        mesh.wait_pod(namespace, name)
    eventually(
        lambda: "answered" in mesh.kubectl("exec", "client", f"--namespace={namespace}", "--", *curl(0), check=False),
        "the server is reached",
    )
    command = [str(builds.built(builds.KUBERNETES) / "kubernetes"), "kubectl", f"--kubeconfig={mesh.kubeconfig}"]
    asking = subprocess.Popen(
        [*command, "exec", "client", f"--namespace={namespace}", "--", *curl(4)], stdout=subprocess.PIPE, text=True
    )
    time.sleep(1.5)  # the request is there
    mesh.kubectl("delete", "pod", "going", f"--namespace={namespace}", "--wait=false")
    assert asking.poll() is None, "it was answered before the server was asked to end"
    assert asking.communicate(timeout=60)[0] == "answered"
    mesh.kubectl("wait", "--for=delete", "pod/going", f"--namespace={namespace}", "--timeout=60s")


def test_the_sidecar_leaves_last(mesh: Cluster, namespace: str) -> None:
    """An app that is told to end can still ask, some seconds later."""
    script = f"trap 'sleep 3; {ASK}; echo .; exit 0' TERM; echo ready; while :; do sleep 0.2; done"
    mesh.client.post(f"/api/v1/namespaces/{namespace}/pods", pod("leaving", "sh", "-c", script))
    mesh.wait_pod(namespace, "leaving")
    command = [str(builds.built(builds.KUBERNETES) / "kubernetes"), "kubectl", f"--kubeconfig={mesh.kubeconfig}"]
    log = subprocess.Popen(
        [*command, "logs", "--follow", "leaving", "--container=app", f"--namespace={namespace}"],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,
    )
    assert log.stdout is not None
    assert log.stdout.readline() == "ready\n"
    mesh.kubectl("delete", "pod", "leaving", f"--namespace={namespace}", "--timeout=60s")
    assert log.communicate(timeout=30)[0] == "answered.\n"


def curl(seconds: float) -> list[str]:
    return ["curl", "-sS", "--max-time", "20", f"http://going/?{seconds}"]


def eventually(check: Callable[[], bool], what: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, f"in vain: {what}"
        time.sleep(0.5)
