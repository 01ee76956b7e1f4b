"""Ports of the host that lead into the mesh: 127.0.0.1:8080 to the ingress gateway's port 80, and so on.

The listening sockets are opened outside, in the host's network, and inherited; connections are then made inside. So
nothing has to be routed between the host's network and the engine's, and no rule or interface is left in the host's.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mesh.errors import Conflict, InvalidInput

CHUNK = 65536
CONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Published:
    """Host port `host_port` leads to port `service_port` of the gateway's service."""

    host_port: int
    service_port: int


def listen(published: Published, option: str) -> socket.socket:
    """The listening socket on the host's loopback address; Conflict, naming `option`, when the port is taken."""
    if not 0 < published.host_port < 65536:
        raise InvalidInput(f"{published.host_port} is no port", field=option, hint="use a number from 1 to 65535")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", published.host_port))
    except OSError as error:
        listener.close()
        raise Conflict(
            f"port {published.host_port} of this machine, for the ingress gateway, cannot be opened: {error.strerror}",
            hint=f"choose another with {option} PORT, or none with {option} 0",
        ) from error
    listener.listen(256)
    return listener


class Forwarder:
    """Passes connections of inherited sockets on. `resolve(service_port)` gives the address inside, or None."""

    def __init__(self, resolve: Callable[[int], tuple[str, int] | None]) -> None:
        self._resolve = resolve
        # The loop alone does not keep a connection whose two sides are both paused: it would be collected.
        self._connections: set[asyncio.Task[None]] = set()

    def start(self, listeners: Sequence[tuple[Published, socket.socket]]) -> None:
        threading.Thread(target=lambda: asyncio.run(self._serve(listeners)), name="forward", daemon=True).start()

    async def _serve(self, listeners: Sequence[tuple[Published, socket.socket]]) -> None:
        servers = [
            await asyncio.start_server(self._accept(published.service_port), sock=listener)
            for published, listener in listeners
        ]
        await asyncio.gather(*(server.serve_forever() for server in servers))

    def _accept(self, service_port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._pass_on(service_port, reader, writer))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

        return connected

    async def _pass_on(self, service_port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            target = self._resolve(service_port)
            if target is None:
                return
            async with asyncio.timeout(CONNECT_SECONDS):
                inner_reader, inner_writer = await asyncio.open_connection(*target)
            try:
                await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
            finally:
                inner_writer.close()
            writer.close()
        except OSError:
            return
        finally:
            if not writer.is_closing():
                writer.transport.abort()  # a reset: what a client sees when nobody listens


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()  # either side may go at any time; this tells the other
