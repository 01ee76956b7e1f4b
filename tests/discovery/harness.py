"""Around discovery, for its tests: the engine's API with objects to read, discovery as a real process, and agents.

The API is that of `heddle local`; a real kube-apiserver comes with tests/cluster.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from local.api import create_app, serve_in_thread
from local.linux import die_with_parent
from local.store import Store, key_of
from mesh.kinds import KINDS
from mesh.objects import SIDECAR_STATUS_ANNOTATION, Key
from tests.support.certificates import Authority
from tests.support.ports import free_port

Json = dict[str, Any]
SECONDS = 120.0
ROLE = "spiffe://cluster.local/ns/{}/sa/{}"
HOME = "istio-system"
OPERATOR = (HOME, "heddle-operator")


class Cluster:
    """Objects behind the engine's API, for the length of a `with` block."""

    def __init__(self) -> None:
        numbers = itertools.count(1)
        self.store = Store(lambda: f"uid-{next(numbers)}", lambda: "2026-01-01T00:00:00Z")
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Cluster:
        app = create_app(self.store, lambda _token, _audiences: {}, dict)
        self._stop = serve_in_thread(app, "127.0.0.1", self.port)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def put(self, *objects: Json) -> int:
        """Write; the version of the last write."""
        for each in objects:
            self.store.put(each)
        return self.store.version

    def reset(self, objects: list[Json]) -> int:
        """Nothing but `objects`, all of them new; the version of the last write."""
        for kind in KINDS:
            for raw in self.store.items(kind.kind):
                self.store.delete(kind.kind, key_of(raw))
        return self.put(*objects)

    def delete(self, kind: str, namespace: str, name: str) -> int:
        self.store.delete(kind, Key(namespace, name))
        return self.store.version


def meta(name: str, namespace: str = "default", **more: Any) -> Json:
    return {"name": name, "namespace": namespace, **more}


def pod(name: str, ip: str, *, account: str = "", namespace: str = "default", **more: Any) -> Json:
    """A running pod with a sidecar. `more`: labels, annotations, uid."""
    labels = more.pop("labels", {"app": account or name})
    annotations = {SIDECAR_STATUS_ANNOTATION: "{}", **more.pop("annotations", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta(name, namespace, labels=labels, annotations=annotations, **more),
        "spec": {"serviceAccountName": account or name, "containers": []},
        "status": {"podIP": ip, "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


def service(name: str, address: str, port: int = 80, target: int = 8080, *, namespace: str = "default") -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta(name, namespace),
        "spec": {
            "clusterIP": address,
            "selector": {"app": name},
            "ports": [{"name": "http", "port": port, "targetPort": target}],
        },
    }


def endpoints(name: str, port: int, addresses: dict[str, str], *, namespace: str = "default") -> Json:
    """`addresses`: address -> pod name, "" for none."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": meta(name, namespace, labels={"kubernetes.io/service-name": name}),
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port}],
        "endpoints": [
            {"addresses": [address]}
            | ({"targetRef": {"kind": "Pod", "name": owner, "namespace": namespace}} if owner else {})
            for address, owner in addresses.items()
        ],
    }


def virtual_service(name: str, host: str, prefix: str, *, namespace: str = "default", **route: Any) -> Json:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": meta(name, namespace),
        "spec": {
            "hosts": [host],
            "http": [{"match": [{"uri": {"prefix": prefix}}], "route": [{"destination": {"host": host}}], **route}],
        },
    }


def small_mesh() -> list[Json]:
    """Two services with one pod each."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}},
        service("a", "10.96.0.1"),
        service("b", "10.96.0.2"),
        pod("a-0", "10.244.0.1", account="a"),
        pod("b-0", "10.244.0.2", account="b"),
        endpoints("a", 8080, {"10.244.0.1": "a-0"}),
        endpoints("b", 8080, {"10.244.0.2": "b-0"}),
    ]


class DiscoveryProcess:
    """`python -m discovery` against `cluster` (or the API server of a kubeconfig), for the length of a `with` block."""

    def __init__(
        self,
        cluster: Cluster | Path,
        directory: Path,
        *more: str,
        authority: Authority | None = None,
        enrolled: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Its certificate is one of `authority`, or of the ca that `more` tells of when it is to be `enrolled`."""
        self.authority = authority or Authority()
        self.port, self.health_port, self.bare_port = free_port(), free_port(), free_port()
        self.directory = directory
        self.roots = directory / "roots.pem"
        self.roots.write_text(self.authority.root_pem)
        self.home = (env or {}).get("POD_NAMESPACE", HOME)
        certificate = self.authority.issue(uri=ROLE.format(self.home, "heddle-discovery"))
        self.certificate, self.key = directory / "chain.pem", directory / "key.pem"
        self.certificate.write_text(certificate.chain_pem)
        self.key.write_text(certificate.key_pem)
        self.log = directory / "discovery.log"
        self._env = {**os.environ, **(env or {})}
        self._command = [sys.executable, "-m", "discovery"]
        if isinstance(cluster, Path):
            self._env["KUBECONFIG"] = str(cluster)
        else:
            self._command += ["--kube-api", cluster.address]
        self._command += ["--listen", f"127.0.0.1:{self.port}", "--metrics-listen", f"127.0.0.1:{self.health_port}"]
        self._command += ["--bare-listen", f"127.0.0.1:{self.bare_port}"]
        if not enrolled:
            self._command += ["--trust-bundle", str(self.roots)]
            self._command += ["--certificate-file", str(self.certificate), "--key-file", str(self.key)]
        self._command += more
        self._contexts: dict[str, ssl.SSLContext] = {}

    def __enter__(self) -> DiscoveryProcess:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
                env=self._env,
            )
        until = time.monotonic() + SECONDS
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > until:
                self.__exit__(None, None, None)
                raise AssertionError(f"discovery did not become ready:\n{self.log.read_text()}")
            time.sleep(0.05)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def ready(self) -> bool:
        try:
            return self.health("/readyz")[0] == 200
        except OSError:
            return False

    def health(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}{path}", timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def worker_pid(self) -> int:
        """The process that serves."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def context(self, namespace: str, account: str) -> ssl.SSLContext:
        """A client's context with the SVID of that service account."""
        uri = ROLE.format(namespace, account)
        if uri not in self._contexts:
            self._contexts[uri] = self.client_context(self.authority, uri)
        return self._contexts[uri]

    def client_context(self, authority: Authority | None, uri: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authority.root_pem)
        context.check_hostname = False
        if authority is not None:
            certificate = authority.issue(uri=uri)
            pair = self.directory / f"{threading.get_ident()}-{len(self._contexts)}.pem"
            pair.write_text(certificate.chain_pem + certificate.key_pem)
            context.load_cert_chain(pair)
        return context

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        who: tuple[str, str] | None = None,
        timeout: float = SECONDS,
    ) -> tuple[int, Any]:
        """One request over a connection of its own: status, and JSON (None for no body). `who`: else the operator."""
        context = self.context(*(who or (self.home, "heddle-operator")))
        connection = HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=context)
        try:
            return exchange(connection, method, path, body)
        finally:
            connection.close()

    def caught_up(self, version: int) -> None:
        """Wait until discovery has seen everything up to `version`."""
        until = time.monotonic() + SECONDS
        while self.status()["observed"] < version:
            assert time.monotonic() < until, "discovery is behind"
            time.sleep(0.01)

    def status(self, query: str = "") -> Json:
        code, body = self.call("GET", f"/v1/status{query}", timeout=70)
        assert code == 200, body
        found: Json = body
        return found


def exchange(connection: HTTPConnection, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """One request; bytes go out as they are, everything else as JSON."""
    raw = body if isinstance(body, bytes) else None if body is None else orjson.dumps(body)
    headers = {"Content-Type": "application/json"} if raw is not None else {}
    connection.request(method, path, raw, headers)
    answer = connection.getresponse()
    text = answer.read()
    return answer.status, json.loads(text) if text else None


class Agent:
    """The agent's half of the wire, without an Envoy: says at once that everything was applied."""

    def __init__(self, discovery: DiscoveryProcess, name: str, ip: str, *, account: str, namespace: str = "default"):
        self._connection = HTTPSConnection(
            "127.0.0.1", discovery.port, timeout=70, context=discovery.context(namespace, account)
        )
        self.proxy = {"namespace": namespace, "pod": name, "ip": ip, "envoyVersion": "1.40.0", "agentVersion": "test"}
        self.session, self.sequence = "", 0
        self.has: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self.applied: dict[str, Json] = {}

    def poll(self, hold: float = 20.0) -> tuple[int, Any]:
        """Ask, take what comes, and count it as applied for the next request."""
        status, body = exchange(self._connection, "POST", "/v1/config", self.request(hold))
        if status == 200:
            self.take(body)
        return status, body

    def request(self, hold: float) -> Json:
        body = {
            "proxy": self.proxy,
            "session": self.session,
            "sequence": self.sequence,
            "applied": self.applied,
            "holdSeconds": hold,
        }
        return body if self.session else {**body, "versions": self.versions}

    def take(self, body: Json) -> None:
        self.session, self.sequence = body["session"], body["sequence"]
        for kind, entries in body["changed"].items():
            self.has.setdefault(kind, {}).update({name: each["resource"] for name, each in entries.items()})
            self.versions.setdefault(kind, {}).update({name: each["version"] for name, each in entries.items()})
        for kind, names in body["removed"].items():
            for name in names:
                self.has[kind].pop(name, None)
                self.versions[kind].pop(name, None)
        for kind in (*body["changed"], *body["removed"]):
            self.applied[kind] = {"sequence": self.sequence, "since": "2026-01-01T00:00:00Z", "rejected": []}

    def close(self) -> None:
        self._connection.close()


class Held:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._thread = threading.Thread(target=lambda: setattr(self, "result", call()))
        self.result: Any = None
        self._thread.start()

    def wait(self) -> Any:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.result


def agent_a(discovery: DiscoveryProcess) -> Agent:
    return Agent(discovery, "a-0", "10.244.0.1", account="a")


def agent_b(discovery: DiscoveryProcess) -> Agent:
    return Agent(discovery, "b-0", "10.244.0.2", account="b")


def settled(agent: Agent) -> Agent:
    """An agent that has everything."""
    assert agent.poll()[0] == 200
    assert agent.poll(0)[0] == 204
    return agent
