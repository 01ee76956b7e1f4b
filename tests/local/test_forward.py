"""Ports of the host: real connections through a forwarder to real servers."""

from __future__ import annotations

import concurrent.futures
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from local import forward
from local.forward import Forwarder, Published, listen
from mesh.errors import Conflict, InvalidInput
from tests.support.ports import free_port

Address = tuple[str, int]


class Target:
    """A server whose `handle` gets each connection in a thread of its own."""

    def __init__(self, handle: Callable[[socket.socket], None]) -> None:
        self._handle = handle
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address: Address = ("127.0.0.1", self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self._handle(connection)

    def close(self) -> None:
        self._listener.close()


def echo_until_end(connection: socket.socket) -> None:
    """Reads everything first, then answers: only a half-closed connection lets it."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    connection.sendall(received[::-1])


class World:
    def __init__(self) -> None:
        self.target: Address | None = None
        self.failure: Exception | None = None
        self.port = free_port()
        published = Published(self.port, 80)
        Forwarder(self.resolve).start([(published, listen(published, "--http-port"))])

    def resolve(self, port: int) -> Address | None:
        assert port == 80
        if self.failure:
            raise self.failure
        return self.target

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def ask(self, content: bytes) -> bytes:
        with self.connect() as client:
            client.sendall(content)
            client.shutdown(socket.SHUT_WR)
            answer = b""
            while chunk := client.recv(65536):
                answer += chunk
            return answer

    def ends(self) -> None:
        """A connection is ended by the forwarder without an answer."""
        with self.connect() as client:
            try:
                assert client.recv(1) == b""
            except ConnectionResetError:
                return


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture
def target(world: World) -> Iterator[Callable[[Callable[[socket.socket], None]], None]]:
    made: list[Target] = []

    def serve(handle: Callable[[socket.socket], None]) -> None:
        made.append(Target(handle))
        world.target = made[-1].address

    yield serve
    for each in made:
        each.close()
    world.target = world.failure = None


Serve = Callable[[Callable[[socket.socket], None]], None]


def test_what_is_half_closed_still_gets_its_answer(world: World, target: Serve) -> None:
    target(echo_until_end)
    assert world.ask(b"abc") == b"cba"


def test_much_passes_in_both_directions(world: World, target: Serve) -> None:
    target(echo_until_end)
    content = bytes(range(256)) * 40_000
    assert world.ask(content) == content[::-1]


def test_both_sides_speak_while_both_are_open(world: World, target: Serve) -> None:
    def lines(connection: socket.socket) -> None:
        with connection.makefile("rwb", buffering=0) as stream:
            for line in stream:
                stream.write(b"got " + line)

    target(lines)
    with world.connect() as client, client.makefile("rwb", buffering=0) as stream:
        for number in range(100):
            stream.write(b"%d\n" % number)
            assert stream.readline() == b"got %d\n" % number


def test_the_end_of_the_inner_side_reaches_the_client(world: World, target: Serve) -> None:
    target(lambda connection: connection.sendall(b"bye"))
    with world.connect() as client:
        assert client.makefile("rb").read() == b"bye"


def test_a_client_that_goes_ends_the_inner_connection(world: World, target: Serve) -> None:
    ended = threading.Event()

    def watch(connection: socket.socket) -> None:
        connection.sendall(b"hello")
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(1024):
                pass
        ended.set()

    target(watch)
    client = world.connect()
    assert client.recv(5) == b"hello"
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset instead of an end
    client.close()
    assert ended.wait(60)


def test_without_a_gateway_connections_end_and_later_ones_pass(world: World, target: Serve) -> None:
    world.ends()
    world.target = ("127.0.0.1", free_port())
    world.ends()
    world.failure = KeyError("clusterIP")
    world.ends()
    world.failure = None
    target(echo_until_end)
    assert world.ask(b"abc") == b"cba"


def test_a_gateway_that_does_not_answer_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "CONNECT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        held = [socket.socket() for _ in range(8)]  # more than the backlog takes: further ones get no answer
        for one in held:
            one.setblocking(False)
            one.connect_ex(address)
        world.target = address
        world.ends()
        for one in held:
            one.close()
    world.target = None


def test_a_thousand_short_connections(world: World, target: Serve) -> None:
    target(echo_until_end)
    with concurrent.futures.ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(lambda number: world.ask(b"%06d" % number), range(1000)))
    assert answers == [(b"%06d" % number)[::-1] for number in range(1000)]


def test_a_port_that_is_taken_names_the_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(Conflict) as got:
        listen(Published(other.getsockname()[1], 80), "--http-port")
    assert "cannot be opened: Address already in use (choose another with --http-port PORT" in str(got.value)


@pytest.mark.parametrize("number", [-1, 65536, 10**9])
def test_what_is_no_port_is_refused(number: int) -> None:
    with pytest.raises(InvalidInput, match=r"--https-port: .* is no port"):
        listen(Published(number, 443), "--https-port")
