"""The real webhook process, over HTTPS, with a small API server behind it that serves namespaces and the settings."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from local.linux import die_with_parent
from tests.support.certificates import Authority
from tests.support.ports import free_port

NAME = "heddle-webhook.istio-system.svc"
ROOT = Path(__file__).parents[2]
Raw = dict[str, Any]

REVIEWS: Raw = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "generateName": "reviews-v1-7d6bdb6c5-",
        "namespace": "default",
        "labels": {"app": "reviews", "version": "v1", "pod-template-hash": "7d6bdb6c5"},
        "ownerReferences": [
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": "reviews-v1-7d6bdb6c5",
                "uid": "5c2f1b6e-0f4b-4b6f-8a51-4ee0a1d6c9ad",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    },
    "spec": {
        "volumes": [
            {"name": "wlp-output", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            {
                "name": "kube-api-access-xk2lp",
                "projected": {
                    "sources": [
                        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    ],
                    "defaultMode": 420,
                },
            },
        ],
        "containers": [
            {
                "name": "reviews",
                "image": "docker.io/istio/examples-bookinfo-reviews-v1:1.20.3",
                "ports": [{"name": "http", "containerPort": 9080, "protocol": "TCP"}],
                "env": [{"name": "LOG_DIR", "value": "/tmp/logs"}],
                "resources": {},
                "volumeMounts": [
                    {"name": "tmp", "mountPath": "/tmp"},
                    {"name": "wlp-output", "mountPath": "/opt/ibm/wlp/output"},
                    {
                        "name": "kube-api-access-xk2lp",
                        "readOnly": True,
                        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                    },
                ],
                "readinessProbe": {
                    "httpGet": {"path": "/health", "port": "http", "scheme": "HTTP"},
                    "timeoutSeconds": 1,
                    "periodSeconds": 10,
                    "successThreshold": 1,
                    "failureThreshold": 3,
                },
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "imagePullPolicy": "IfNotPresent",
            }
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "bookinfo-reviews",
        "serviceAccount": "bookinfo-reviews",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "tolerations": [
            {
                "key": "node.kubernetes.io/not-ready",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            },
            {
                "key": "node.kubernetes.io/unreachable",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            },
        ],
        "priority": 0,
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
    },
}
"""An ordinary pod, as an API server sends it: a Deployment's, after defaulting and the ServiceAccount admission."""


def review_of(pod: object, uid: str = "705ab4f5-6393-11e8-b7cc-42010a800002", **changed: Any) -> Raw:
    """An AdmissionReview for the creation of `pod` in namespace default."""
    request = {
        "uid": uid,
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
        "requestResource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "default",
        "operation": "CREATE",
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller", "groups": []},
        "object": pod,
        "oldObject": None,
        "dryRun": False,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {**request, **changed}}


def namespace(name: str, **labels: str) -> Raw:
    spelled = {key.replace("_", "-"): value for key, value in labels.items()}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": spelled}}


class ApiServer:
    """Lists and watches of namespaces and of the settings; `change` tells the watches. `others`: more, by plural."""

    def __init__(self, namespaces: Sequence[Raw], others: Mapping[str, Sequence[Raw]] | None = None) -> None:
        self._condition = threading.Condition()
        self._objects: dict[str, dict[str, Raw]] = {"namespaces": {}, "configmaps": {}}
        for plural, objects in (others or {}).items():
            self._objects[plural] = {raw["metadata"]["name"]: raw for raw in objects}
        self._events: list[tuple[str, str, Raw]] = []
        self.silent: dict[str, Raw] = {}  # namespaces that no watch shows yet
        for raw in namespaces:
            self._objects["namespaces"][raw["metadata"]["name"]] = raw
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def change(self, plural: str, raw: Raw, kind: str = "MODIFIED") -> None:
        with self._condition:
            if kind == "DELETED":
                self._objects[plural].pop(raw["metadata"]["name"])
            else:
                self._objects[plural][raw["metadata"]["name"]] = raw
            self._events.append((plural, kind, raw))
            self._condition.notify_all()

    def settings(self, text: str) -> None:
        self.change("configmaps", {"metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": text}})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        state = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(url.query).items()}
                last = url.path.rsplit("/", 1)[-1]
                if last in state._objects:
                    self._watch(last, int(query["resourceVersion"])) if "watch" in query else self._list(last)
                else:
                    found = {**state._objects["namespaces"], **state.silent}.get(last)
                    self._send(200, found) if found else self._send(
                        404, {"kind": "Status", "code": 404, "message": "no"}
                    )

            def _list(self, plural: str) -> None:
                with state._condition:
                    items, version = list(state._objects[plural].values()), len(state._events)
                self._send(200, {"metadata": {"resourceVersion": str(version)}, "items": items})

            def _watch(self, plural: str, position: int) -> None:
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                while True:
                    with state._condition:
                        while len(state._events) <= position:
                            state._condition.wait()
                        fresh, position = state._events[position:], len(state._events)
                    for number, (of, kind, raw) in enumerate(fresh, position - len(fresh) + 1):
                        if of == plural:
                            meta = {**raw["metadata"], "resourceVersion": str(number)}
                            line = json.dumps({"type": kind, "object": {**raw, "metadata": meta}}).encode() + b"\n"
                            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                            self.wfile.flush()

            def _send(self, status: int, value: Mapping[str, Any]) -> None:
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                pass

        return Handler


class WebhookProcess:
    """`python -m webhook`, with a certificate from files unless `enrol` says how to get one from the ca.

    `enrol` are arguments, `root_pem` the root that the certificate will chain to; `before` is put in front of the
    command (taskset, say), `more` behind it. Without `kube_api`, `env` says where the API server is. `name` is the
    server's in TLS.
    """

    def __init__(
        self,
        kube_api: str,
        *,
        enrol: Sequence[str] = (),
        root_pem: str = "",
        before: Sequence[str] = (),
        more: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        name: str = NAME,
    ) -> None:
        self._directory = tempfile.TemporaryDirectory()
        folder = Path(self._directory.name)
        self.root_pem = root_pem
        if not enrol:
            authority = Authority()
            certificate = authority.issue(dns=name)
            self.root_pem = authority.root_pem
            (folder / "tls.crt").write_text(certificate.chain_pem)
            (folder / "tls.key").write_text(certificate.key_pem)
            (folder / "roots.pem").write_text(authority.root_pem)
            enrol = ("--certificate-file", str(folder / "tls.crt"), "--key-file", str(folder / "tls.key"))
            enrol = (*enrol, "--trust-bundle", str(folder / "roots.pem"))
        self.name = name
        self.port, self.health_port = free_port(), free_port()
        self.log = folder / "log"
        command = [*before, sys.executable, "-m", "webhook", *enrol, *more]
        command += ["--kube-api", kube_api] if kube_api else []
        command += ["--listen", f"127.0.0.1:{self.port}", "--metrics-listen", f"127.0.0.1:{self.health_port}"]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=die_with_parent,
                env={**os.environ, **(env or {})},
            )

    def ready(self) -> WebhookProcess:
        """Wait until it says so."""
        until = time.monotonic() + 120
        while time.monotonic() < until and self.process.poll() is None:
            if self.health("/readyz")[0] == 200:
                return self
            time.sleep(0.05)
        raise AssertionError(f"the webhook did not become ready:\n{self.log.read_text()}")

    def health(self, path: str) -> tuple[int, str]:
        """Status and text from the plain port; 0 when there is none yet."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}{path}", timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def context(self) -> ssl.SSLContext:
        """What an API server has: the root of `caBundle`, and the name of the service."""
        return ssl.create_default_context(cadata=self.root_pem)

    def connect(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return (context or self.context()).wrap_socket(plain, server_hostname=self.name)

    def close(self) -> None:
        if self.process.poll() is None:  # a test may have ended it
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(60)
        self._directory.cleanup()
