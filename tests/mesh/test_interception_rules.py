"""mesh/interception.py as a pure function."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import InvalidInput
from mesh.interception import (
    CHAINS,
    Family,
    InterceptionSpec,
    arguments,
    cleanup_text,
    jumps,
    missing,
    parse_arguments,
    parse_cidrs_or_all,
    parse_interfaces,
    parse_ports,
    parse_ports_or_all,
    restore_text,
    rules,
)

PORTS = st.lists(st.integers(1, 65535), unique=True, max_size=4).map(tuple)
V4 = st.builds(
    lambda a, p: str(ipaddress.ip_network((a, p), strict=False)), st.integers(0, 2**32 - 1), st.integers(0, 32)
)
V6 = st.builds(
    lambda a, p: str(ipaddress.ip_network((a, p), strict=False)), st.integers(2**32, 2**128 - 1), st.integers(0, 96)
)
CIDRS = st.lists(V4 | V6, unique=True, max_size=4).map(tuple)
NAMES = st.lists(st.from_regex(r"[a-z][a-z0-9]{0,10}\+?", fullmatch=True), unique=True, max_size=2).map(tuple)
SPECS = st.builds(
    InterceptionSpec,
    include_inbound_ports=st.none() | PORTS,
    exclude_inbound_ports=PORTS,
    include_outbound_cidrs=st.none() | CIDRS,
    exclude_outbound_cidrs=CIDRS,
    include_outbound_ports=PORTS,
    exclude_outbound_ports=PORTS,
    exclude_interfaces=NAMES,
    virtual_interfaces=NAMES,
    proxy_uid=st.integers(1, 2**31),
    proxy_gid=st.integers(1, 2**31),
    outbound_port=st.integers(1, 65535),
    inbound_port=st.integers(1, 65535),
)


@given(SPECS)
def test_arguments_are_read_back(spec: InterceptionSpec) -> None:
    assert parse_arguments(arguments(spec)) == spec


@given(SPECS, st.sampled_from(Family))
def test_what_is_written_is_what_is_expected(spec: InterceptionSpec, family: Family) -> None:
    text = restore_text(spec, family)
    assert missing(spec, family, text) == ()
    assert text.startswith("*nat\n")
    assert text.endswith("COMMIT\n")
    again = restore_text(spec, family, text)
    assert [line for line in again.splitlines() if line.startswith("-D ")] == [j.replace("-A", "-D") for j in jumps()]


@given(SPECS, st.sampled_from(Family), st.data())
def test_a_missing_rule_or_one_too_many_is_noticed(spec: InterceptionSpec, family: Family, data: st.DataObject) -> None:
    lines = restore_text(spec, family).splitlines()
    index = data.draw(st.sampled_from([i for i, line in enumerate(lines) if line.startswith("-A ")]))
    assert missing(spec, family, "\n".join(lines[:index] + lines[index + 1 :]))
    assert missing(spec, family, "\n".join([*lines[:index], "-A ISTIO_OUTPUT -j RETURN", *lines[index:]]))


@given(SPECS)
def test_each_family_gets_its_own_addresses_only(spec: InterceptionSpec) -> None:
    assert not any(":" in rule for rule in rules(spec, Family.V4))
    assert not any("." in word and "/" in word for rule in rules(spec, Family.V6) for word in rule.split())


def test_the_rules_of_an_ordinary_pod() -> None:
    assert rules(InterceptionSpec(), Family.V4) == (
        "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
        "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006",
        "-A ISTIO_INBOUND -p tcp -m tcp --dport 15020 -j RETURN",
        "-A ISTIO_INBOUND -p tcp -m tcp --dport 15021 -j RETURN",
        "-A ISTIO_INBOUND -p tcp -m tcp --dport 15090 -j RETURN",
        "-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT",
        "-A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN",
        "-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT",
        "-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN",
        "-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN",
        "-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT",
        "-A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN",
        "-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN",
        "-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN",
        "-A ISTIO_OUTPUT -p tcp -j ISTIO_REDIRECT",
    )


def test_another_version_of_iptables_may_print_options_in_another_order() -> None:
    text = restore_text(InterceptionSpec(), Family.V4).replace(
        "-s 127.0.0.6/32 -o lo -j RETURN", "-o lo -s 127.0.0.6/32 -j RETURN"
    )
    assert missing(InterceptionSpec(), Family.V4, text) == ()
    assert missing(InterceptionSpec(), Family.V4, text.replace("! --uid-owner", "--uid-owner"))


def test_cleaning_takes_away_only_our_own() -> None:
    saved = restore_text(InterceptionSpec(), Family.V4) + "-A OUTPUT -j DOCKER\n"
    text = cleanup_text(saved)
    assert "DOCKER" not in text
    assert [line for line in text.splitlines() if line.startswith("-X")] == [f"-X {chain}" for chain in CHAINS]
    assert cleanup_text("*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n") == ""


def test_values() -> None:
    assert parse_ports_or_all(" * ") is None
    assert parse_ports_or_all("") == ()
    assert parse_ports("80, 443,80") == (80, 443)
    assert parse_cidrs_or_all("10.1.2.3/8,::1,1.2.3.4") == ("10.0.0.0/8", "::1/128", "1.2.3.4/32")
    assert parse_interfaces("eth1,veth+") == ("eth1", "veth+")


@pytest.mark.parametrize("text", ["0", "65536", "-1", "80-90", "٣", "1" * 30, "a"])
def test_no_port(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a port"):
        parse_ports(text)


@pytest.mark.parametrize("text", ["10.0.0.0/33", "name", "10.0.0"])
def test_no_cidr(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a CIDR"):
        parse_cidrs_or_all(text)


@pytest.mark.parametrize("text", ["a b", "-j", "!eth0", "x" * 16, "a/b", "a'b"])
def test_no_interface(text: str) -> None:
    with pytest.raises(InvalidInput, match="network interface"):
        parse_interfaces(text)


@pytest.mark.parametrize("word", ["--frob=1", "inbound-ports", "--proxy-uid=0", "--proxy-uid=x", "--inbound-port="])
def test_arguments_that_are_none(word: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_arguments([word])
    assert word.partition("=")[0] in str(caught.value)
