"""The cluster's DNS: names of services, as CoreDNS gives them; a pure answer and a small asyncio server (UDP and TCP).

    <service>.<namespace>.svc.cluster.local            A: the ClusterIP, or the ready endpoints of a headless service
    <host>.<service>.<namespace>.svc.cluster.local     A: an endpoint with a host name (or its address with dashes)
    an ExternalName service                            CNAME

Everything else does not exist (NXDOMAIN): the engine's network has no way to the outside (docs/adr/0021). No AAAA
(empty answer), for pods are IPv4 only. Source: the Kubernetes DNS specification (kubernetes/dns, specification.md).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from local.services import Object, group_by_service

ZONE = "cluster.local"
TTL = 5  # seconds, CoreDNS's default
_LARGEST_UDP = 1232


@dataclass(frozen=True, slots=True)
class Table:
    """Lower-case names without a final dot: to addresses, and to other names."""

    addresses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)


def table(services: Iterable[Object], slices: Iterable[Object]) -> Table:
    """The names that these services and endpoints give rise to."""
    addresses: dict[str, tuple[str, ...]] = {}
    aliases: dict[str, str] = {}
    by_service = group_by_service(slices)
    for service in services:
        metadata, spec = service["metadata"], service.get("spec") or {}
        namespace = metadata.get("namespace") or "default"
        name = f"{metadata['name']}.{namespace}.svc.{ZONE}".lower()
        if spec.get("type") == "ExternalName":
            aliases[name] = str(spec.get("externalName") or "").lower().rstrip(".")
            continue
        cluster_ip = spec.get("clusterIP") or "None"
        if cluster_ip != "None":
            addresses[name] = (cluster_ip,)
            continue
        endpoints = _ready(by_service.get((namespace, metadata["name"]), []))
        if endpoints:
            addresses[name] = tuple(sorted({address for address, _ in endpoints}))
        for address, host in endpoints:
            own = f"{host or address.replace('.', '-')}.{name}".lower()
            addresses[own] = (*addresses.get(own, ()), address)
    return Table(addresses, aliases)


def _ready(slices: Iterable[Object]) -> list[tuple[str, str]]:
    return [
        (address, endpoint.get("hostname") or "")
        for item in slices
        for endpoint in item.get("endpoints") or []
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in endpoint.get("addresses") or []
    ]


def answer(query: dns.message.Message, names: Table) -> dns.message.Message:
    """The response to a query; never raises for what a client can send."""
    response = dns.message.make_response(query, recursion_available=True)
    if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
        response.set_rcode(dns.rcode.NOTIMP)
        return response
    question = query.question[0]
    response.flags |= dns.flags.AA
    name, seen = question.name.to_text(omit_final_dot=True).lower(), set[str]()
    while name in names.aliases and name not in seen:
        seen.add(name)
        target = names.aliases[name]
        response.answer.append(_record(name, dns.rdatatype.CNAME, [f"{target}."]))
        name = target
    found = names.addresses.get(name)
    if found and question.rdtype in (dns.rdatatype.A, dns.rdatatype.ANY):
        response.answer.append(_record(name, dns.rdatatype.A, found))
    elif not found and not seen and not _is_parent(name, names):
        response.set_rcode(dns.rcode.NXDOMAIN)
    if not response.answer:
        response.authority.append(_authority())
    return response


def _is_parent(name: str, names: Table) -> bool:
    """Whether a name exists only because names below it do (`default.svc.cluster.local`): no data, but not unknown."""
    return name == ZONE or any(known.endswith(f".{name}") for known in (*names.addresses, *names.aliases))


def _record(name: str, kind: dns.rdatatype.RdataType, values: Iterable[str]) -> dns.rrset.RRset:
    return dns.rrset.from_text_list(f"{name}.", TTL, dns.rdataclass.IN, kind, list(values))


def _authority() -> dns.rrset.RRset:
    """The zone's SOA, which says how long a negative answer may be kept (RFC 2308)."""
    text = f"ns.dns.{ZONE}. hostmaster.{ZONE}. 1 7200 1800 86400 {TTL}"
    return dns.rrset.from_text(f"{ZONE}.", TTL, dns.rdataclass.IN, dns.rdatatype.SOA, text)


class DnsServer:
    """Serves the current `names` on one address, port 53 unless told otherwise."""

    def __init__(self, address: str, port: int = 53) -> None:
        self.names = Table()
        self._address, self._port = address, port
        self._datagrams: asyncio.DatagramTransport | None = None
        self._streams: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._datagrams, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=(self._address, self._port)
        )
        self._streams = await asyncio.start_server(self._serve_stream, self._address, self._port)

    async def close(self) -> None:
        if self._datagrams is not None:
            self._datagrams.close()
        if self._streams is not None:
            self._streams.close()

    def respond(self, wire: bytes, limit: int) -> bytes | None:
        """The response on the wire, cut and marked as cut at `limit` bytes; None for what is no query at all."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        if query.flags & dns.flags.QR:
            return None
        response = answer(query, self.names)
        try:
            return response.to_wire(max_size=limit)
        except dns.exception.TooBig:
            short = dns.message.make_response(query, recursion_available=True)
            short.flags |= dns.flags.TC
            return short.to_wire()

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            while True:
                async with asyncio.timeout(10):
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    response = self.respond(await reader.readexactly(size), 65535)
                if response is None:
                    break
                writer.write(len(response).to_bytes(2, "big") + response)
                await writer.drain()
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
        response = self._server.respond(data, _LARGEST_UDP)
        if response is not None:
            self._transport.sendto(response, sender)
