"""Writing rules where iptables does not do what it should, with its real words."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.errors import Conflict, MissingPrerequisite
from mesh.interception import Family, InterceptionSpec, restore_text
from netfilter.rules import Answer, Machine, clean, intercept, ipv6_addresses, routable, run_program

SPEC = InterceptionSpec()


def world(save: Answer, restore: Answer) -> Machine:
    """A machine on which iptables always says the same."""

    def answer(command: list[str], _text: str) -> Answer:
        return restore if command[0].endswith("-restore") else save

    return Machine(answer, lambda _family: [], list, lambda: None)


OK = Answer(0, "", "")


# What iptables 1.8 says, in its two backends, when the kernel lacks something.
@pytest.mark.parametrize(
    "words",
    [
        "iptables-restore v1.8.9 (legacy): iptables-restore: unable to initialize table 'nat'\nError occurred at "
        "line: 1\nTry `iptables-restore -h' or 'iptables-restore --help' for more information. "
        "can't initialize iptables table `nat': Table does not exist (do you need to insmod?)",
        "iptables-restore v1.8.9 (nf_tables): \nline 6: RULE_APPEND failed (No such file or directory): rule in chain "
        "ISTIO_REDIRECT",
        "Warning: Extension REDIRECT revision 0 not supported, missing kernel module?\niptables-restore: line 5 failed",
        "iptables-restore: line 27 failed: No chain/target/match by that name.",
    ],
)
def test_without_the_modules(words: str) -> None:
    with pytest.raises(MissingPrerequisite) as caught:
        intercept(SPEC, world(OK, Answer(1, "", words)))
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "the kernel lacks a module" in sentence
    assert "modprobe -a xt_REDIRECT xt_owner" in sentence
    assert "or enable node interception" in sentence


def test_another_complaint_is_passed_on() -> None:
    with pytest.raises(MissingPrerequisite, match="the rules were not accepted: iptables says: line 3 failed"):
        intercept(SPEC, world(OK, Answer(2, "", "line 3 failed\n")))


def test_success_is_not_believed() -> None:
    with pytest.raises(MissingPrerequisite, match=r"reports success, but \d+ rules are not in force, the first: -A"):
        intercept(SPEC, world(OK, OK))


def test_ipv6_rules_are_needed_where_there_is_ipv6() -> None:
    machine = Machine(run_program_of_v4, lambda _f: [], lambda: ["fd000000000000000000000000000005"], lambda: None)
    with pytest.raises(MissingPrerequisite, match="ip6tables"):
        intercept(InterceptionSpec(), machine)


def run_program_of_v4(command: list[str], text: str) -> Answer:
    """iptables that remembers, and ip6tables of a kernel without the module."""
    if command[0].startswith("ip6"):
        return Answer(3, "", "ip6tables: can't initialize ip6tables table `nat': Table does not exist")
    if command[0].endswith("-restore"):
        run_program_of_v4.text = text  # type: ignore[attr-defined]
    return Answer(0, getattr(run_program_of_v4, "text", ""), "")


def test_nothing_to_clean() -> None:
    clean(world(OK, Answer(1, "", "must not be called")))


def test_a_program_that_is_not_there() -> None:
    assert run_program(["no-such-program"], "") == Answer(127, "", "no-such-program is not installed")


def test_no_kernel_support_for_ipv6(tmp_path: Path) -> None:
    assert ipv6_addresses(tmp_path / "if_inet6") == []


def test_routable_addresses() -> None:
    own, passthrough = "0" * 31 + "1", "0" * 31 + "6"
    link_local, global_ = "fe80" + "0" * 27 + "5", "fd00" + "0" * 27 + "5"
    assert routable([own, passthrough, link_local, global_]) == [global_]


def holding(text: str) -> Machine:
    """A pod without IPv6 in which iptables-save says `text`, and nothing may be written."""

    def answer(command: list[str], _text: str) -> Answer:
        assert not command[0].endswith("-restore"), "rules were written"
        return Answer(0, text, "")

    return Machine(answer, lambda _family: [], list, lambda: None)


def test_rules_that_are_there_are_left_as_they_are() -> None:
    spec = InterceptionSpec(include_inbound_ports=(80,))
    saved = restore_text(spec, Family.V4)
    intercept(spec, holding(saved), replace=False)
    with pytest.raises(Conflict, match="delete the pod"):
        intercept(InterceptionSpec(), holding(saved), replace=False)
