"""The cluster's DNS: which names lead where, by the Kubernetes DNS specification; and the server on real sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.dns import DnsServer, Table, answer, table

SERVICES: list[dict[str, Any]] = [
    {"metadata": {"name": "web", "namespace": "shop"}, "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 80}]}},
    {"metadata": {"name": "db", "namespace": "shop"}, "spec": {"clusterIP": "None", "ports": [{"port": 5432}]}},
    {"metadata": {"name": "nobody", "namespace": "shop"}, "spec": {"clusterIP": "None"}},
    {
        "metadata": {"name": "ext", "namespace": "shop"},
        "spec": {"type": "ExternalName", "externalName": "Example.com."},
    },
    {
        "metadata": {"name": "alias", "namespace": "shop"},
        "spec": {"type": "ExternalName", "externalName": "web.shop.svc.cluster.local"},
    },
    {
        "metadata": {"name": "loop", "namespace": "shop"},
        "spec": {"type": "ExternalName", "externalName": "loop.shop.svc.cluster.local"},
    },
]
SLICES = [
    {
        "metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": "db"}},
        "endpoints": [
            {"addresses": ["10.244.1.2"], "hostname": "db-0"},
            {"addresses": ["10.244.1.3"]},
            {"addresses": ["10.244.1.4"], "conditions": {"ready": False}},
        ],
    }
]
NAMES = table(SERVICES, SLICES)


def ask(name: str, kind: str = "A") -> tuple[str, list[str]]:
    """Return code, and the records of the answer as `type value`."""
    response = answer(dns.message.make_query(name, kind), NAMES)
    records = [f"{rrset.rdtype.name} {item.to_text()}" for rrset in response.answer for item in rrset]
    return dns.rcode.to_text(response.rcode()), records


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web.shop.svc.cluster.local", "A", ("NOERROR", ["A 10.96.0.7"])),
        ("WEB.Shop.svc.CLUSTER.local", "A", ("NOERROR", ["A 10.96.0.7"])),
        ("web.shop.svc.cluster.local", "AAAA", ("NOERROR", [])),
        ("db.shop.svc.cluster.local", "A", ("NOERROR", ["A 10.244.1.2", "A 10.244.1.3"])),
        ("db-0.db.shop.svc.cluster.local", "A", ("NOERROR", ["A 10.244.1.2"])),
        ("10-244-1-3.db.shop.svc.cluster.local", "A", ("NOERROR", ["A 10.244.1.3"])),
        ("nobody.shop.svc.cluster.local", "A", ("NXDOMAIN", [])),
        ("ext.shop.svc.cluster.local", "A", ("NOERROR", ["CNAME example.com."])),
        ("alias.shop.svc.cluster.local", "A", ("NOERROR", ["CNAME web.shop.svc.cluster.local.", "A 10.96.0.7"])),
        ("loop.shop.svc.cluster.local", "A", ("NOERROR", ["CNAME loop.shop.svc.cluster.local."])),
        ("shop.svc.cluster.local", "A", ("NOERROR", [])),
        ("web.other.svc.cluster.local", "A", ("NXDOMAIN", [])),
        ("www.example.com", "A", ("NXDOMAIN", [])),
    ],
)
def test_names(name: str, kind: str, expected: tuple[str, list[str]]) -> None:
    assert ask(name, kind) == expected


def test_a_negative_answer_says_how_long_it_may_be_kept() -> None:
    response = answer(dns.message.make_query("nope.cluster.local", "A"), NAMES)
    assert [rrset.rdtype.name for rrset in response.authority] == ["SOA"]


@given(st.binary(max_size=600))
def test_no_bytes_break_it(wire: bytes) -> None:
    response = DnsServer("127.0.0.1").respond(wire, 512)
    assert response is None or len(response) >= 12


def test_udp_and_tcp_answer_and_a_large_answer_is_asked_again_by_tcp() -> None:
    async def scenario() -> None:
        server = DnsServer("127.0.0.1", 15353)
        addresses = tuple(f"10.244.1.{last}" for last in range(1, 201))
        server.names = Table({"many.shop.svc.cluster.local": addresses, **NAMES.addresses})
        await server.start()
        try:
            small = dns.message.make_query("web.shop.svc.cluster.local", "A")
            large = dns.message.make_query("many.shop.svc.cluster.local", "A")
            first = await dns.asyncquery.udp(small, "127.0.0.1", port=15353, timeout=60)
            assert first.answer[0].to_rdataset()[0].to_text() == "10.96.0.7"
            cut = await dns.asyncquery.udp(large, "127.0.0.1", port=15353, timeout=60)
            assert cut.flags & dns.flags.TC
            whole = await dns.asyncquery.tcp(large, "127.0.0.1", port=15353, timeout=60)
            assert len(whole.answer[0]) == 200
        finally:
            await server.close()

    asyncio.run(scenario())
