"""Around the ca, for its tests: a token issuer, an API server that knows pods, and the ca as a real process."""

from __future__ import annotations

import base64
import json
import os
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from local.linux import die_with_parent
from mesh.identity import Identity
from svid.client import CaAddress
from svid.material import PodRef, SvidMaterial
from svid.tls import client_context
from tests.support.ports import free_port

ISSUER = "https://kubernetes.default.svc.cluster.local"
CA_IDENTITY = Identity("cluster.local", "istio-system", "heddle-ca")


class TokenMint:
    """Signs service account tokens as Kubernetes does. `change` alters or (None) removes claims."""

    def __init__(self, algorithm: str = "ES256") -> None:
        self.algorithm = algorithm
        self.key: Any = (
            ec.generate_private_key(ec.SECP256R1())
            if algorithm.startswith("ES")
            else rsa.generate_private_key(65537, 2048)
        )

    def jwks(self, key_id: str = "k1") -> dict[str, Any]:
        kind = jwt.algorithms.ECAlgorithm if self.algorithm.startswith("ES") else jwt.algorithms.RSAAlgorithm
        return {"keys": [{**json.loads(kind.to_jwk(self.key.public_key())), "kid": key_id, "alg": self.algorithm}]}

    def claims(self, namespace: str, account: str, pod: PodRef | None, **change: Any) -> dict[str, Any]:
        now = int(time.time())
        bound: dict[str, Any] = {"namespace": namespace, "serviceaccount": {"name": account, "uid": "sa-uid"}}
        if pod is not None:
            bound["pod"] = {"name": pod.name, "uid": pod.uid}
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": ["istio-ca"],
            "sub": f"system:serviceaccount:{namespace}:{account}",
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            "kubernetes.io": bound,
        }
        claims.update(change)
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, namespace: str, account: str, pod: PodRef | None = None, **change: Any) -> str:
        return self.sign(self.claims(namespace, account, pod, **change))

    def sign(self, claims: dict[str, Any], key_id: str = "k1") -> str:
        return jwt.encode(claims, self.key, algorithm=self.algorithm, headers={"kid": key_id})


def unsigned(claims: dict[str, Any], header: dict[str, Any]) -> str:
    """A JWT with any header and an empty signature."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)]
    return ".".join([*parts, ""])


def _set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@dataclass
class ApiServer:
    """Pods by GET, the issuer's keys, and TokenReview by the claims of tokens that `mint` signed."""

    mint: TokenMint
    pods: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    broken: bool = False
    reviews_go: threading.Event = field(default_factory=_set_event)
    watchers: list[queue.Queue[dict[str, Any] | None]] = field(default_factory=list)

    def __enter__(self) -> ApiServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one packet

            def do_GET(self) -> None:
                parts = self.path.split("/")
                if "watch=true" in self.path:
                    self._watch()
                elif outer.broken:
                    self._say(500, {"message": "etcd is on fire"})
                elif self.path == "/openid/v1/jwks":
                    self._say(200, outer.mint.jwks())
                elif self.path.startswith("/api/v1/pods"):
                    self._say(200, {"metadata": {"resourceVersion": "1"}, "items": list(outer.pods.values())})
                elif (parts[4], parts[6]) in outer.pods:
                    self._say(200, outer.pods[parts[4], parts[6]])
                else:
                    self._say(404, {"message": "not found"})

            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.reviews_go.wait(60)
                if outer.broken:
                    self._say(500, {"message": "etcd is on fire"})
                    return
                self._say(201, {"status": outer.review(review["spec"])})

            def _watch(self) -> None:
                """Events since now, until the client goes or the server ends."""
                events: queue.Queue[dict[str, Any] | None] = queue.Queue()
                outer.watchers.append(events)
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.flush()
                while (event := events.get()) is not None:
                    raw = json.dumps(event).encode() + b"\n"
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")

            def _say(self, status: int, body: Any) -> None:
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_arguments: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *_error: object) -> None:
        for events in self.watchers:
            events.put(None)
        self._server.shutdown()
        self._server.server_close()

    def add_pod(self, namespace: str, name: str, uid: str, account: str) -> PodRef:
        self.pods[namespace, name] = {
            "metadata": {"namespace": namespace, "name": name, "uid": uid, "resourceVersion": "2"},
            "spec": {"serviceAccountName": account, "nodeName": "node-1"},
        }
        self._tell("MODIFIED", self.pods[namespace, name])
        return PodRef(namespace, name, uid)

    def remove_pod(self, namespace: str, name: str) -> None:
        self._tell("DELETED", self.pods.pop((namespace, name)))

    def _tell(self, kind: str, pod: dict[str, Any]) -> None:
        for events in self.watchers:
            events.put({"type": kind, "object": pod})

    def review(self, spec: dict[str, Any]) -> dict[str, Any]:
        try:
            claims = jwt.decode(
                spec["token"], self.mint.key.public_key(), algorithms=[self.mint.algorithm], audience=spec["audiences"]
            )
        except jwt.PyJWTError as error:
            return {"authenticated": False, "error": str(error)}
        pod = claims["kubernetes.io"].get("pod", {})
        extra = {f"authentication.kubernetes.io/pod-{name}": [value] for name, value in pod.items()}
        user = {"username": claims["sub"], "uid": "sa-uid", "extra": extra}
        return {"authenticated": True, "user": user, "audiences": claims["aud"]}


class RunningCa:
    """`python -m ca` on free ports of the loopback; its output goes to `log`."""

    identity = CA_IDENTITY

    def __init__(self, log: Path, *arguments: str, env: Mapping[str, str] | None = None, port: int = 0) -> None:
        self.port, self.metrics_port = port or free_port(), free_port()
        self.log = log
        self._env = {**os.environ, **(env or {})}
        self._command = [
            *(sys.executable, "-m", "ca", "--listen", f"127.0.0.1:{self.port}"),
            *("--metrics-listen", f"127.0.0.1:{self.metrics_port}", *arguments),
        ]

    def __enter__(self) -> Self:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
                cwd=Path(__file__).parents[2],
                env=self._env,
            )
        deadline = time.monotonic() + 120
        while self.plain("/readyz")[0] != 200:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.05)

    def __exit__(self, *_error: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(60)

    def kill(self) -> None:
        """As by the kernel: the arbiter and its worker at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)

    @property
    def address(self) -> CaAddress:
        return CaAddress("127.0.0.1", self.port, self.identity)

    @property
    def roots(self) -> str:
        """PEM of what to trust."""
        raise NotImplementedError

    def plain(self, path: str) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.metrics_port, timeout=60)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        material: SvidMaterial | None = None,
        context: ssl.SSLContext | None = None,
    ) -> tuple[int, Any, dict[str, str]]:
        """One request; status, decoded JSON body, headers."""
        tls = context or client_context(self.roots, material)
        connection = HTTPSConnection("127.0.0.1", self.port, timeout=60, context=tls)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            raw = response.read()
            return response.status, json.loads(raw) if raw else None, dict(response.headers)
        finally:
            connection.close()


class CaProcess(RunningCa):
    """With its root in the directory `state`, and the API server `api`."""

    def __init__(self, state: Path, api: ApiServer, *more: str, env: Mapping[str, str] | None = None) -> None:
        self.state = state
        log = state.with_name(state.name + ".log")
        super().__init__(log, "--state", str(state), "--kube-api", api.url, *more, env=env)

    @property
    def roots(self) -> str:
        return (self.state / "roots.pem").read_text()
