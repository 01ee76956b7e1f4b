"""Two real network namespaces, a pod and the world outside, and sockets in them as any user."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

OUTSIDE, POD = "10.99.0.1", "10.99.0.2"
OUTSIDE6, POD6 = "fd00:99::1", "fd00:99::2"
SERVICE = "10.98.7.6"  # an address that nobody has
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


class Namespace:
    """A network namespace; sockets made in it stay there."""

    def __init__(self) -> None:
        self.name = f"hddl-{uuid.uuid4().hex[:8]}"
        run("ip", "netns", "add", self.name)
        self._sockets: list[socket.socket] = []
        self.ip("link", "set", "lo", "up")

    def ip(self, *arguments: str) -> None:
        run("ip", "-n", self.name, *arguments)

    def heddle_init(self, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": path if path is not None else os.environ["PATH"]}
        command = ["nsenter", f"--net=/run/netns/{self.name}", sys.executable, "-m", "agent.intercept", *arguments]
        root = Path(__file__).parents[2]
        if path is not None:
            command[0] = "/usr/bin/nsenter"
        return subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment)

    def inside(self, work: Callable[[], T], *, uid: int = 0, gid: int = 0) -> T:
        """The result of `work` in this namespace, with files of `uid` and `gid`; in a thread that ends with it."""
        result: list[T | BaseException] = []

        def body() -> None:
            try:
                with open(f"/run/netns/{self.name}") as handle:
                    assert _libc.setns(handle.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
                # setfsuid(2) is the one that glibc leaves to the thread; xt_owner looks at the file's user.
                _libc.setfsgid(gid)
                _libc.setfsuid(uid)
                result.append(work())
            except BaseException as error:
                result.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if isinstance(result[0], BaseException):
            raise result[0]
        return result[0]

    def serve(self, port: int, word: str) -> None:
        """Answer every connection to `port`, of either IP version, with `word`."""

        def listen() -> socket.socket:
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)

        listener = self.inside(listen)
        self._sockets.append(listener)

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(word.encode())

        threading.Thread(target=answer, daemon=True).start()

    def ask(self, host: str, port: int, *, uid: int = 0, gid: int = 0, source: str = "") -> str:
        """The word that whoever gets a connection to `host:port` answers; `refused` when nobody does."""

        def connect() -> str:
            origin = (source, 0) if source else None
            try:
                with socket.create_connection((host, port), timeout=5, source_address=origin) as connection:
                    return connection.recv(100).decode()
            except ConnectionRefusedError:
                return "refused"

        return self.inside(connect, uid=uid, gid=gid)

    def close(self) -> None:
        for listener in self._sockets:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        run("ip", "netns", "del", self.name)


class Network:
    """A pod with an app on 8080 and 9090 and something on each port of the proxy; a server on 80, 81 outside."""

    def __init__(self) -> None:
        self.outside, self.pod = Namespace(), Namespace()
        self.outside.ip("link", "add", "veth0", "type", "veth", "peer", "name", "eth0", "netns", self.pod.name)
        for namespace, device, address, address6 in (
            (self.outside, "veth0", OUTSIDE, OUTSIDE6),
            (self.pod, "eth0", POD, POD6),
        ):
            namespace.ip("addr", "add", f"{address}/24", "dev", device)
            namespace.ip("addr", "add", f"{address6}/64", "dev", device, "nodad")
            namespace.ip("link", "set", device, "up")
        self.pod.ip("route", "add", "default", "via", OUTSIDE)
        for port, word in ((8080, "app"), (9090, "app"), (15001, "outbound"), (15006, "inbound"), (15020, "agent")):
            self.pod.serve(port, word)
        for port in (80, 81):
            self.outside.serve(port, "outside")

    def close(self) -> None:
        self.pod.close()
        self.outside.close()
