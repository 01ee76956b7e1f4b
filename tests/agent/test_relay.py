"""The relay against a model of Envoy: order, refusals, restarts."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.bundle import Part
from agent.relay import CLUSTERS, Relay, Stage
from mesh.wire import ResourceType
from tests.agent.model_envoy import ModelEnvoy, cluster, host, listener, part

Changes = dict[str, dict[str, Part]]


def relay_with(changed: Changes) -> Relay:
    relay = Relay(lambda: "2030-01-01T00:00:00Z")
    relay.update("s", 1, changed, {})
    return relay


def simple(to: str = "a", **more: Any) -> Changes:
    return {
        "clusters": {"a": cluster("a")},
        "endpoints": {"a": part("1", name="a")},
        "listeners": {"l": listener("l", "r")},
        "routes": {"r": part("1", name="r")},
        "virtualHosts": {"r/v": host("v", to, **more)},
    }


def test_a_first_load_is_taken_whole_and_reported() -> None:
    relay = relay_with(simple())
    envoy = ModelEnvoy(relay)
    envoy.settle()
    assert relay.is_applied
    assert relay.serving
    assert {kind: state.sequence for kind, state in relay.applied.items()} == dict.fromkeys(map(str, ResourceType), 1)
    assert envoy.routes["r"]["virtual_hosts"] == [{"name": "v", "to": "a"}]
    assert envoy.endpoints["a"]["name"] == "a"


def test_polls_before_there_is_a_configuration_are_held_and_answered_when_it_comes() -> None:
    relay = Relay(lambda: "now")
    assert relay.poll(*CLUSTERS, "") is None
    relay.update("s", 1, {}, {})
    assert CLUSTERS in relay.take_news()
    assert relay.answer(CLUSTERS, "") is not None


def test_a_change_of_virtual_hosts_alone_is_one_answer() -> None:
    relay = relay_with(simple())
    envoy = ModelEnvoy(relay)
    envoy.settle()
    before = envoy.answers
    relay.update("s", 2, {"virtualHosts": {"r/v": host("v", "a", "2", weight=3)}}, {})
    assert relay.take_news() == {(ResourceType.ROUTES, "r")}
    envoy.subscriptions[(ResourceType.ROUTES, "r")].holds = False
    envoy.settle()
    assert envoy.answers == before + 1
    assert relay.applied["virtualHosts"].sequence == 2


def test_virtual_hosts_are_put_together_by_name_whatever_order_they_come_in() -> None:
    changes = simple()
    changes["virtualHosts"] = {f"r/{name}": host(name, "a") for name in "cab"}
    envoy = ModelEnvoy(relay_with(changes))
    envoy.settle()
    assert [each["name"] for each in envoy.routes["r"]["virtual_hosts"]] == ["a", "b", "c"]


def test_an_old_cluster_goes_only_after_the_routes_have_left_it() -> None:
    relay = relay_with(simple())
    envoy = ModelEnvoy(relay)
    envoy.settle()
    changed = {"clusters": {"b": cluster("b")}, "virtualHosts": {"r/v": host("v", "b", "2")}}
    relay.update("s", 2, changed, {"clusters": ("a",), "endpoints": ("a",)})
    assert relay.stage is Stage.MAKE
    envoy.settle()
    assert envoy.broken == []
    assert set(envoy.clusters) == {"b"}
    assert relay.is_applied


def test_routes_wait_for_clusters_that_are_still_warming() -> None:
    relay = relay_with(simple())
    envoy = ModelEnvoy(relay)
    envoy.settle()
    relay.update("s", 2, {"clusters": {"b": cluster("b")}, "virtualHosts": {"r/v": host("v", "b", "2")}}, {})
    envoy.subscriptions[CLUSTERS].holds = False
    envoy.poll(CLUSTERS)
    envoy.poll(CLUSTERS)
    assert relay.needs_warm_check
    assert (ResourceType.ROUTES, "r") not in relay.take_news()
    relay.warmed()
    assert (ResourceType.ROUTES, "r") in relay.take_news()


def test_a_cluster_that_is_built_anew_gets_its_endpoints_again() -> None:
    relay = relay_with(simple())
    envoy = ModelEnvoy(relay)
    envoy.settle()
    relay.update("s", 2, {"clusters": {"a": cluster("a", "2", timeout=1)}}, {})
    envoy.settle()
    assert envoy.endpoints["a"]["name"] == "a"
    assert relay.is_applied


def test_a_cluster_refused_by_name_leaves_the_others_in_force() -> None:
    relay = relay_with(simple())
    envoy = ModelEnvoy(relay)
    envoy.settle()
    relay.update("s", 2, {"clusters": {"b": cluster("b"), "x": cluster("x", bad="named")}}, {})
    envoy.settle()
    assert set(envoy.clusters) == {"a", "b"}
    (rejected,) = relay.applied["clusters"].rejected
    assert (rejected.name, rejected.message) == ("x", "no good")
    assert relay.applied["clusters"].sequence == 1
    assert relay.is_applied


def test_a_refusal_of_the_whole_is_narrowed_down_to_the_one_to_blame() -> None:
    relay = relay_with(simple())
    envoy = ModelEnvoy(relay)
    envoy.settle()
    many = {f"c{i:03}": cluster(f"c{i:03}", bad=True) if i in (7, 70) else cluster(f"c{i:03}") for i in range(100)}
    relay.update("s", 2, {"clusters": many}, {})
    before = envoy.answers
    envoy.settle()
    assert set(envoy.clusters) == {"a", *many} - {"c007", "c070"}
    assert sorted(r.name for r in relay.applied["clusters"].rejected) == ["c007", "c070"]
    eds = 98
    assert envoy.answers - before < eds + 40


def test_a_refused_change_keeps_the_last_good_version() -> None:
    relay = relay_with(simple())
    envoy = ModelEnvoy(relay)
    envoy.settle()
    relay.update("s", 2, {"virtualHosts": {"r/v": host("v", "a", "2", bad=True), "r/w": host("w", "a", "2")}}, {})
    envoy.settle()
    assert envoy.routes["r"]["virtual_hosts"] == [{"name": "v", "to": "a"}, {"name": "w", "to": "a"}]
    assert [r.name for r in relay.applied["virtualHosts"].rejected] == ["r/v"]
    assert relay.good()[ResourceType.VIRTUAL_HOSTS]["r/v"].version == "1"
    relay.update("s", 3, {"virtualHosts": {"r/v": host("v", "a", "3")}}, {})
    envoy.settle()
    assert relay.applied["virtualHosts"].rejected == ()
    assert relay.applied["virtualHosts"].sequence == 3


def test_what_needs_a_refused_cluster_stays_as_it_was() -> None:
    relay = relay_with(simple())
    envoy = ModelEnvoy(relay)
    envoy.settle()
    relay.update(
        "s", 2, {"clusters": {"x": cluster("x", bad="named")}, "virtualHosts": {"r/v": host("v", "x", "2")}}, {}
    )
    envoy.settle()
    assert envoy.broken == []
    assert envoy.routes["r"]["virtual_hosts"] == [{"name": "v", "to": "a"}]
    assert "cluster x" in relay.applied["virtualHosts"].rejected[0].message
    relay.update("s", 3, {"clusters": {"x": cluster("x", "3")}}, {})
    envoy.settle()
    assert envoy.routes["r"]["virtual_hosts"] == [{"name": "v", "to": "x"}]
    assert relay.applied["virtualHosts"].sequence == 3


def test_a_new_envoy_gets_everything_but_what_its_predecessor_refused() -> None:
    relay = relay_with(simple())
    first = ModelEnvoy(relay)
    first.settle()
    relay.update("s", 2, {"clusters": {"x": cluster("x", bad=True)}}, {})
    first.settle()
    second = ModelEnvoy(relay)
    assert not relay.serving
    second.settle()
    assert relay.serving
    assert set(second.clusters) == {"a"}
    assert second.answers == 4  # clusters, endpoints, listeners, route: nothing twice


def test_a_poll_that_keeps_coming_without_a_reason_is_held_in_the_end() -> None:
    relay = relay_with(simple())
    relay.envoy_started()
    answered = 0
    while relay.poll(*CLUSTERS, "") is not None:
        answered += 1
        assert answered < 20


def test_a_secret_of_its_own_is_served_before_any_configuration() -> None:
    relay = Relay(lambda: "now")
    relay.set_own_secret("default", Part("serial-1", b'{"name":"default"}'))
    body = relay.poll(ResourceType.SECRETS, "default", "")
    assert body is not None
    assert b'[{"name":"default"}]' in body
    version = body.split(b'"')[3].decode()
    assert relay.poll(ResourceType.SECRETS, "default", version) is None
    relay.set_own_secret("default", Part("serial-2", b'{"name":"default","new":1}'))
    assert (ResourceType.SECRETS, "default") in relay.take_news()
    assert relay.answer((ResourceType.SECRETS, "default"), version) is not None


def test_which_of_its_own_secrets_envoy_uses() -> None:
    relay = Relay(lambda: "now")
    assert relay.own_in_use("ROOTCA") == ""
    relay.set_own_secret("ROOTCA", Part("1", b"{}"))
    assert relay.own_in_use("ROOTCA") == "1"  # Envoy has not asked for it, so it uses no older one
    body = relay.poll(ResourceType.SECRETS, "ROOTCA", "")
    assert body is not None
    assert relay.own_in_use("ROOTCA") == ""
    relay.poll(ResourceType.SECRETS, "ROOTCA", body.split(b'"')[3].decode())
    assert relay.own_in_use("ROOTCA") == "1"
    relay.set_own_secret("ROOTCA", Part("2", b'{"new":1}'))
    assert relay.own_in_use("ROOTCA") == "1"
    before = relay.revision
    second = relay.poll(ResourceType.SECRETS, "ROOTCA", body.split(b'"')[3].decode())
    assert second is not None
    relay.poll(ResourceType.SECRETS, "ROOTCA", second.split(b'"')[3].decode())
    assert relay.own_in_use("ROOTCA") == "2"
    assert relay.revision > before  # so that discovery hears of it
    relay.envoy_started()
    relay.set_own_secret("ROOTCA", Part("3", b'{"new":2}'))
    assert relay.own_in_use("ROOTCA") == "2"


def test_forcing_goes_on_without_what_envoy_does_not_take() -> None:
    relay = relay_with(simple())
    envoy = ModelEnvoy(relay)
    envoy.settle()
    relay.update("s", 2, {"clusters": {"b": cluster("b")}, "virtualHosts": {"r/v": host("v", "b", "2")}}, {})
    relay.force()
    assert relay.stage is Stage.SWITCH
    assert relay.applied["clusters"].sequence == 1


NAMES = st.sampled_from("abcd")
KINDS = st.sampled_from([None, None, None, "named", True])


@st.composite
def meshes(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, tuple[str, Any]]]:
    """Clusters (name -> bad or not), and virtual hosts (name -> cluster, bad or not) that go to them only."""
    clusters = draw(st.dictionaries(NAMES, st.tuples(st.integers(0, 2), KINDS), min_size=1))
    hosts = draw(st.dictionaries(NAMES, st.tuples(st.sampled_from(sorted(clusters)), st.booleans()), max_size=4))
    return clusters, hosts


@settings(max_examples=150)
@given(st.lists(meshes(), min_size=1, max_size=5), st.booleans())
def test_whatever_changes_nothing_is_broken_and_all_that_is_good_gets_in_force(
    steps: list[tuple[dict[str, Any], dict[str, tuple[str, Any]]]], restart: bool
) -> None:
    relay = Relay(lambda: "now")
    envoy = ModelEnvoy(relay)
    refusals = False
    for sequence, (clusters, hosts) in enumerate(steps, 1):
        wanted: Changes = {
            "clusters": {
                n: cluster(n, f"{size}{bad}", size=size, **({"bad": bad} if bad else {}))
                for n, (size, bad) in clusters.items()
            },
            "listeners": {"l": listener("l", "r")},
            "routes": {"r": part("1", name="r")},
            "virtualHosts": {
                f"r/{n}": host(n, to, f"{to}{bad}", **({"bad": True} if bad else {})) for n, (to, bad) in hosts.items()
            },
        }
        gone = {
            str(kind): tuple(name for name in relay.wanted[kind] if name not in wanted.get(str(kind), {}))
            for kind in relay.wanted
        }
        relay.update("s", sequence, wanted, gone)
        envoy.answers = 0
        envoy.settle()
        assert relay.is_applied
        for name, (size, bad) in clusters.items():
            if not bad:
                assert envoy.clusters[name]["size"] == size
        assert set(envoy.clusters) <= set(clusters)
        refusals |= any(bad for _, bad in (*clusters.values(), *hosts.values()))
        if not refusals:
            assert envoy.broken == []
            assert set(envoy.clusters) == set(clusters)
    if restart:
        again = ModelEnvoy(relay)
        again.settle()
        assert again.clusters == envoy.clusters
