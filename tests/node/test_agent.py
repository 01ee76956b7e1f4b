"""The node agent and gates in real network namespaces: who gets rules, and who gets none."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kube.source import Changed, Listed
from mesh.interception import Family, InterceptionSpec, arguments, missing
from node import agent as agent_module
from node.agent import Agent, Place
from node.enter import inside
from node.pods import POD, GatedPods
from node.schedule import Visit
from node.visit import Outcome, look
from tests.lanes import MACHINE
from tests.mesh.network import POD as POD_ADDRESS
from tests.mesh.network import POD6, Namespace, run
from tests.node.gates import RunningGate, made_pod
from tests.node.places import HOST_ADDRESS, NODE, Folder, pod_object

pytestmark = [pytest.mark.root, MACHINE]
LONG_ENOUGH = 6.0
"""Seconds that a gate waits which gets no rules: for an agent on a slow machine to have looked at it."""


class RunningAgent:
    """An agent whose view of the API server is what the test says."""

    def __init__(self, folder: Folder, excluded: frozenset[str] = frozenset()) -> None:
        self.pods = GatedPods(NODE, excluded)
        self.outcomes: list[Outcome] = []
        self.agent = Agent(Place(folder.path, HOST_ADDRESS), self.pods, self.outcomes.append, time.monotonic)
        self._thread = threading.Thread(target=self.agent.run, args=(lambda: True,))

    def knows(self, *objects: dict[str, Any]) -> RunningAgent:
        self.pods.on_event(Listed(POD, objects, 1))
        return self

    def start(self) -> RunningAgent:
        self._thread.start()
        return self

    def stop(self) -> None:
        self.agent.stop()
        if self._thread.ident:
            self._thread.join(30)

    def await_outcome(self, visit: Visit) -> Outcome:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            for outcome in tuple(self.outcomes):
                if outcome.visit is visit:
                    return outcome
            time.sleep(0.02)
        raise AssertionError(f"no visit ended so, but {self.outcomes}")


@pytest.fixture
def folder() -> Iterator[Folder]:
    made = Folder()
    yield made
    made.close()


@pytest.fixture
def pod() -> Iterator[Namespace]:
    namespace = made_pod()
    yield namespace
    namespace.close()


@pytest.fixture
def agents(folder: Folder) -> Iterator[Callable[..., RunningAgent]]:
    made: list[RunningAgent] = []

    def make(**options: Any) -> RunningAgent:
        made.append(RunningAgent(folder, **options))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def gates(pod: Namespace, tmp_path: Path) -> Iterator[Callable[..., RunningGate]]:
    started: list[RunningGate] = []

    def start(where: Namespace = pod, **options: Any) -> RunningGate:
        started.append(RunningGate(where, tmp_path, **options))
        return started[-1]

    yield start
    for gate in started:
        gate.stop()


def saved(pod: Namespace, program: str = "iptables") -> str:
    return run("nsenter", f"--net=/run/netns/{pod.name}", f"{program}-save", "-t", "nat")


def has_rules(pod: Namespace) -> bool:
    return "ISTIO" in saved(pod)


def namespace_of_this_thread() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


Agents = Callable[..., RunningAgent]
Gates = Callable[..., RunningGate]


def test_the_gate_waits_until_the_agent_comes(agents: Agents, gates: Gates, folder: Folder, pod: Namespace) -> None:
    spec = InterceptionSpec(exclude_inbound_ports=(22,), exclude_outbound_cidrs=("10.1.0.0/16",))
    gate = gates(spec=spec)
    gate.await_line("waiting for heddle-node")
    folder.add(pod)
    agents().knows(pod_object(spec)).start()
    assert gate.result() == 0
    assert missing(spec, Family.V4, saved(pod)) == ()
    assert missing(spec, Family.V6, saved(pod, "ip6tables")) == ()


def test_a_pod_that_comes_after_the_agent(agents: Agents, gates: Gates, folder: Folder, pod: Namespace) -> None:
    agent = agents().start()
    agent.pods.on_event(Changed(POD, pod_object(), deleted=False, resource_version=2))
    folder.add(pod)
    gate = gates()
    assert gate.result() == 0
    assert agent.await_outcome(Visit.WRITTEN).pod is not None
    assert agent.agent.not_ready() == ""


def test_the_options_are_those_of_the_api_server(agents: Agents, gates: Gates, folder: Folder, pod: Namespace) -> None:
    """What a process in the pod would like does not matter; what the pod was created with does."""
    real = InterceptionSpec(include_inbound_ports=(80,))
    folder.add(pod)
    gate = gates(spec=InterceptionSpec(include_inbound_ports=()))
    agents().knows(pod_object(real)).start()
    assert gate.result() == 0
    assert missing(real, Family.V4, saved(pod)) == ()


def test_two_agents_at_once(agents: Agents, gates: Gates, folder: Folder, pod: Namespace) -> None:
    folder.add(pod)
    both = [agents().knows(pod_object()).start() for _ in range(2)]
    assert gates().result() == 0
    assert missing(InterceptionSpec(), Family.V4, saved(pod)) == ()
    assert saved(pod).count("-A OUTPUT -p tcp -j ISTIO_OUTPUT") == 1
    for each in both:
        assert not [outcome for outcome in each.outcomes if outcome.visit is Visit.FAILED and not outcome.passing]


def test_an_agent_killed_between_the_ip_versions(agents: Agents, gates: Gates, folder: Folder, pod: Namespace) -> None:
    pod.heddle_init()
    run("nsenter", f"--net=/run/netns/{pod.name}", "ip6tables", "-t", "nat", "-F")
    run("nsenter", f"--net=/run/netns/{pod.name}", "ip6tables", "-t", "nat", "-X")
    folder.add(pod)
    gate = gates()
    gate.await_line("waiting")
    agents().knows(pod_object()).start()
    assert gate.result() == 0


def test_rules_that_are_there_are_not_for_a_process_to_change(
    agents: Agents, gates: Gates, folder: Folder, pod: Namespace
) -> None:
    standing = InterceptionSpec(include_inbound_ports=(80,))
    pod.heddle_init(*arguments(standing))
    run("nsenter", f"--net=/run/netns/{pod.name}", "iptables", "-t", "nat", "-D", "OUTPUT", "1")
    before = saved(pod)
    folder.add(pod)
    gate = gates(seconds=LONG_ENOUGH)
    agent = agents().knows(pod_object(InterceptionSpec())).start()
    assert "other interception rules here already" in agent.await_outcome(Visit.FAILED).error
    assert gate.result() == 1
    assert "heddle-node of node node-1 says: iptables has other interception rules" in gate.message.read_text()
    assert [line for line in saved(pod).splitlines() if line.startswith("-A")] == [
        line for line in before.splitlines() if line.startswith("-A")
    ]


def test_a_pod_that_nobody_knows(agents: Agents, gates: Gates, folder: Folder, pod: Namespace) -> None:
    folder.add(pod)
    agent = agents().knows(pod_object(uid="11111111-2222-3333-4444-555555555555")).start()
    gate = gates(seconds=LONG_ENOUGH)
    failed = agent.await_outcome(Visit.FAILED)
    assert failed.passing
    assert failed.pod is None
    assert gate.result() == 1
    assert not has_rules(pod)


def test_another_pods_name_does_not_help(agents: Agents, gates: Gates, folder: Folder, pod: Namespace) -> None:
    """A process that knows another pod's uid: the address gives it away."""
    folder.add(pod)
    victim = pod_object(status={"phase": "Pending", "podIPs": [{"ip": "10.99.0.250"}]})
    agent = agents().knows(victim).start()
    gate = gates(seconds=LONG_ENOUGH)
    assert "this is not the network namespace of pod default/reviews-v1-0" in agent.await_outcome(Visit.FAILED).error
    assert gate.result() == 1
    assert not has_rules(pod)


@pytest.mark.parametrize("address", [POD_ADDRESS, POD6])
def test_its_own_address_is_right(agents: Agents, gates: Gates, folder: Folder, pod: Namespace, address: str) -> None:
    folder.add(pod)
    agents().knows(pod_object(status={"podIPs": [{"ip": "10.0.0.9"}, {"ip": address}]})).start()
    assert gates().result() == 0


def test_a_gate_of_the_wrong_user_gets_nothing(agents: Agents, folder: Folder, pod: Namespace) -> None:
    """Any other container of a pod could listen there, too."""
    folder.add(pod)
    door = pod.inside(lambda: socket.create_server(("127.0.0.1", 15002)), uid=1000)
    with door:
        agent = agents().knows(pod_object()).start()
        with door.accept()[0] as connection:
            connection.sendall(b'{"namespace": "default", "name": "reviews-v1-0", "uid": "%s"}\n' % UID)
            failed = agent.await_outcome(Visit.FAILED)
    assert "listens where the gate should" in failed.error
    assert failed.pod is None
    assert not has_rules(pod)


UID = pod_object()["metadata"]["uid"].encode()


@pytest.mark.parametrize(
    "said", [b"", b"{}\n", b"x" * 100_000, b"\xff\n", b'{"namespace": "../..", "name": "a", "uid": "b"}\n', b"[" * 4000]
)
def test_nonsense_at_the_door(agents: Agents, folder: Folder, pod: Namespace, said: bytes) -> None:
    folder.add(pod)
    with pod.inside(lambda: socket.create_server(("127.0.0.1", 15002)), uid=1337) as door:
        agent = agents().knows(pod_object()).start()
        with door.accept()[0] as connection:
            try:
                connection.sendall(said)
                agent.await_outcome(Visit.FAILED)
            except ConnectionError:
                agent.await_outcome(Visit.FAILED)
    assert not has_rules(pod)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--inbound-ports=80; reboot"], "--inbound-ports: '80; reboot' is not a port"),
        (["--exclude-interfaces=eth0\n-A OUTPUT -j DROP"], "is not the name of a network interface"),
        (["--wait=forever"], "'--wait=forever' is not an argument"),
        (["-j", "ACCEPT"], "is not an argument"),
    ],
)
def test_arguments_of_a_pod_are_not_trusted(
    agents: Agents, gates: Gates, folder: Folder, pod: Namespace, words: list[str], said: str
) -> None:
    folder.add(pod)
    gate = gates(seconds=LONG_ENOUGH)
    agent = agents().knows(pod_object(words=words)).start()
    failed = agent.await_outcome(Visit.FAILED)
    assert failed.error.startswith("container istio-validation")
    assert said in failed.error
    assert failed.pod is not None
    assert not failed.passing
    assert gate.result() == 1
    assert not has_rules(pod)


def test_a_kernel_that_lacks_something(
    agents: Agents, gates: Gates, folder: Folder, pod: Namespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """iptables is not there at all: the only lack that can be made here. The agent is not ready, and says it to all."""
    folder.add(pod)
    gate = gates(seconds=LONG_ENOUGH)
    gate.await_line("waiting")
    monkeypatch.setenv("PATH", str(tmp_path))
    agent = agents().knows(pod_object()).start()
    failed = agent.await_outcome(Visit.FAILED)
    assert failed.pod is not None
    assert "iptables is not installed here" in failed.error
    assert "iptables is not installed here" in agent.agent.not_ready()
    assert gate.result() == 1
    assert "heddle-node of node node-1 says: iptables is not installed here" in gate.message.read_text()


def test_the_hosts_namespace_is_left_alone(folder: Folder, pod: Namespace) -> None:
    """A namespace that has the node's address, whatever listens in it, is that of the node."""
    pod.ip("addr", "add", f"{HOST_ADDRESS}/32", "dev", "lo")
    file = folder.add(pod)
    with pod.inside(lambda: socket.create_server(("127.0.0.1", 15002)), uid=1337):
        outcome = look(file, HOST_ADDRESS, lambda _pod: pytest.fail("asked"), lambda _spec: pytest.fail("written"))
    assert outcome.visit is Visit.FAILED
    assert "so it is the host's network" in outcome.error


def test_the_agents_own_namespace_is_left_alone(folder: Folder) -> None:
    file = folder.mount(Path("/proc/self/ns/net"), "cni-own")
    outcome = look(file, HOST_ADDRESS, lambda _pod: pytest.fail("asked"), lambda _spec: pytest.fail("written"))
    assert outcome.visit is Visit.NOBODY


@pytest.mark.parametrize("up", [False, True])
def test_a_namespace_that_is_still_empty_is_not_the_hosts(folder: Folder, up: bool) -> None:
    """The runtime makes it, then CNI gives it addresses; the kernel lets one bind any address until there is one."""
    empty = f"hddl-empty-{up}"
    run("ip", "netns", "add", empty)
    try:
        if up:
            run("ip", "-n", empty, "link", "set", "lo", "up")
        file = folder.mount(Path("/run/netns", empty), "cni-empty")
        outcome = look(file, HOST_ADDRESS, lambda _pod: pytest.fail("asked"), lambda _spec: pytest.fail("written"))
        assert outcome.visit is Visit.NOBODY
        assert outcome.error == ""
        folder.remove(file)
    finally:
        run("ip", "netns", "del", empty)


@pytest.mark.parametrize("kind", ["file", "link", "ipc", "gone"])
def test_what_is_no_network_namespace(folder: Folder, pod: Namespace, kind: str) -> None:
    file = folder.path / "entry"
    if kind == "file":
        file.touch()
    elif kind == "link":
        file.symlink_to(f"/run/netns/{pod.name}")
    elif kind == "ipc":
        file = folder.mount(Path("/proc/self/ns/ipc"), "entry")
    outcome = look(file, HOST_ADDRESS, lambda _pod: pytest.fail("asked"), lambda _spec: pytest.fail("written"))
    assert outcome.visit is Visit.NOBODY
    if file.is_symlink() or kind == "file":
        file.unlink()


def test_a_thread_comes_home(folder: Folder, pod: Namespace) -> None:
    file, home = folder.add(pod), namespace_of_this_thread()
    with inside(file, HOST_ADDRESS):
        assert namespace_of_this_thread() != home
    assert namespace_of_this_thread() == home
    with pytest.raises(ZeroDivisionError), inside(file, HOST_ADDRESS):
        raise ZeroDivisionError
    assert namespace_of_this_thread() == home


def test_a_lock_that_a_pod_holds_delays_only_that_pod(
    agents: Agents, gates: Gates, folder: Folder, pod: Namespace, tmp_path: Path
) -> None:
    """The namespace is a file for the pod's own processes, too."""
    import fcntl

    selfish = made_pod(v6=False)
    try:
        with folder.add(selfish).open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            folder.add(pod)
            agent = agents().knows(pod_object()).start()
            assert gates().result() == 0
            assert any("holds the lock" in each.error and each.passing for each in agent.outcomes)
    finally:
        selfish_file = folder.path / f"cni-{selfish.name}"
        folder.remove(selfish_file)
        selfish.close()


def test_many_pods_and_an_agent_that_is_replaced(agents: Agents, folder: Folder, tmp_path: Path) -> None:
    """Agents come and go while pods start; every gate passes, and none before its rules are there."""
    count = 6
    pods = [made_pod(v6=False) for _ in range(count)]
    objects = [pod_object(name=f"app-{number}") for number in range(count)]
    for number, each in enumerate(objects):
        each["metadata"]["uid"] = f"{number:08d}-0000-4000-8000-000000000000"
    gates: list[RunningGate] = []
    try:
        for number, namespace in enumerate(pods):
            folder.add(namespace)
            place = tmp_path / str(number)
            place.mkdir()
            gates.append(
                RunningGate(namespace, place, name=f"app-{number}", pod_uid=objects[number]["metadata"]["uid"])
            )
            agent = agents().knows(*objects).start()
            if number % 2:
                gates[number - 1].await_line("heddle-gate")
                agent.stop()
        agents().knows(*objects).start()
        for gate, namespace in zip(gates, pods, strict=True):
            assert gate.result() == 0, gate.log
            assert missing(InterceptionSpec(), Family.V4, saved(namespace)) == ()
    finally:
        for gate in gates:
            gate.stop()
        for namespace in pods:
            folder.remove(folder.path / f"cni-{namespace.name}")
            namespace.close()


def test_nothing_is_entered_when_no_pod_waits(agents: Agents, folder: Folder, pod: Namespace) -> None:
    folder.add(pod)
    with pod.inside(lambda: socket.create_server(("127.0.0.1", 15002)), uid=1337) as door:
        done = {"initContainerStatuses": [{"name": "istio-validation", "state": {"terminated": {"exitCode": 0}}}]}
        agents().knows(pod_object(status=done)).start()
        door.settimeout(1)
        with pytest.raises(TimeoutError):
            door.accept()


def test_a_namespace_that_is_excluded(agents: Agents, gates: Gates, folder: Folder, pod: Namespace) -> None:
    folder.add(pod)
    agents(excluded=frozenset({"default"})).knows(pod_object()).start()
    assert gates(seconds=1.5).result() == 1
    assert not has_rules(pod)


def test_rules_can_be_written_here(agents: Agents) -> None:
    """What an agent tries first, in a namespace of its own."""
    from node.enter import new_namespace

    home = namespace_of_this_thread()
    with new_namespace():
        agent_module.try_rules()
        assert namespace_of_this_thread() != home
    assert namespace_of_this_thread() == home


def test_the_folder_is_missing(folder: Folder) -> None:
    agent = Agent(Place(folder.path / "no", HOST_ADDRESS), GatedPods(NODE), lambda _outcome: None, time.monotonic)
    agent._unable = ""
    agent.sweep()
    assert "the network namespaces of the pods cannot be seen" in agent.not_ready()
