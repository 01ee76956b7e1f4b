"""The gate in a real network namespace: no rules, no start; and only the right rules are rules."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mesh.interception import InterceptionSpec, arguments
from tests.lanes import MACHINE
from tests.mesh.network import Namespace, run
from tests.node.gates import POD_UID, ROOT, RunningGate, made_pod

pytestmark = [pytest.mark.root, MACHINE]

Start = Callable[..., RunningGate]


@pytest.fixture
def pod() -> Iterator[Namespace]:
    namespace = made_pod()
    yield namespace
    namespace.close()


@pytest.fixture
def start(pod: Namespace, tmp_path: Path) -> Iterator[Start]:
    started: list[RunningGate] = []

    def begin(*arguments: object, **options: object) -> RunningGate:
        started.append(RunningGate(pod, tmp_path, *arguments, **options))  # type: ignore[arg-type]
        return started[-1]

    yield begin
    for gate in started:
        gate.stop()


def iptables(pod: Namespace, *words: str, program: str = "iptables") -> None:
    run("nsenter", f"--net=/run/netns/{pod.name}", program, "-t", "nat", *words)


def test_without_rules_the_pod_does_not_start(start: Start) -> None:
    gate = start(seconds=1)
    assert gate.result() == 1
    message = gate.message.read_text()
    assert message.startswith("the pod does not start after 1 s, it is not intercepted: IPv4 (")
    assert "IPv6 (" in message
    assert "heddle-node of node node-1 has not come" in message
    assert "kubectl get pods -A -l app=heddle-node" in message
    assert message in gate.log
    assert "still waiting" in gate.log


def test_it_waits_for_the_rules_and_then_lets_the_pod_start(start: Start, pod: Namespace) -> None:
    gate = start()
    gate.await_line("waiting for heddle-node")
    assert pod.heddle_init().returncode == 0
    assert gate.result() == 0
    assert "go through the proxy: IPv4, IPv6" in gate.log
    assert gate.message.read_text() == ""


def test_rules_that_are_there_already_are_enough(start: Start, pod: Namespace) -> None:
    pod.heddle_init()
    gate = start()
    assert gate.result() == 0
    assert "waiting" not in gate.log


def test_ipv4_alone_is_not_enough_where_there_is_ipv6(start: Start, pod: Namespace) -> None:
    pod.heddle_init()
    run("nsenter", f"--net=/run/netns/{pod.name}", "ip6tables", "-t", "nat", "-F")
    gate = start(seconds=1)
    assert gate.result() == 1
    assert "not intercepted: IPv6 (" in gate.message.read_text()
    assert "; intercepted: IPv4." in gate.message.read_text()


def test_a_pod_without_ipv6_needs_ipv4_alone(tmp_path: Path) -> None:
    pod = made_pod(v6=False)
    try:
        pod.heddle_init()
        gate = RunningGate(pod, tmp_path)
        assert gate.result() == 0
        assert "go through the proxy: IPv4" in gate.log
        assert "IPv6" not in gate.log
    finally:
        pod.close()


@pytest.mark.parametrize(
    "rule",
    [
        "OUTPUT -p tcp -j REDIRECT --to-ports 15001",  # to another port
        "OUTPUT -p tcp -m owner --uid-owner 1000 -j REDIRECT --to-ports 15006",  # of another user
        "OUTPUT -p tcp -d 127.0.0.1 -j REDIRECT --to-ports 15006",  # of other addresses
        "PREROUTING -p tcp -j REDIRECT --to-ports 15006",  # the other way
    ],
)
def test_other_rules_are_no_interception(start: Start, pod: Namespace, rule: str) -> None:
    iptables(pod, "-A", *rule.split())
    iptables(pod, "-A", *rule.replace("127.0.0.1", "::1").split(), program="ip6tables")
    assert start(seconds=1).result() == 1


def test_a_server_in_the_way_is_no_interception(start: Start, pod: Namespace) -> None:
    """Something answers at the probed address itself: the connection succeeds, and proves nothing."""
    pod.heddle_init()
    run("nsenter", f"--net=/run/netns/{pod.name}", "ip6tables", "-t", "nat", "-F")
    listener = pod.inside(lambda: socket.create_server(("::", 15002), family=socket.AF_INET6, dualstack_ipv6=False))
    with listener:
        gate = start(seconds=1)
        assert gate.result() == 1
        assert "not intercepted: IPv6 (" in gate.message.read_text()
        assert "answered by something else" in gate.message.read_text()


def test_rules_of_every_option_are_proven(start: Start, pod: Namespace) -> None:
    spec = InterceptionSpec(
        include_inbound_ports=(),
        include_outbound_cidrs=(),
        exclude_outbound_cidrs=("0.0.0.0/0", "::/0"),
        exclude_outbound_ports=(15002, 15003),
        exclude_interfaces=("eth0",),
    )
    pod.heddle_init(*arguments(spec))
    assert start(spec).result() == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--inbound-ports=http"], "--inbound-ports: 'http' is not a port"),
        (["--exclude-interfaces=l+"], "loopback interface is excluded"),
        (["--proxy-uid=1000"], "the gate runs as user 1337, and the proxy of this pod as 1000"),
    ],
)
def test_what_cannot_be_proven_fails_at_once(start: Start, words: list[str], said: str) -> None:
    gate = start(words=words)
    assert gate.result() == 1
    assert said in gate.message.read_text()


def test_another_user_cannot_pass(start: Start, pod: Namespace) -> None:
    pod.heddle_init()
    gate = start(uid=1000)
    assert gate.result() == 1
    assert "the gate runs as user 1000" in gate.message.read_text()


def test_a_taken_port_is_named(start: Start, pod: Namespace) -> None:
    with pod.inside(lambda: socket.create_server(("127.0.0.1", 15006))):
        gate = start()
        assert gate.result() == 1
    assert "127.0.0.1 port 15006 is not free for the gate" in gate.message.read_text()


def test_what_it_tells_and_what_it_is_told(start: Start, pod: Namespace) -> None:
    gate = start(InterceptionSpec(exclude_inbound_ports=(22,)), seconds=2)
    gate.await_line("waiting")
    agent = pod.inside(lambda: socket.create_connection(("127.0.0.1", 15002), timeout=60))
    with agent, agent.makefile("rb") as lines:
        claim = json.loads(lines.readline())
        agent.sendall(b'{"error": "the kernel lacks xt_owner"}\n')
    assert claim == {"namespace": "default", "name": "reviews-v1-0", "uid": POD_UID}
    assert gate.result() == 1
    assert gate.message.read_text().endswith("heddle-node of node node-1 says: the kernel lacks xt_owner")


def test_it_is_not_talked_into_anything(start: Start, pod: Namespace) -> None:
    """Whoever comes may say what they like: without the rules there is no start."""
    gate = start(seconds=3)
    gate.await_line("waiting")
    for said in (b'{"written": true}\n', b"\xff\xfe\n", b"[" * 70_000, b"", b'{"error": 5}\n', b"\n" * 10):
        with pod.inside(lambda: socket.create_connection(("127.0.0.1", 15002), timeout=60)) as agent:
            agent.sendall(said)
            agent.recv(1)
    idle = [pod.inside(lambda: socket.create_connection(("127.0.0.1", 15002), timeout=60)) for _ in range(20)]
    assert gate.result() == 1
    assert "Traceback" not in gate.log
    for each in idle:
        each.close()


def test_a_pod_that_is_deleted_meanwhile(start: Start) -> None:
    gate = start()
    gate.await_line("waiting")
    os.kill(gate.process.pid, signal.SIGTERM)
    assert gate.result() == 143


def test_it_starts_with_the_standard_library_alone() -> None:
    code = "import sys, node.gate; print(*(m for m in ('pydantic', 'yaml', 'flask', 'orjson') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == ""
