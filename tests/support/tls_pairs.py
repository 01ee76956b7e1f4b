"""One real Envoy that plays both ends of many TLS connections: for each name a server that echoes, and a way to it
through a client."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from tests.support.envoy import RunningEnvoy
from tests.support.ports import free_port

_FILTERS = "type.googleapis.com/envoy.extensions.filters.network."
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."


class Ends(NamedTuple):
    """The `common_tls_context` of both."""

    server: dict[str, Any]
    client: dict[str, Any]


def tls_context(chain_pem: str, key_pem: str, validation: dict[str, Any]) -> dict[str, Any]:
    """A `common_tls_context` as mesh TLS has it: TLS 1.3, one certificate, `validation` of the peer's."""
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [
            {"certificate_chain": {"inline_string": chain_pem}, "private_key": {"inline_string": key_pem}}
        ],
        "validation_context": validation,
    }


class TlsPairs:
    """Runs for the length of a `with` block; both ends of a pair ask for the other's certificate.

    `secrets`: those that contexts refer to by name.
    """

    def __init__(self, pairs: Mapping[str, Ends], directory: Path, secrets: Sequence[dict[str, Any]] = ()) -> None:
        self._ways: dict[str, int] = {}
        listeners, clusters = [], []
        for name, ends in pairs.items():
            server, way = free_port(), free_port()
            downstream = _socket("DownstreamTlsContext", ends.server, require_client_certificate=True)
            proxied = {"@type": _FILTERS + "tcp_proxy.v3.TcpProxy", "stat_prefix": name, "cluster": name}
            listeners.append(_listener(server, {"@type": _FILTERS + "echo.v3.Echo"}, downstream))
            listeners.append(_listener(way, proxied))
            load = {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _place(server)}}]}]}
            upstream = _socket("UpstreamTlsContext", ends.client)
            clusters.append({"name": name, "type": "STATIC", "load_assignment": load, "transport_socket": upstream})
            self._ways[name] = way
        resources = {"listeners": listeners, "clusters": clusters, "secrets": [*secrets]}
        node = {"id": "test", "cluster": "test"}
        bootstrap = {"node": node, "admin": {"address": _place(free_port())}, "static_resources": resources}
        self._envoy = RunningEnvoy(bootstrap, directory)

    def __enter__(self) -> TlsPairs:
        self._envoy.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._envoy.__exit__(kind, error, trace)

    def speaks(self) -> set[str]:
        """The names of the pairs that get a byte across."""
        return {name for name in self._ways if self._echo(name)}

    def _echo(self, name: str) -> bytes:
        with socket.create_connection(("127.0.0.1", self._ways[name]), timeout=60) as connection:
            connection.sendall(b"?")
            try:
                return connection.recv(1)
            except ConnectionResetError:
                return b""


def _socket(message: str, common: dict[str, Any], **more: Any) -> dict[str, Any]:
    config = {"@type": _TLS + message, "common_tls_context": common, **more}
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def _place(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _listener(port: int, config: dict[str, Any], socket: dict[str, Any] | None = None) -> dict[str, Any]:
    chain: dict[str, Any] = {"filters": [{"name": "filter", "typed_config": config}]}
    if socket:
        chain["transport_socket"] = socket
    return {"name": str(port), "address": _place(port), "filter_chains": [chain]}
