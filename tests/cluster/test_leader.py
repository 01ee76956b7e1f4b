"""One of several replicas leads, by a Lease at a real API server."""

from __future__ import annotations

from kube.leader import Leader
from tests.cluster.api_server import ApiServer


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_one_leads_until_it_is_gone(api_server: ApiServer) -> None:
    with api_server.namespace() as namespace:
        clock = Clock()
        one, other = (Leader(api_server.client, namespace, "who", name, monotonic=clock) for name in ("one", "other"))
        for each in (one, other):
            each.compete()
        assert (one.leads, other.leads) == (True, False)
        clock.now += 10
        one.compete()
        other.compete()
        clock.now += 10  # the other has seen it renewed 10 s ago
        other.compete()
        assert (one.leads, other.leads) == (True, False)
        clock.now += 16
        assert not one.leads  # it stops before another may begin
        other.compete()
        assert other.leads
        one.compete()
        assert (one.leads, other.leads) == (False, True)
        spec = api_server.client.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/who")["spec"]
        assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("other", 1)


def test_a_lease_that_is_given_back_is_taken_at_once(api_server: ApiServer) -> None:
    with api_server.namespace() as namespace:
        clock = Clock()
        one, other = (Leader(api_server.client, namespace, "who", name, monotonic=clock) for name in ("one", "other"))
        one.compete()
        other.compete()
        one.stop()
        assert not one.leads
        other.compete()
        assert other.leads
