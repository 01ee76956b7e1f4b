"""The rules in the kernel: where connections really end, in two network namespaces. `pod` is Envoy's and the app's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mesh.interception import InterceptionSpec, arguments
from tests.lanes import MACHINE
from tests.mesh.network import OUTSIDE, OUTSIDE6, POD, POD6, SERVICE, Network

pytestmark = [pytest.mark.root, MACHINE]

ENVOY = {"uid": 1337, "gid": 1337}


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    made = Network()
    yield made
    made.close()


def intercept(network: Network, spec: InterceptionSpec) -> None:
    done = network.pod.heddle_init(*arguments(spec))
    assert done.returncode == 0, done.stderr


def test_without_rules_nothing_is_redirected(network: Network) -> None:
    network.pod.heddle_init("--clean")
    assert network.outside.ask(POD, 8080) == "app"
    assert network.pod.ask(OUTSIDE, 80) == "outside"


@pytest.mark.parametrize(("pod", "outside"), [(POD, OUTSIDE), (POD6, OUTSIDE6)])
def test_both_ways_through_the_proxy(network: Network, pod: str, outside: str) -> None:
    intercept(network, InterceptionSpec())
    assert network.outside.ask(pod, 8080) == "inbound"
    assert network.outside.ask(pod, 7) == "inbound"
    assert network.pod.ask(outside, 80) == "outbound"
    assert network.pod.ask(outside, 80, uid=1000, gid=1000) == "outbound"


def test_every_address_by_its_network(network: Network) -> None:
    """iptables does not print 0.0.0.0/0 and ::/0; the rules are in force all the same."""
    intercept(network, InterceptionSpec(include_outbound_cidrs=("0.0.0.0/0", "::/0")))
    assert network.pod.ask(OUTSIDE, 80) == "outbound"
    assert network.pod.ask(OUTSIDE6, 80) == "outbound"
    intercept(network, InterceptionSpec(exclude_outbound_cidrs=("0.0.0.0/0", "::/0")))
    assert network.pod.ask(OUTSIDE, 80) == "outside"


@pytest.mark.parametrize("outside", [OUTSIDE, OUTSIDE6])
def test_what_envoy_sends_goes_out(network: Network, outside: str) -> None:
    intercept(network, InterceptionSpec())
    assert network.pod.ask(outside, 80, **ENVOY) == "outside"
    assert network.pod.ask(outside, 80, uid=1337) == "outside"
    assert network.pod.ask(outside, 80, gid=1337) == "outside"


def test_the_agents_ports_are_its_own(network: Network) -> None:
    intercept(network, InterceptionSpec())
    assert network.outside.ask(POD, 15020) == "agent"
    assert network.outside.ask(POD, 15021) == "refused"
    assert network.outside.ask(POD, 15090) == "refused"


@pytest.mark.parametrize(("pod", "loopback", "mark"), [(POD, "127.0.0.1", "127.0.0.6"), (POD6, "::1", "::6")])
def test_a_pod_that_calls_itself(network: Network, pod: str, loopback: str, mark: str) -> None:
    intercept(network, InterceptionSpec())
    # the app, by its own addresses: not the mesh's business
    assert network.pod.ask(loopback, 8080) == "app"
    assert network.pod.ask(pod, 8080) == "app"
    # Envoy, when the endpoint that it chose is this pod: in by the front door
    assert network.pod.ask(pod, 8080, **ENVOY) == "inbound"
    # Envoy (and the agent's probes), handing on what came in
    assert network.pod.ask(pod, 8080, source=mark, **ENVOY) == "app"
    assert network.pod.ask(loopback, 8080, **ENVOY) == "app"


def test_the_app_calls_its_own_service(network: Network) -> None:
    intercept(network, InterceptionSpec())
    assert network.pod.ask(SERVICE, 8080) == "outbound"


def test_inbound_ports(network: Network) -> None:
    intercept(network, InterceptionSpec(exclude_inbound_ports=(9090,)))
    assert network.outside.ask(POD, 9090) == "app"
    assert network.outside.ask(POD, 8080) == "inbound"
    intercept(network, InterceptionSpec(include_inbound_ports=(9090,)))
    assert network.outside.ask(POD, 9090) == "inbound"
    assert network.outside.ask(POD, 8080) == "app"
    intercept(network, InterceptionSpec(include_inbound_ports=()))
    assert network.outside.ask(POD, 9090) == "app"


def test_outbound_ports(network: Network) -> None:
    intercept(network, InterceptionSpec(exclude_outbound_ports=(81,)))
    assert network.pod.ask(OUTSIDE, 81) == "outside"
    assert network.pod.ask(OUTSIDE, 80) == "outbound"
    intercept(network, InterceptionSpec(include_outbound_cidrs=(), include_outbound_ports=(81,)))
    assert network.pod.ask(OUTSIDE, 81) == "outbound"
    assert network.pod.ask(OUTSIDE, 80) == "outside"


def test_outbound_addresses(network: Network) -> None:
    intercept(network, InterceptionSpec(exclude_outbound_cidrs=("10.99.0.0/16", "fd00:99::/64")))
    assert network.pod.ask(OUTSIDE, 80) == "outside"
    assert network.pod.ask(OUTSIDE6, 80) == "outside"
    assert network.pod.ask(SERVICE, 80) == "outbound"
    intercept(network, InterceptionSpec(include_outbound_cidrs=("10.98.0.0/16",)))
    assert network.pod.ask(OUTSIDE, 80) == "outside"
    assert network.pod.ask(OUTSIDE6, 80) == "outside"
    assert network.pod.ask(SERVICE, 80) == "outbound"


def test_interfaces(network: Network) -> None:
    intercept(network, InterceptionSpec(exclude_interfaces=("eth0",)))
    assert network.outside.ask(POD, 8080) == "app"
    assert network.pod.ask(OUTSIDE, 80) == "outside"


def test_what_comes_from_a_virtual_machine_is_outbound(network: Network) -> None:
    intercept(network, InterceptionSpec(virtual_interfaces=("eth0",)))
    assert network.outside.ask(POD, 8080) == "outbound"
    assert network.outside.ask(POD6, 8080) == "outbound"
    intercept(network, InterceptionSpec(virtual_interfaces=("eth0",), exclude_outbound_ports=(8080,)))
    assert network.outside.ask(POD, 8080) == "app"


def test_udp_and_so_dns_is_left_alone(network: Network) -> None:
    import socket

    intercept(network, InterceptionSpec())

    def bind() -> socket.socket:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind((OUTSIDE, 53))
        server.settimeout(60)
        return server

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"query", (OUTSIDE, 53))

    with network.outside.inside(bind) as server:
        network.pod.inside(send)
        assert server.recv(100) == b"query"
