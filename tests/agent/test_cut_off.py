"""An agent that was away for a whole rotation of the root comes back by itself: real ca, discovery, agent and Envoy.

Its network is cut off, or it is paused as on a machine that sleeps. Meanwhile its ConfigMap is kept, as a kubelet does.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from svid.client import Token, fetch, fetch_bundle
from svid.material import SvidMaterial
from svid.request import new_key_request
from svid.tls import client_context
from tests.agent.control_plane import Authority, DiscoveryService, eventually
from tests.agent.sidecar import Sidecar
from tests.ca.harness import ISSUER, ApiServer, TokenMint
from tests.ca.rotation.operated import Operated
from tests.discovery.harness import Cluster, DiscoveryProcess, pod
from tests.support.link import Link, link
from tests.support.ports import free_port

GATEWAY = "edge-1"
GREETING = "hello"


class Mesh:
    """A control plane of real processes, and one gateway in it, which demands certificates of the mesh at `port`."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory, self.port, self.mint = directory, free_port(), TokenMint()
        self.api = stack.enter_context(ApiServer(self.mint))
        self.pod = self.api.add_pod("default", GATEWAY, "uid-1", "edge")
        keys = ("--token-issuer-keys", "api", "--token-issuer", ISSUER)
        self.ca = stack.enter_context(Operated(directory / "ca", self.api, *keys))
        self.ca.begin(self.mint)
        objects = stack.enter_context(Cluster())
        objects.put(*mesh_objects(self.port))
        token = directory / "discovery.token"
        token.write_text(self.mint.token("istio-system", "heddle-discovery"))
        enrolled = ("--ca-address", f"127.0.0.1:{self.ca.port}", "--token-file", str(token))
        roots = ("--trust-bundle", str(self.ca.state / "roots.pem"))
        self.discovery = stack.enter_context(DiscoveryProcess(objects, directory, *enrolled, *roots, enrolled=True))
        self.to_ca: Link = stack.enter_context(link(self.ca.port))
        self.to_discovery: Link = stack.enter_context(link(self.discovery.port))
        self.agent = Sidecar(
            directory,
            self.to_ca,  # type: ignore[arg-type]  # of which the port counts
            self.to_discovery,  # type: ignore[arg-type]
            self.ca.roots,
            POD_NAME=GATEWAY,
            POD_UID=self.pod.uid,
            SERVICE_ACCOUNT="edge",
        )
        (directory / "token").write_text(self.mint.token("default", "edge", self.pod))
        self.agent.start()
        stack.callback(self.agent.stop, signal.SIGKILL)
        self.agent.await_ready()

    def mount(self, roots: str) -> None:
        """What a kubelet does when the ConfigMap has changed."""
        fresh = self.directory / "root.new"
        fresh.write_text(roots)
        fresh.replace(self.directory / "root.pem")

    def rotate(self) -> None:
        """To another root, without the gateway."""
        title, before = f"default/{GATEWAY}", self.roots()
        assert self.ca.rotation(do="start", windowSeconds=1)[0] == 200
        eventually(lambda: self.ca.rotation()[1]["acknowledged"]["missing"] == [title])
        (new,) = self.roots() - before
        eventually(lambda: proves_itself_by(new, self.discovery.port))
        self.ca.begin(self.mint)
        self.ca.rotation(do="exclude", pods=[title])
        eventually(lambda: self.ca.rotation()[1]["phase"] == "idle")

    def roots(self) -> set[str]:
        """What the ca says that everyone trusts."""
        return set(fetch_bundle(self.ca.address, self.ca.roots).roots)

    def certificate(self) -> Any:
        return self.agent.status()["certificate"]

    def peer(self) -> SvidMaterial:
        """A workload that has its certificate and its bundle from now."""
        token = Token(self.mint.token("default", "edge", self.pod))
        return fetch(self.ca.address, self.ca.roots, new_key_request(), token)

    def greets(self, peer: SvidMaterial) -> bool:
        """Whether the gateway and `peer` take each other's certificates and a request is answered."""
        context = client_context(peer.bundle.pem, peer)
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=context)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode() == GREETING
        except OSError:
            return False
        finally:
            connection.close()


def proves_itself_by(root: str, port: int) -> bool:
    """Whether the server there shows a certificate that leads to `root`."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        try:
            client_context(root).wrap_socket(connection).close()
        except ssl.SSLCertVerificationError:
            return False
    return True


def mesh_objects(port: int) -> list[dict[str, Any]]:
    """A gateway that answers by itself."""
    name = {"namespace": "default", "name": "edge"}
    server = {"port": {"number": port, "name": "mesh", "protocol": "HTTPS"}, "hosts": ["*"]}
    answer = {"directResponse": {"status": 200, "body": {"string": GREETING}}}
    istio = "networking.istio.io/v1"
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}},
        pod(GATEWAY, "127.0.0.1", account="edge", uid="uid-1", annotations={"inject.istio.io/templates": "gateway"}),
        {
            "apiVersion": istio,
            "kind": "Gateway",
            "metadata": name,
            "spec": {"selector": {"app": "edge"}, "servers": [{**server, "tls": {"mode": "ISTIO_MUTUAL"}}]},
        },
        {
            "apiVersion": istio,
            "kind": "VirtualService",
            "metadata": name,
            "spec": {"hosts": ["*"], "gateways": ["edge"], "http": [answer]},
        },
    ]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with ExitStack() as stack:
        yield Mesh(tmp_path_factory.mktemp("mesh"), stack)


@contextmanager
def without_network(mesh: Mesh) -> Iterator[None]:
    for way in (mesh.to_ca, mesh.to_discovery):
        way.cut()
    yield
    for way in (mesh.to_ca, mesh.to_discovery):
        way.mend()


@contextmanager
def paused(mesh: Mesh) -> Iterator[None]:
    """The agent alone: what it is sent meanwhile waits for it on its connections."""
    assert mesh.agent.process is not None
    os.kill(mesh.agent.process.pid, signal.SIGSTOP)
    yield
    os.kill(mesh.agent.process.pid, signal.SIGCONT)


@pytest.mark.parametrize("away", [without_network, paused])
def test_it_comes_back_after_a_rotation_that_it_missed(
    mesh: Mesh, away: Callable[[Mesh], AbstractContextManager[None]]
) -> None:
    before, old = mesh.certificate(), mesh.peer()
    assert mesh.greets(old)
    with away(mesh):
        mesh.rotate()
        mesh.mount(mesh.ca.roots)
        new = mesh.peer()
        assert not mesh.greets(new)
    eventually(lambda: mesh.greets(new))
    assert not mesh.greets(old)
    after = mesh.certificate()
    assert after["serial"] != before["serial"]
    assert after["bundleSequence"] == fetch_bundle(mesh.ca.address, mesh.ca.roots).sequence
    assert before["renewAt"] > time.time() + 3600  # it did not wait for that
    eventually(lambda: mesh.agent.status()["discovery"]["connected"])


def test_a_root_that_it_neither_holds_nor_has_mounted_proves_nobody(mesh: Mesh) -> None:
    def trouble() -> str:
        return str(mesh.agent.status()["discovery"]["error"])

    foreign = Authority()
    another = DiscoveryService(foreign)
    try:
        mesh.to_discovery.lead_to(another.port)
        eventually(lambda: "does not verify" in trouble())
        assert another.requests == []
        # Mounted, the same root counts: nothing else was in the way. That server knows nobody of the mesh.
        mesh.mount(mesh.ca.roots + foreign.root_pem)
        eventually(lambda: "UNKNOWN_CA" in trouble())
        # What is no certificate at all takes nothing away.
        mesh.mount("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
        mesh.to_discovery.lead_to(mesh.discovery.port)
        eventually(lambda: mesh.agent.status()["discovery"]["connected"])
        assert another.requests == []
    finally:
        another.stop()
