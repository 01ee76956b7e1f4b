"""Memory and time of the agent beside Envoy, in one run with the alternatives.

    python tests/bench/bench_agent_memory.py [clusters ...]      (default: 5 200 1000)

Private is Private_Clean + Private_Dirty of /proc/<pid>/smaps_rollup. Two agents run, as on a node, so that pages of the
interpreter that they share count for neither; "alone" is the same with those pages added.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.agent.control_plane import DiscoveryService
from tests.agent.sidecar import App, Sidecar, cluster, endpoints, listener, route, sidecar, virtual_host
from tests.support.ports import free_port

ALL = ("clusters", "endpoints", "listeners", "routes", "virtualHosts")
CHANGES = 60
APART = 0.15  # seconds between two changes: Envoy polls for routes again after 0.1 at most
TICK = os.sysconf("SC_CLK_TCK")
IMPORTS = {
    "a bare interpreter": "",
    "what the agent imports": "import agent.run",
    "and cryptography, had it stayed in the agent": "import agent.run, svid.keeper",
    "and pydantic": "import agent.run, svid.keeper, pydantic",
}


def memory(pid: int) -> dict[str, float]:
    """Megabytes: rss, private, and private as it would be with no second agent to share pages with."""
    kilobytes: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split()[:2]
        kilobytes[name.rstrip(":")] = int(value)
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return {"rss": kilobytes["Rss"] / 1024, "private": private / 1024}


def cpu(pid: int) -> float:
    """Seconds of CPU that `pid` has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def imports() -> None:
    print("imports, alone on the machine (MB private)")
    for what, code in IMPORTS.items():
        command = [sys.executable, "-c", f"{code}\nimport sys\nprint(flush=True)\nsys.stdin.read()"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            print(f"  {memory(process.pid)['private']:6.1f}  {what}")
            process.communicate()


def load(discovery: DiscoveryService, count: int, app: App, port: int) -> None:
    names = [f"outbound|80||s{i}.default.svc.cluster.local" for i in range(count)]
    discovery.put(
        *(cluster(name) for name in names),
        *(endpoints(name, *[app.port] * 1) for name in names),
        *(virtual_host("80", f"s{i}", names[i], f"s{i}.default.svc.cluster.local") for i in range(count)),
        virtual_host("80", "any", names[0]),
        listener("l", port, "80"),
        route("80"),
    )


def running(count: int, app: App) -> None:
    with (
        tempfile.TemporaryDirectory() as first,
        tempfile.TemporaryDirectory() as second,
        sidecar(Path(first)) as (made, _, discovery),
        sidecar(Path(second)) as (other, _, other_discovery),
    ):
        load(discovery, count, app, free_port())
        other_discovery.put(cluster("a"), endpoints("a", app.port))
        other.start()
        began = time.monotonic()
        made.start()
        made.await_ready()
        discovery.await_applied(*ALL, timeout=120)
        ready = time.monotonic() - began
        assert made.process is not None
        pid, envoy = made.process.pid, made.status()["envoy"]["pid"]
        time.sleep(2)  # the configuration is written to disk after a second
        print(f"\n{count} clusters, each with its endpoint subscription and its virtual host")
        print(f"  {ready:6.2f}  s from start to applied whole; agent {cpu(pid):.2f} s CPU, Envoy {cpu(envoy):.2f} s")
        show("agent", pid)
        show("Envoy", envoy)
        changes(made, discovery, pid, count)
        show("agent, after the changes", pid)


def show(what: str, pid: int) -> None:
    found = memory(pid)
    print(f"  {found['private']:6.1f}  MB private, {found['rss']:.1f} resident: {what}")


def changes(made: Sidecar, discovery: DiscoveryService, pid: int, count: int) -> None:
    """One virtual host written again and again, each time until discovery hears that Envoy has it."""
    took = []
    before = cpu(pid)
    for i in range(CHANGES):
        began = time.perf_counter()
        target = f"outbound|80||s{i % count}.default.svc.cluster.local"
        discovery.put(virtual_host("80", "any", target))
        while discovery.applied["virtualHosts"]["sequence"] != discovery.sequence or discovery._difference()["changed"]:
            time.sleep(0.0005)
        took.append(time.perf_counter() - began)
        time.sleep(APART)
    spent = (cpu(pid) - before) / CHANGES
    took.sort()
    middle, worst = took[len(took) // 2] * 1000, took[int(len(took) * 0.99)] * 1000
    print(f"  {middle:6.1f}  ms (p50), {worst:.1f} (p99) from a virtual host's change to Envoy's acknowledgement heard")
    print(f"  {spent * 1000:6.1f}  ms CPU of the agent each")


def main() -> None:
    imports()
    app = App("one")
    for count in [int(text) for text in sys.argv[1:]] or [5, 200, 1000]:
        running(count, app)
    app.stop()


if __name__ == "__main__":
    main()
