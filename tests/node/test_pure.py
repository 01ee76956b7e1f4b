"""The pure decisions of gate and node agent: what is said, which pods, when to look, what proves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube.events import LONGEST_NOTE
from kube.source import Changed, Listed, Progress
from mesh.errors import Forbidden, InvalidInput, Unavailable
from mesh.interception import Family, InterceptionSpec
from node.claim import LONGEST_SENTENCE, PodName, claim_line, parse_claim, parse_reply, reply_line
from node.events import Failure, event
from node.pods import POD, GatedPods, gated
from node.proof import check_user, probes, what_is_missing
from node.schedule import LONGEST, LONGEST_PENALTY, NEW_INTERVAL, Schedule, Visit, interval
from node.visit import check_owner
from tests.node.places import NODE, pod_object

LABEL = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
UID = st.uuids().map(str)
PODS = st.builds(PodName, LABEL, LABEL, UID)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class TestClaim:
    @given(PODS)
    def test_there_and_back(self, pod: PodName) -> None:
        assert parse_claim(claim_line(pod)) == pod

    @given(st.text())
    def test_errors_there_and_back(self, error: str) -> None:
        assert parse_reply(reply_line(error)) == " ".join(error[:LONGEST_SENTENCE].split()) or not error.strip()

    @given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
    def test_anything_is_a_pod_or_an_error(self, line: bytes) -> None:
        for parse in (parse_claim, parse_reply):
            try:
                parse(line)
            except InvalidInput:
                continue

    @pytest.mark.parametrize("wrong", ["", ".", "../x", "A", "a/b", "a\n", "a" * 300, None, 5, ["a"]])
    @pytest.mark.parametrize("field", ["namespace", "name"])
    def test_names_are_kubernetes_names(self, field: str, wrong: object) -> None:
        fields = {"namespace": "a", "name": "b", "uid": "c", field: wrong}
        with pytest.raises(InvalidInput) as caught:
            parse_claim(json.dumps(fields).encode())
        assert caught.value.field == field


class TestWhichPods:
    def test_a_pod_with_a_gate(self) -> None:
        found = gated(pod_object(status={"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}), NODE)
        assert found is not None
        assert found.spec() == InterceptionSpec()
        assert found.addresses == ("10.0.0.1", "fd00::1")
        assert found.waiting

    @pytest.mark.parametrize(
        "raw",
        [
            pod_object(hostNetwork=True),
            pod_object(nodeName="another"),
            pod_object(nodeName=None),
            pod_object(initContainers=[]),
            pod_object(initContainers=[{"name": "istio-init", "command": ["heddle-init"]}]),
            pod_object(initContainers=[{"name": "istio-validation", "command": ["sh", "-c", "true"]}]),
            {},
        ],
    )
    def test_none_of_ours(self, raw: dict[str, Any]) -> None:
        assert gated(raw, NODE) is None

    def test_excluded_namespaces(self) -> None:
        assert gated(pod_object(), NODE, frozenset({"default"})) is None
        assert gated(pod_object(), NODE, frozenset({"kube-system"})) is not None

    @pytest.mark.parametrize(
        ("status", "waiting"),
        [
            ({}, True),
            ({"phase": "Pending", "initContainerStatuses": [{"name": "istio-validation", "state": {}}]}, True),
            ({"initContainerStatuses": [{"name": "istio-validation", "state": {"running": {}}}]}, True),
            ({"initContainerStatuses": [{"name": "istio-validation", "state": {"terminated": {"exitCode": 1}}}]}, True),
            (
                {"initContainerStatuses": [{"name": "istio-validation", "state": {"terminated": {"exitCode": 0}}}]},
                False,
            ),
            ({"initContainerStatuses": [{"name": "other", "state": {"terminated": {"exitCode": 0}}}]}, True),
            ({"phase": "Failed"}, False),
            ({"phase": "Succeeded"}, False),
        ],
    )
    def test_who_waits(self, status: dict[str, Any], waiting: bool) -> None:
        found = gated(pod_object(status=status), NODE)
        assert found is not None
        assert found.waiting is waiting

    def test_follows_the_api_server(self) -> None:
        pods = GatedPods(NODE)
        name = PodName("default", "reviews-v1-0", pod_object()["metadata"]["uid"])
        pods.on_event(Listed(POD, (pod_object(), pod_object(uid="other", hostNetwork=True)), 1))
        assert (pods.find(name).pod, pods.waiting()) == (name, 1)
        pods.on_event(Progress(POD, 2))
        done = {"initContainerStatuses": [{"name": "istio-validation", "state": {"terminated": {"exitCode": 0}}}]}
        pods.on_event(Changed(POD, pod_object(status=done), deleted=False, resource_version=3))
        assert (pods.find(name).pod, pods.waiting()) == (name, 0)
        pods.on_event(Changed(POD, pod_object(), deleted=True, resource_version=4))
        with pytest.raises(Unavailable, match="is known to run on node node-1"):
            pods.find(name)

    @pytest.mark.parametrize("change", [{"namespace": "other"}, {"name": "other"}, {"uid": "other"}])
    def test_every_part_of_the_name_counts(self, change: dict[str, str]) -> None:
        pods = GatedPods(NODE)
        pods.on_event(Listed(POD, (pod_object(),), 1))
        right = {"namespace": "default", "name": "reviews-v1-0", "uid": pod_object()["metadata"]["uid"]}
        with pytest.raises(Unavailable):
            pods.find(PodName(**(right | change)))


class TestSchedule:
    def test_new_ones_are_looked_into_often_and_old_ones_rarely(self) -> None:
        schedule = Schedule()
        schedule.seen(["old"], 100.0)
        assert schedule.due(100.0) == ["old"]
        schedule.visited("old", Visit.NOBODY, 100.0)
        schedule.seen(["old", "new"], 100.1)
        assert schedule.due(100.1) == ["new"]
        schedule.visited("new", Visit.NOBODY, 100.1)
        assert schedule.due(100.1 + NEW_INTERVAL) == ["new"]
        assert schedule.due(101.0) == ["old"]

    def test_what_is_gone_is_forgotten(self) -> None:
        schedule = Schedule()
        schedule.seen(["a"], 0.0)
        assert schedule.due(0.0) == ["a"]
        schedule.seen([], 1.0)
        schedule.visited("a", Visit.WRITTEN, 1.0)
        assert schedule.due(100.0) == []

    @given(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(Visit), st.floats(0, 3)), max_size=60))
    def test_nobody_is_forgotten_and_nobody_is_visited_twice_at_once(
        self, steps: list[tuple[str, Visit, float]]
    ) -> None:
        schedule, now, busy = Schedule(), 0.0, set[str]()
        for name, visit, later in steps:
            schedule.seen("abcde", now)
            due = schedule.due(now)
            assert not busy & set(due)
            busy |= set(due)
            if name in busy:
                schedule.visited(name, visit, now)
                busy.discard(name)
            now += later
        now += max(LONGEST, LONGEST_PENALTY)
        schedule.seen("abcde", now)
        assert set(schedule.due(now)) | busy == set("abcde")

    @given(st.floats(0, 1e7), st.integers(0, 1000))
    def test_intervals_are_bounded(self, age: float, failures: int) -> None:
        assert NEW_INTERVAL <= interval(age, failures) <= LONGEST_PENALTY


class TestProof:
    V6 = ("fd00009900000000" + "0" * 15 + "2",)

    def test_one_for_each_ip_version(self) -> None:
        assert [probe.family for probe in probes(InterceptionSpec(), ())] == [Family.V4]
        both = probes(InterceptionSpec(), self.V6)
        assert [(probe.target, probe.arrives) for probe in both] == [
            (("127.0.0.2", 15002), ("127.0.0.1", 15006)),
            (("fd00:99::2", 15002), ("::1", 15006)),
        ]

    @given(st.lists(st.integers(1, 65535), max_size=40).map(tuple), st.sampled_from([15006, 15002, 16006]))
    def test_the_probed_port_is_one_that_is_turned_round(self, excluded: tuple[int, ...], inbound: int) -> None:
        for probe in probes(InterceptionSpec(exclude_outbound_ports=excluded, inbound_port=inbound), self.V6):
            assert probe.target[1] not in (*excluded, inbound)
            assert probe.target != probe.arrives

    @pytest.mark.parametrize("name", ["lo", "l+", "+", "lo+"])
    def test_loopback_is_needed(self, name: str) -> None:
        with pytest.raises(InvalidInput, match="loopback"):
            probes(InterceptionSpec(exclude_interfaces=(name,)), ())

    def test_without_a_port_there_is_no_proof(self) -> None:
        with pytest.raises(InvalidInput, match="every port"):
            probes(InterceptionSpec(exclude_outbound_ports=tuple(range(1, 65536))), ())

    def test_the_user(self) -> None:
        check_user(InterceptionSpec(), 1337)
        with pytest.raises(InvalidInput, match="runs as user 0"):
            check_user(InterceptionSpec(), 0)

    def test_sentences(self) -> None:
        outcomes = {Family.V4: "", Family.V6: "refused"}
        assert what_is_missing(outcomes, "", "n1") == (
            "not intercepted: IPv6 (refused); intercepted: IPv4, although heddle-node of node n1 wrote the rules "
            "(does something else write them here too?)"
        )
        assert what_is_missing(outcomes, "no iptables", "").endswith("heddle-node of this node says: no iptables")


class TestOwner:
    HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    ROW = "   0: {address}:3A9A 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  {uid}        0 12345 1\n"

    def row(self, address: str = "0100007F", state: str = "0A", uid: int = 1337) -> str:
        return self.ROW.format(address=address, state=state, uid=uid)

    @pytest.mark.parametrize("uid", [1337, 65536 * 7 + 1337])
    def test_the_proxys_user_also_in_a_user_namespace(self, uid: int) -> None:
        check_owner([self.HEAD, self.row(state="01", uid=0), self.row(uid=uid)], 1337)

    @pytest.mark.parametrize(
        "rows",
        [
            [],
            ["0: 0100007F:3A9A uid: 0"],
            ["garbage \x00"] * 10,
            [ROW.format(address="00000000", state="0A", uid=1337)],
            [ROW.format(address="0100007F", state="01", uid=1337)],
            [ROW.format(address="0100007F", state="0A", uid=0)],
            [ROW.format(address="0100007F", state="0A", uid=1000)],
        ],
    )
    def test_anybody_else(self, rows: list[str]) -> None:
        with pytest.raises(Forbidden):
            check_owner([self.HEAD, *rows], 1337)


class TestEvent:
    @given(PODS, st.text(max_size=3000), st.floats(0, 4e9))
    def test_within_the_limits_of_the_api(self, pod: PodName, error: str, at: float) -> None:
        made = event(Failure(pod, error, at), NODE)
        assert len(made["note"].encode()) <= LONGEST_NOTE
        assert len(made["metadata"]["name"]) <= 253
        assert made["regarding"]["uid"] == pod.uid
        assert made["metadata"]["namespace"] == pod.namespace
