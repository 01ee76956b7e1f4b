"""heddle-init in a real network namespace."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.intercept import main
from mesh.interception import Family, InterceptionSpec, arguments, missing
from tests.lanes import MACHINE
from tests.mesh.network import Namespace, run

pytestmark = MACHINE

SPEC = InterceptionSpec(exclude_outbound_cidrs=("10.1.0.0/16", "fd00:1::/32"), exclude_inbound_ports=(22,))


@pytest.fixture
def pod() -> Iterator[Namespace]:
    namespace = Namespace()
    yield namespace
    namespace.close()


def saved(pod: Namespace, program: str = "iptables") -> str:
    return run("nsenter", f"--net=/run/netns/{pod.name}", f"{program}-save", "-t", "nat")


def rules_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("-A")]


@pytest.mark.root
def test_twice_is_once(pod: Namespace) -> None:
    pod.ip("addr", "add", "fd00::5/64", "dev", "lo", "nodad")
    assert pod.heddle_init(*arguments(SPEC)).returncode == 0
    once = rules_of(saved(pod)), rules_of(saved(pod, "ip6tables"))
    assert missing(SPEC, Family.V4, saved(pod)) == ()
    assert missing(SPEC, Family.V6, saved(pod, "ip6tables")) == ()
    assert pod.heddle_init(*arguments(SPEC)).returncode == 0
    assert (rules_of(saved(pod)), rules_of(saved(pod, "ip6tables"))) == once


@pytest.mark.root
def test_other_rules_replace_the_ones_before_and_leave_foreign_ones(pod: Namespace) -> None:
    netns = f"--net=/run/netns/{pod.name}"
    run("nsenter", netns, "iptables", "-t", "nat", "-A", "OUTPUT", "-p", "udp", "-j", "ACCEPT")
    pod.heddle_init(*arguments(SPEC))
    pod.heddle_init("--inbound-ports=80")
    assert missing(InterceptionSpec(include_inbound_ports=(80,)), Family.V4, saved(pod)) == ()
    assert pod.heddle_init("--clean").returncode == 0
    assert rules_of(saved(pod)) == ["-A OUTPUT -p udp -j ACCEPT"]
    assert "ISTIO" not in saved(pod)


@pytest.mark.root
def test_a_pod_without_ipv6(pod: Namespace) -> None:
    run("nsenter", f"--net=/run/netns/{pod.name}", "sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=1")
    done = pod.heddle_init()
    assert done.returncode == 0
    assert "no IPv6; nothing to do" in done.stderr


@pytest.mark.root
def test_the_backend_that_holds_our_chains_is_used_again(pod: Namespace, tmp_path: Path) -> None:
    for name in ("iptables", "ip6tables"):
        for tool in ("save", "restore"):
            (tmp_path / f"{name}-{tool}").symlink_to(f"/usr/sbin/{name}-legacy-{tool}")
            (tmp_path / f"{name}-legacy-{tool}").symlink_to(f"/usr/sbin/{name}-legacy-{tool}")
    assert pod.heddle_init(path=str(tmp_path)).returncode == 0
    assert rules_of(saved(pod, "iptables-legacy"))
    again = pod.heddle_init("--inbound-ports=81")
    assert "(iptables-legacy)" in again.stderr
    assert missing(InterceptionSpec(include_inbound_ports=(81,)), Family.V4, saved(pod, "iptables-legacy")) == ()
    assert rules_of(saved(pod, "iptables-nft")) == []


@pytest.mark.root
def test_asking_makes_no_legacy_tables(pod: Namespace) -> None:
    pod.heddle_init()
    assert run("nsenter", f"--net=/run/netns/{pod.name}", "cat", "/proc/net/ip_tables_names") == ""


@pytest.mark.root
def test_without_iptables(pod: Namespace, tmp_path: Path) -> None:
    done = pod.heddle_init(path=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == ("heddle-init: iptables is not installed here (use Heddle's image, or install iptables)\n")


@pytest.mark.root
def test_without_the_capabilities(pod: Namespace) -> None:
    # Another user may not be able to read the checkout, so the program is loaded before its rights go.
    code = "import os, sys; from agent.intercept import main; from local import linux; "
    code += "linux.limit_capabilities(frozenset()); os.setgroups([]); os.setresgid(1337, 1337, 1337); "
    code += "os.setresuid(1337, 1337, 1337); sys.exit(main([]))"
    command = ["nsenter", f"--net=/run/netns/{pod.name}", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "the rules may not be written" in done.stderr
    assert "enable node interception" in done.stderr
    assert rules_of(saved(pod)) == []


def test_wrong_arguments(caplog: pytest.LogCaptureFixture) -> None:
    assert main(["--inbound-ports=http"]) == 1
    assert "--inbound-ports: 'http' is not a port" in caplog.text


def test_it_starts_with_the_standard_library_alone() -> None:
    """An init container that imports half the world would delay every pod."""
    code = (
        "import sys, agent.intercept; print(*(m for m in ('pydantic', 'yaml', 'flask', 'orjson') if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=dict(os.environ),
    )
    assert done.stdout.strip() == ""
