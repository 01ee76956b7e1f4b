"""What the node agent may do on its node: exactly what it needs, by the manifest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lanes import MACHINE
from tests.node.gates import ROOT, made_pod
from tests.node.places import Folder

pytestmark = MACHINE

# capability.h
NUMBERS = {"NET_ADMIN": 12, "NET_RAW": 13, "SYS_ADMIN": 21}

_PROGRAM = """
import sys
from pathlib import Path
from local import linux
from mesh.errors import HeddleError
from mesh.interception import InterceptionSpec
from node.agent import try_rules, write
from node.enter import inside, new_namespace
linux.prctl(38, 1)
kept = frozenset(map(int, sys.argv[2].split(",")))
linux.limit_capabilities(kept)
linux.set_capabilities(kept)
try:
    with new_namespace():
        try_rules()
    with inside(Path(sys.argv[1]), "192.0.2.77"):
        write(InterceptionSpec())
except HeddleError as error:
    sys.exit(str(error))
"""


def container() -> dict[str, Any]:
    daemon_set = yaml.safe_load((ROOT / "manifests" / "node" / "daemon-set.yaml").read_text())
    spec = daemon_set["spec"]["template"]["spec"]
    assert not {"hostPID", "hostNetwork", "hostIPC"} & spec.keys()
    found: dict[str, Any] = spec["containers"][0]
    return found


def test_the_manifest_asks_for_no_more() -> None:
    context = container()["securityContext"]
    assert set(context["capabilities"]["add"]) == set(NUMBERS)
    assert context["capabilities"]["drop"] == ["ALL"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not context.get("privileged")


def work(capabilities: set[str], legacy: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Enter a pod and write its rules with these capabilities alone; `legacy`: a folder that hides iptables-nft."""
    pod, folder = made_pod(), Folder()
    try:
        numbers = ",".join(str(NUMBERS[name]) for name in sorted(capabilities))
        environment = {**os.environ, **({"PATH": str(legacy)} if legacy else {})}
        command = [sys.executable, "-c", _PROGRAM, str(folder.add(pod)), numbers]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    finally:
        folder.close()
        pod.close()


@pytest.fixture
def legacy(tmp_path: Path) -> Path:
    """A PATH on which iptables is iptables-legacy, as on nodes whose kernel has no nf_tables."""
    for name in ("iptables", "ip6tables"):
        for tool in ("save", "restore"):
            (tmp_path / f"{name}-{tool}").symlink_to(f"/usr/sbin/{name}-legacy-{tool}")
    return tmp_path


@pytest.mark.root
def test_these_capabilities_are_enough(legacy: Path) -> None:
    assert work(set(NUMBERS)).returncode == 0
    done = work(set(NUMBERS), legacy)
    assert done.returncode == 0, done.stderr


@pytest.mark.root
@pytest.mark.parametrize(("without", "said"), [("SYS_ADMIN", "cannot be made"), ("NET_ADMIN", "may not be written")])
def test_each_is_needed(without: str, said: str) -> None:
    done = work(set(NUMBERS) - {without})
    assert done.returncode == 1
    assert said in done.stderr


@pytest.mark.root
def test_iptables_legacy_needs_net_raw(legacy: Path) -> None:
    done = work(set(NUMBERS) - {"NET_RAW"}, legacy)
    assert done.returncode == 1
    assert "may not be written" in done.stderr
