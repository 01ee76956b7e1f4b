"""Starting pods of the embedded engine: `python tests/bench/bench_pods.py [--pods N]`.

Prints, from one run in one sandbox: CPU and time of starting a container by the launcher; beside it the same program by
util-linux's nsenter, unshare and setpriv (which give it no root of its own), and the bare program; then the time from
asking for N pods until all are ready, and until all have gone.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from local import rootfs, sandbox
from local.container import Program, first_process, launch
from local.security import security
from tests.local.scene import Scene, server

ROUNDS = 30


def measure(name: str, start: Callable[[], None]) -> None:
    """Milliseconds of wall clock and CPU (of children) a start, over some rounds."""
    start()
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    for _ in range(ROUNDS):
        start()
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{name:<52} {wall / ROUNDS * 1000:7.1f} ms {cpu / ROUNDS * 1000:7.1f} ms CPU", flush=True)


def inside(folder: Path, pods: int) -> None:
    """In the sandbox."""
    scene = Scene(folder)
    network = scene.network.attach("bench")
    root = rootfs.plan(*rootfs.survey([Path(sys.prefix), Path(sys.base_prefix)]))
    who = security({"spec": {}}, {"name": "c", "securityContext": {"runAsUser": 1337}}, 0, "c")
    program = Program(["true"], {"PATH": os.environ["PATH"]}, "/", who)
    order = first_process(
        program,
        network=network,
        hostname="bench",
        sysctls={},
        root=root,
        scratch="/run/heddle/scratch",
        files={},
        mounts=[],
    )
    chain = [
        *("nsenter", f"--net={network.net}", f"--uts={network.uts}", f"--ipc={network.ipc}"),
        *("unshare", "--pid", "--fork", "--mount-proc"),
        *("setpriv", "--reuid=1337", "--regid=0", "--clear-groups", "--bounding-set=-all", "true"),
    ]
    with open("/dev/null", "r+b") as null:
        number = null.fileno()
        measure("launcher: namespaces, own root, rights", lambda: _reap(launch(order, number, number, number)))
    measure("nsenter + unshare + setpriv: the machine's root", lambda: subprocess.run(chain, check=True) and None)
    measure("the bare program", lambda: subprocess.run(["true"], check=True) and None)
    names = [f"web-{number}" for number in range(pods)]
    began = time.perf_counter()
    for name in names:
        scene.run(name, server())
    for name in names:
        scene.until_ready(name)
    print(f"{pods} pods asked for -> all ready {(time.perf_counter() - began) * 1000:26.0f} ms")
    began = time.perf_counter()
    scene.kubelet.close(grace=5.0)
    print(f"{pods} pods stopped in order -> all gone {(time.perf_counter() - began) * 1000:22.0f} ms")


def _reap(pid: int) -> None:
    os.waitpid(pid, 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=12)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        inside(Path(options.inside), options.pods)
        return 0
    with tempfile.TemporaryDirectory(prefix="heddle-bench-") as folder:
        Path(folder).chmod(0o755)
        argv = [sys.executable, __file__, "--pods", str(options.pods), "--inside", folder]
        return sandbox.start(argv, Path(folder)).wait()


if __name__ == "__main__":
    sys.exit(main())
