"""Pods as the injection makes them for a restricted namespace, with an app that tells where its connections end."""

from __future__ import annotations

import copy
import json
import textwrap
from typing import Any

from tests.cluster.images import HEDDLE, TOOLS
from webhook.config import InjectionConfig
from webhook.gate import ENFORCE, for_namespace
from webhook.inject import inject

LABELS = {ENFORCE: "restricted", "istio-injection": "enabled"}
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}

# In the place of Envoy, which would need a whole control plane: listeners that say who they are. The first thing that
# the app does is a connection to an address that nobody has, and what answers there is in its termination message.
APP = textwrap.dedent("""
    import socket, threading

    def serve(port, word):
        listener = socket.create_server(("", port))
        def answer():
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(word)
        threading.Thread(target=answer, daemon=True).start()

    serve(15001, b"outbound")
    try:
        with socket.create_connection(("192.0.2.1", 80), timeout=3) as connection:
            first = connection.recv(100).decode()
    except OSError as error:
        first = f"not intercepted: {error}"
    serve(15006, b"inbound")
    serve(8080, b"app")
    print("first connection:", first, flush=True)
    if first != "outbound":
        raise SystemExit(first)
    threading.Event().wait()
""")


def app_pod(name: str, namespace: str, **metadata: Any) -> dict[str, Any]:
    """What a person writes."""
    container = {"name": "app", "image": TOOLS, "command": ["python3", "-c", APP], "securityContext": RESTRICTED}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 0},
    }


def injected(pod: dict[str, Any], config: InjectionConfig | None = None) -> dict[str, Any]:
    """What the webhook makes of it where pod security is enforced."""
    chosen = config or InjectionConfig()
    return inject(pod, for_namespace(chosen, pod["metadata"]["namespace"], LABELS))


def gated_pod(name: str, namespace: str, **metadata: Any) -> dict[str, Any]:
    """The injected pod, without the proxy: its gate and its app are what is tested here."""
    pod = copy.deepcopy(injected(app_pod(name, namespace, **metadata)))
    pod["spec"]["initContainers"] = [c for c in pod["spec"]["initContainers"] if c["name"] == "istio-validation"]
    pod["spec"].pop("volumes")
    assert pod["spec"]["initContainers"][0]["image"] == HEDDLE
    return pod


def ask_script(address: str, port: int) -> list[str]:
    """A command that prints what answers there."""
    code = (
        f"import socket; print(socket.create_connection(({json.dumps(address)}, {port}), timeout=5).recv(99).decode())"
    )
    return ["python3", "-c", code]
