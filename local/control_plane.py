"""The control plane on one machine: its processes, and the objects by which pods find it.

Each process gets a service account token of its own, as a pod of a cluster would, and shows the ca that.
"""

from __future__ import annotations

import http.client
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from local import mesh_config
from local.components import Component
from local.network import NODE_ADDRESS
from local.tokens import ISSUER
from mesh.errors import Unavailable
from mesh.identity import CONTROL_NAMESPACE
from mesh.ports import CA, DISCOVERY, WEBHOOK

Raw = dict[str, Any]
TOKEN_SECONDS = 3600
READY_SECONDS = 60.0
log = structlog.get_logger("heddle.local")


@dataclass(frozen=True, slots=True)
class Part:
    """One service of the control plane: where it serves, where it tells its health, and its port as a Service."""

    name: str
    port: int
    health_port: int
    service_port: int

    @property
    def account(self) -> str:
        return f"heddle-{self.name}"


PARTS = (
    Part("ca", CA, 15014, CA),
    Part("webhook", WEBHOOK, 15018, 443),
    Part("discovery", DISCOVERY, 15016, DISCOVERY),
)
OPERATOR = "heddle-operator"
ACCOUNTS = (*(part.account for part in PARTS), OPERATOR)


def objects() -> list[Raw]:
    """The control plane's namespace, service accounts, services and endpoints."""
    found: list[Raw] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CONTROL_NAMESPACE}}]
    found += [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": CONTROL_NAMESPACE, "name": account}}
        for account in ACCOUNTS
    ]
    for part in PARTS:
        meta = {"namespace": CONTROL_NAMESPACE, "name": part.account}
        port = {"name": "https", "port": part.service_port, "targetPort": part.port, "protocol": "TCP"}
        found.append({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [port]}})
        found.append(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {**meta, "labels": {"kubernetes.io/service-name": part.account}},
                "addressType": "IPv4",
                "ports": [{"name": "https", "port": part.port, "protocol": "TCP"}],
                "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
            }
        )
    return found


def token_file(state: Path, account: str) -> Path:
    return state / "tokens" / account


def processes(state: Path, kube_api: str, trust_domain: str, leaf_ttl: str) -> list[Component]:
    """The programs, in the order in which they are started."""
    ca = ["--state", str(state / "ca"), "--trust-domain", trust_domain, "--leaf-ttl", leaf_ttl]
    ca += ["--max-ttl", leaf_ttl]  # or a pod, which asks for the mesh's own setting, would get that instead
    ca += ["--mesh-config", str(mesh_config.file_of(state)), "--discovery-address", f"{NODE_ADDRESS}:{DISCOVERY}"]
    ca += ["--token-issuer-keys", "api", "--token-issuer", ISSUER]
    common = ["--ca-address", f"{NODE_ADDRESS}:{CA}", "--trust-bundle", str(roots_file(state))]
    common += ["--trust-domain", trust_domain]
    arguments: dict[str, list[str]] = {"ca": ca, "webhook": common, "discovery": common}
    # They run in no pod, whatever the environment says of this process.
    no_pod = {"POD_NAMESPACE": CONTROL_NAMESPACE, "POD_NAME": "", "POD_UID": ""}
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}", **no_pod}
    found = []
    for part in PARTS:
        argv = [sys.executable, "-m", part.name, "--kube-api", kube_api, *arguments[part.name]]
        argv += ["--listen", f"{NODE_ADDRESS}:{part.port}", "--metrics-listen", f"{NODE_ADDRESS}:{part.health_port}"]
        if part.name != "ca":
            argv += ["--token-file", str(token_file(state, part.account))]
        if part.name == "webhook":  # the engine sends it every pod; there is nothing to register
            argv += ["--no-registration", "--no-node-agent"]
        if part.name == "discovery":
            argv += ["--bare-listen", f"{NODE_ADDRESS}:15010"]
        found.append(Component(part.name, argv, env))
    return found


def roots_file(state: Path) -> Path:
    """The ca's public root certificates."""
    return state / "ca" / "roots.pem"


def wait_until_ready(part: Part, log_file: Path, alive: Callable[[], bool]) -> None:
    """Return once the part says that it is ready, or `alive()` is no longer true.

    Unavailable, with the end of the part's log, if it is not ready in time.
    """
    until = time.monotonic() + READY_SECONDS
    url = f"http://{NODE_ADDRESS}:{part.health_port}/readyz"
    why = ""
    while time.monotonic() < until:
        if not alive():
            return
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except urllib.error.HTTPError as error:
            why = error.read(300).decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            why = str(error)
        time.sleep(0.05)
    tail = "\n".join(log_file.read_text(errors="replace").splitlines()[-15:]) if log_file.exists() else ""
    raise Unavailable(f"the {part.name} did not become ready: {why}", hint=f"the end of {log_file}:\n{tail}")


def keep_tokens(state: Path, make: Callable[[str], str], stop: threading.Event) -> None:
    """Write each account's token file, and again well before it expires, until `stop`."""
    _write_tokens(state, make, ACCOUNTS)

    def renew() -> None:
        while not stop.wait(TOKEN_SECONDS / 3):
            try:
                _write_tokens(state, make, ACCOUNTS)
            except OSError as error:  # such as a full disk; the next time comes well before they expire
                log.warning("tokens of the control plane not renewed", error=str(error))

    threading.Thread(target=renew, name="tokens", daemon=True).start()


def _write_tokens(state: Path, make: Callable[[str], str], accounts: Sequence[str]) -> None:
    (state / "tokens").mkdir(mode=0o700, exist_ok=True)
    for account in accounts:
        path = token_file(state, account)
        fresh = path.with_suffix(".new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(make(account))
        fresh.replace(path)
