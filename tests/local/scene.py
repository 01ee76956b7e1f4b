"""Runs test functions as process 1 of a real sandbox, with a kubelet: `@in_sandbox` on a test that takes a Scene.

Outside, the wrapped test starts the sandbox and this file in it; inside, the test's own body runs. What it prints and
its traceback come back in the assertion message.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local import sandbox
from local.images import Images, parse_entry
from local.kubelet import Kubelet
from local.network import Network

LONGEST = 150

# A server that answers with its host name and the caller's address, for readiness and for who reached whom.
SERVER = """
import os, signal, sys
from http.server import *
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{os.uname().nodename} {self.client_address[0]}\\n".encode())
    def log_message(self, *_): pass
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""


class Scene:
    """A node with a kubelet; `objects` are the ConfigMaps and Secrets that it finds, `statuses` what it reports."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.statuses: dict[str, dict[str, Any]] = {}
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.tokens: list[tuple[str, str, int]] = []
        self._changed = threading.Condition()
        self.network = Network()
        self.network.start()
        entries = (
            parse_entry({"match": "python:*", "command": ["python", "-c"], "args": [SERVER]}, state, "python"),
            parse_entry({"match": "sh:*", "command": ["sh", "-c"]}, state, "sh"),
        )
        self.kubelet = Kubelet(
            state,
            self.network,
            Images(entries, str(state / "images.yaml")),
            lookup=lambda *key: self.objects.get(key),
            token_for=self._token,
            on_status=self._on_status,
        )
        self.kubelet.start()

    def _token(self, pod: Any, audience: str, seconds: int) -> str:
        self.tokens.append((pod["metadata"]["name"], audience, seconds))
        return f"token {len(self.tokens)} for {audience}"

    def _on_status(self, pod: dict[str, Any], status: dict[str, Any]) -> None:
        with self._changed:
            self.statuses[pod["metadata"]["name"]] = status
            self.history.setdefault(pod["metadata"]["name"], []).append(status)
            self._changed.notify_all()

    def pod(self, name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
        """A pod of namespace `shop`, with a short grace period; not started."""
        metadata = {"name": name, "namespace": "shop", "uid": f"uid-{name}", "labels": {"app": name}}
        return {
            "metadata": metadata,
            "spec": {"terminationGracePeriodSeconds": 1, "containers": list(containers), **spec},
        }

    def run(self, name: str, *containers: dict[str, Any], **spec: Any) -> None:
        """Start such a pod."""
        self.kubelet.run(self.pod(name, *containers, **spec))

    def until(self, name: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The pod's status, once it is so; fails with the last status after a long while."""
        with self._changed:
            met = self._changed.wait_for(lambda: name in self.statuses and holds(self.statuses[name]), LONGEST / 3)
            assert met, f"{name} is {self.statuses.get(name)}"
            return self.statuses[name]

    def until_ready(self, name: str) -> dict[str, Any]:
        return self.until(name, is_ready)

    def shell(self, name: str, script: str, container: str | None = None) -> tuple[int, str]:
        """Exit code and output of a shell script in a container."""
        reader, writer = os.pipe()
        with open("/dev/null", "rb") as nothing:
            running = self.kubelet.exec(
                "shop", name, ["sh", "-c", script], container=container,
                stdin=nothing.fileno(), stdout=writer, stderr=writer,
            )  # fmt: skip
        os.close(writer)
        with open(reader, "rb") as output:
            text = output.read().decode()
        return running.ended.result(), text

    def log(self, name: str, container: str | None = None, **options: Any) -> str:
        return self.kubelet.log_path("shop", name, container, **options).read_text()

    def serve(self, services: dict[str, tuple[str, list[str]]]) -> None:
        """Services by name: cluster IP, and the pods behind port 80 (on their port 8000)."""
        objects = [
            {
                "metadata": {"name": name, "namespace": "shop"},
                "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80}]},
            }
            for name, (ip, _) in services.items()
        ]
        slices = [
            {
                "metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
                "ports": [{"name": "http", "port": 8000}],
                "endpoints": [{"addresses": [self.statuses[pod]["podIP"]]} for pod in pods],
            }
            for name, (_, pods) in services.items()
        ]
        self.kubelet.set_services(objects, slices)


def server(**more: Any) -> dict[str, Any]:
    """A container with the server, ready when it answers."""
    return {"name": "server", "image": "python", "readinessProbe": {"httpGet": {"port": 8000}}, **more}


def script(text: str, name: str = "main", **more: Any) -> dict[str, Any]:
    """A container that runs a shell script."""
    return {"name": name, "image": "sh", "args": [text], **more}


def is_ready(status: dict[str, Any]) -> bool:
    return any(item["type"] == "Ready" and item["status"] == "True" for item in status["conditions"])


def state_of(status: dict[str, Any], name: str) -> dict[str, Any]:
    """The status of one container."""
    everyone = [*(status.get("initContainerStatuses") or []), *status["containerStatuses"]]
    return next(item for item in everyone if item["name"] == name)


def in_sandbox(test: Callable[[Scene], None]) -> Callable[[], None]:
    """The decorator; see the module."""

    @functools.wraps(test)
    def wrapped() -> None:
        with tempfile.TemporaryDirectory(prefix="heddle-scene-") as folder:
            Path(folder).chmod(0o755)
            argv = [sys.executable, __file__, test.__code__.co_filename, test.__name__, folder]
            env = {
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(sandbox.PROJECT_ROOT), os.environ.get("PYTHONPATH", "")]),
            }
            process = sandbox.start(argv, Path(folder), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            output, _ = process.communicate(timeout=LONGEST)
        assert process.returncode == 0, output.decode(errors="replace")

    # pytest would take the parameter for a fixture.
    del wrapped.__wrapped__  # type: ignore[attr-defined]
    wrapped.body = test  # type: ignore[attr-defined]
    return wrapped


def main() -> int:
    """Inside the sandbox: run one test's body."""
    file, name, folder = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("sandboxed_test", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    scene = Scene(Path(folder))
    try:
        getattr(module, name).body(scene)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        return 1
    finally:
        scene.kubelet.close(grace=0.5)
    return 0


if __name__ == "__main__":
    sys.exit(main())
