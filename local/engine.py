"""The embedded engine, process 1 of its sandbox: API server, controllers, kubelet, network and control plane at once.

Started by `local.up` as `python -m local.engine`, with its order as JSON in the environment variable HEDDLE_ENGINE.
Everything that it makes lives in namespaces that end with it.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import socket
import string
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from local import api, control, control_plane, exec_socket
from local.admission import Webhook
from local.capture import Capture
from local.changes import Changes
from local.cluster import Controllers
from local.components import Components
from local.forward import Forwarder, Published
from local.images import load_images
from local.kubelet import Execution, Kubelet
from local.manifests import control_plane_objects
from local.mesh_config import MeshConfig, trust_domain_in
from local.network import NODE_ADDRESS, Network, interface_name
from local.operator_access import Operator
from local.overview import pod_line
from local.reload import Manifests
from local.store import Raw, Store, key_of
from local.tokens import TokenIssuer, reviewer
from mesh.errors import HeddleError, NotFound
from mesh.identity import CONTROL_NAMESPACE
from mesh.objects import Key
from mesh.ports import WEBHOOK

API_HOST, API_PORT = "127.0.0.1", 6443
WEBHOOK_NAME = f"heddle-webhook.{CONTROL_NAMESPACE}.svc"
END_SECONDS = 20.0
LAST_GRACE_SECONDS = 5.0
"""When the whole mesh ends there is nobody left to drain for."""
CAPTURED_PORT = 9080
log = structlog.get_logger("heddle.local")


class Engine:
    """`order` comes from `local.up`."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        self._order = order
        self._state = state = Path(order["state"])
        (state / "logs").mkdir(exist_ok=True)
        self._ending = threading.Event()
        self._store = Store(uid=lambda: str(uuid.uuid4()), now=_now)
        self._issuer = TokenIssuer(ec.generate_private_key(ec.SECP256R1()))
        self._captures: dict[Key, Capture] = {}
        url = f"http://{API_HOST}:{API_PORT}"
        paths = [Path(path) for path in order["manifests"]]
        trust_domain = trust_domain_in(paths)
        self._components = Components(
            control_plane.processes(state, url, trust_domain, order["certificateTtl"]), state / "logs"
        )
        self._mesh_config = MeshConfig(self._store, state, trust_domain, say)
        roots = control_plane.roots_file(state).read_text
        self._operator = Operator(state, trust_domain, roots)
        webhook = Webhook(NODE_ADDRESS, WEBHOOK, WEBHOOK_NAME, roots)
        self._network = Network()
        images = load_images(Path(order["images"]) if order["images"] else None)
        self._kubelet = Kubelet(
            state,
            self._network,
            images,
            lookup=lambda kind, namespace, name: self._store.get(kind, Key(namespace, name)),
            token_for=self._pod_token,
            on_status=self._pod_status,
        )
        self._controllers = Controllers(
            self._store,
            admit=lambda pod: webhook.admit(pod, str(uuid.uuid4())),
            runner=self._kubelet,
            set_services=self._kubelet.set_services,
            root_certificate=roots,
            suffix=lambda: "".join(secrets.choice(string.ascii_lowercase) for _ in range(5)),
            now=_now,
        )
        self._manifests = Manifests(
            paths,
            self._store,
            create_pod=self._controllers.keep_pod,
            remove_pod=self._controllers.release_pod,
            say=say,
            reserved=control_plane_objects(control_plane.objects()),
        )
        self._changes = Changes(self._operator, say)

    def run(self) -> None:
        """Bring everything up, keep it running until SIGTERM or `down`, and take it down in order."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._ending.set())
        self._network.start()
        self._kubelet.start()
        review = reviewer(self._issuer, self._store, time.time)
        api.serve_in_thread(api.create_app(self._store, review, self._issuer.jwks), API_HOST, API_PORT)
        for raw in control_plane.objects():
            self._store.put(raw)
        control_plane.keep_tokens(self._state, self._account_token, self._ending)
        try:
            self._serve_the_command()
            self._start_control_plane()
            if self._ending.is_set():
                return
            self._manifests.load()
            self._mesh_config.start(self._ending)
            self._controllers.start()
            self._publish()
            self._say_when_ready()
            self._say_problems()
            self._manifests.follow(self._changes.note, self._ending)
        finally:
            self._end()

    def _start_control_plane(self) -> None:
        for part in control_plane.PARTS:
            self._components.start(part.name)
            log_file = self._state / "logs" / f"{part.name}.log"
            control_plane.wait_until_ready(part, log_file, lambda: not self._ending.is_set())
            if self._ending.is_set():
                return
            if part.name == "ca":
                self._operator.start()
        say("control plane: ca, webhook and discovery are ready")

    def _serve_the_command(self) -> None:
        app = control.create_app(
            self._store,
            self._components,
            self._operator,
            status=self._status,
            log_path=lambda namespace, pod, container: self._kubelet.log_path(namespace, pod, container or None),
            capture=self._capture,
            down=self._ending.set,
        )
        control.serve_in_thread(app, self._state / "engine.sock")
        exec_socket.serve_in_thread(self._state / "exec.sock", self._exec)

    def _publish(self) -> None:
        listeners = [
            (Published(p["hostPort"], p["servicePort"]), socket.socket(fileno=p["fd"]))
            for p in self._order["published"]
        ]
        Forwarder(self._gateway_address).start(listeners)

    def _gateway_address(self, port: int) -> tuple[str, int] | None:
        """The oldest service of type LoadBalancer that has the port."""
        services = sorted(self._store.items("Service"), key=lambda raw: str(raw["metadata"]["creationTimestamp"]))
        for service in services:
            spec = service["spec"]
            if (
                spec.get("type") == "LoadBalancer"
                and spec.get("clusterIP")
                and any(p["port"] == port for p in spec.get("ports") or ())
            ):
                return spec["clusterIP"], port
        return None

    def _say_when_ready(self) -> None:
        """Tell the starter (by a file with its process id) and the user once every pod of the first load is ready."""

        def wait() -> None:
            while not self._ending.wait(0.05):
                pods = [pod_line(raw) for raw in self._store.items("Pod")]
                if self._controllers.settled() and all(pod["settled"] for pod in pods) and not self._unfinished():
                    break
            else:
                return
            for published in self._order["published"]:
                if self._gateway_address(published["servicePort"]):
                    say(
                        f"ingress: http{'s' if published['servicePort'] == 443 else ''}"
                        f"://127.0.0.1:{published['hostPort']}"
                    )
            say(f"up: {len(pods)} pods are ready; `heddle status` shows them, `heddle local down` ends the mesh")
            (self._state / "ready").write_text(str(self._order["starter"]))

        threading.Thread(target=wait, name="ready", daemon=True).start()

    def _say_problems(self) -> None:
        """Tell the user, once, of each pod that cannot go on and each object that cannot be acted upon."""
        told: set[tuple[str, str]] = set()

        def look() -> None:
            while not self._ending.wait(0.5):
                pods = [(f"Pod {key_of(raw)}", pod_line(raw)) for raw in self._store.items("Pod")]
                found = [(name, line["status"], line["message"]) for name, line in pods if line["message"]]
                found += [(name, "", says) for name, says in dict(self._controllers.problems).items()]
                for name, reason, says in found:
                    if (name, reason) not in told:
                        told.add((name, reason))
                        say(f"{name}: {says}")

        threading.Thread(target=look, name="problems", daemon=True).start()

    def _unfinished(self) -> bool:
        """Whether a workload has fewer pods than it asks for."""
        for raw in (*self._store.items("Deployment"), *self._store.items("ReplicaSet")):
            replicas = raw["spec"].get("replicas")
            if (raw.get("status") or {}).get("readyReplicas", 0) < (1 if replicas is None else replicas):
                return True
        return False

    def _status(self) -> dict[str, Any]:
        problems = [*self._manifests.problems, *(f"{k}: {v}" for k, v in self._controllers.problems.items())]
        pods = sorted((pod_line(raw) for raw in self._store.items("Pod")), key=lambda p: (p["namespace"], p["name"]))
        problems += [f"Pod {p['namespace']}/{p['name']}: {p['message']}" for p in pods if p["message"]]
        return {
            "pods": pods,
            "pending": [str(key) for key in self._controllers.pending()],
            "components": self._components.states(),
            "published": [{k: p[k] for k in ("hostPort", "servicePort")} for p in self._order["published"]],
            "problems": problems,
            "resourceVersion": self._store.version,
            "changes": self._changes.newest,
        }

    def _exec(
        self, namespace: str, pod: str, container: str, argv: Sequence[str], stdio: tuple[int, int, int]
    ) -> Execution:
        return self._kubelet.exec(
            namespace,
            pod,
            list(argv),
            container=container or None,
            stdin=stdio[0],
            stdout=stdio[1],
            stderr=stdio[2],
            tty=os.isatty(stdio[0]),
        )

    def _capture(self, namespace: str, pod: str, verb: str) -> dict[str, Any]:
        key = Key(namespace, pod)
        if verb == "start":
            raw = self._store.get("Pod", key)
            if raw is None or not (raw.get("status") or {}).get("podIP"):
                raise NotFound(f"there is no running pod {key}")
            capture = Capture(interface_name(raw["status"]["podIP"]), CAPTURED_PORT)
            capture.start()
            self._captures[key] = capture
            return {"started": True}
        if key not in self._captures:
            raise NotFound(f"nothing captures the packets of {key}")
        seen = self._captures.pop(key).stop()
        return {"packets": seen.packets, "tlsVersion": seen.tls_version, "plainText": seen.plain_text}

    def _pod_token(self, pod: Mapping[str, Any], audience: str, seconds: int) -> str:
        meta = pod["metadata"]
        account = pod["spec"].get("serviceAccountName") or "default"
        return self._token(meta["namespace"], account, audience, seconds, (meta["name"], meta["uid"]))

    def _account_token(self, account: str) -> str:
        return self._token(CONTROL_NAMESPACE, account, "istio-ca", control_plane.TOKEN_SECONDS)

    def _token(
        self, namespace: str, account: str, audience: str, seconds: int, pod: tuple[str, str] | None = None
    ) -> str:
        raw = self._store.get("ServiceAccount", Key(namespace, account))
        if raw is None:
            raise NotFound(f"there is no ServiceAccount {namespace}/{account}", hint="add it to the manifests")
        return self._issuer.token(
            namespace=namespace,
            service_account=account,
            service_account_uid=raw["metadata"]["uid"],
            audience=audience or api.AUDIENCE,
            now=time.time(),
            seconds=seconds,
            token_id=str(uuid.uuid4()),
            pod=pod,
        )

    def _pod_status(self, pod: Mapping[str, Any], status: Raw) -> None:
        self._store.update("Pod", key_of(dict(pod)), lambda raw: {**raw, "status": status})

    def _end(self) -> None:
        say("ending: pods first, then the control plane")
        self._controllers.stop()
        ended = [self._kubelet.stop(*key, grace=LAST_GRACE_SECONDS) for key in self._kubelet.pods()]
        until = time.monotonic() + END_SECONDS
        for future in ended:
            try:
                future.result(max(0.0, until - time.monotonic()))
            except (TimeoutError, HeddleError):
                log.warning("a pod did not end in time; the kernel ends it now")
        self._components.stop_all()


def say(line: str) -> None:
    """A line for the person who started the mesh; the log has it too."""
    log.info(line)
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def main() -> int:
    """Run the engine; 1 with one line on standard error for anything that a person can mend."""
    order = json.loads(os.environ.pop("HEDDLE_ENGINE"))
    logs = Path(order["state"]) / "logs"
    logs.mkdir(exist_ok=True)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory((logs / "engine.log").open("a")),
    )
    logging.basicConfig(filename=logs / "engine.log", level=logging.WARNING)
    try:
        Engine(order).run()
    except HeddleError as error:
        sys.stderr.write(f"heddle: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
