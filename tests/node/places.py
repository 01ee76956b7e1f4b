"""A node's folder of network namespaces, as a container runtime keeps it, and pods as the API server has them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mesh.interception import InterceptionSpec, arguments
from tests.mesh.network import Namespace, run
from tests.node.gates import POD_UID

NODE = "node-1"
HOST_ADDRESS = "192.0.2.77"  # of no namespace here, unless a test puts it there


class Folder:
    """Namespaces are mounted on files in it; `close` takes everything away."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="hddl-netns-"))
        self._mounted: list[Path] = []

    def add(self, namespace: Namespace, name: str = "") -> Path:
        return self.mount(Path("/run/netns", namespace.name), name or f"cni-{namespace.name}")

    def mount(self, source: Path, name: str) -> Path:
        file = self.path / name
        file.touch()
        run("mount", "--bind", str(source), str(file))
        self._mounted.append(file)
        return file

    def remove(self, file: Path) -> None:
        run("umount", str(file))
        self._mounted.remove(file)
        file.unlink()

    def close(self) -> None:
        for file in list(self._mounted):
            self.remove(file)
        shutil.rmtree(self.path)


def pod_object(
    spec: InterceptionSpec | None = None,
    *,
    words: list[str] | None = None,
    name: str = "reviews-v1-0",
    uid: str = POD_UID,
    status: Mapping[str, Any] | None = None,
    **pod_spec: object,
) -> dict[str, Any]:
    """A pod with a gate, as far as the node agent reads it; `pod_spec` replaces fields of its spec."""
    args = words if words is not None else arguments(spec or InterceptionSpec())
    return {
        "metadata": {"namespace": "default", "name": name, "uid": uid},
        "spec": {
            "nodeName": NODE,
            "initContainers": [
                {"name": "istio-validation", "command": ["heddle-gate"], "args": args},
                {"name": "istio-proxy", "restartPolicy": "Always"},
            ],
            **pod_spec,
        },
        "status": status or {"phase": "Pending"},
    }
