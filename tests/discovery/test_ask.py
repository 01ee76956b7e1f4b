"""`python -m discovery.ask`, as `heddle status` runs it in discovery's own pod."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

from tests.discovery.harness import Agent, Cluster, DiscoveryProcess, small_mesh


def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "discovery.ask", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_who_may_open_the_socket_is_an_operator(tmp_path: Path) -> None:
    place = tmp_path / "operator.sock"
    place.write_text("left by a process that was killed")
    with Cluster() as cluster:
        cluster.reset(small_mesh())
        with DiscoveryProcess(cluster, tmp_path, "--operator-socket", str(place)) as discovery:
            assert stat.S_IMODE(place.stat().st_mode) == 0o600
            agent = Agent(discovery, "a-0", "10.244.0.1", account="a")
            agent.poll()
            done = ask("/v1/status", str(place))
            assert (done.returncode, done.stderr) == (0, "")
            status = json.loads(done.stdout)
            assert {(each["pod"], each["connected"]) for each in status["proxies"]} == {("a-0", True), ("b-0", False)}
            assert ask("/v1/plan/default/a-0", str(place)).returncode == 0
            absent = ask("/v1/plan/default/b-0", str(place))
            assert (absent.returncode, absent.stdout) == (1, "")
            assert absent.stderr.startswith("no proxy of the pod default/b-0 is connected here (")
            tally = ask("/v1/tally", str(place))
            assert (tally.returncode, "is not a replica of discovery" in tally.stderr) == (1, True)
            agent.close()
    gone = ask("/v1/status", str(place))
    assert (gone.returncode, gone.stderr.startswith(f"discovery does not answer on {place}: ")) == (1, True)
    assert ask("status").returncode == 2
