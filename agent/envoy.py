"""Envoy's life: started, watched, started again after a crash; its log is passed on line by line.

Envoy writes its log to a pipe of ours as JSON lines. Over REST the reason of a refusal is in the log alone (the admin
interface shows it for listeners only), and it is written before the poll that shows that something was refused.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress

import orjson

from agent.children import Child, Children
from agent.http_client import Answer, fetch
from mesh.errors import Unavailable
from mesh.wire import ResourceType
from mesh.xds import TYPE_URLS, rest_path

log = logging.getLogger("agent.envoy")

LOG_FORMAT = '{"time":"%Y-%m-%dT%T.%e","level":"%l","logger":"envoy.%n","message":"%j"}'
FIRST_PAUSE, LONGEST_PAUSE, STABLE = 0.05, 10.0, 30.0
"""Seconds: pause after the first crash, after many, and the run after which a crash counts as the first again."""
_REFUSED = {f"REST config for {rest_path(kind)} rejected: ": kind for kind in TYPE_URLS}
_TAKEN = re.compile(rb'"message":"rds: loading new configuration: config_name=(.+) hash=\d+"\}$')
_MAX_LINE = 1 << 20
_READ_SIZE = 1 << 14
_GAUGES = "/stats?type=Gauges&format=json&filter="
_WARMING = _GAUGES + "^(cluster_manager.warming_clusters|listener_manager.total_listeners_warming)$"
_CONNECTIONS = _GAUGES + "^listener[.].*downstream_cx_active$"
_NOT_TRAFFIC = ("listener.admin.", "listener.0.0.0.0_15090.", "listener.[__]_15090.")


class Envoy:
    """`on_start()` is called before each start.

    `on_refusal(kind, message)` and `on_acceptance(kind, name)` are called for what Envoy logs about its configuration.
    """

    def __init__(
        self,
        children: Children,
        command: list[str],
        admin_port: int,
        environment: Mapping[str, str],
        *,
        on_start: Callable[[], None],
        on_refusal: Callable[[ResourceType, str], None],
        on_acceptance: Callable[[ResourceType, str], None],
    ) -> None:
        self._children = children
        self._command = command
        self._admin_port = admin_port
        self._environment = environment
        self._on_start = on_start
        self._on_refusal = on_refusal
        self._on_acceptance = on_acceptance
        self._log_end: int | None = None
        self._rest = b""
        self._stopping = False
        self.child: Child | None = None
        self.restarts = 0

    @property
    def running(self) -> bool:
        return self.child is not None and self.child.running

    async def run(self) -> None:
        """Start, and start again whenever it ends; returns after `stop`."""
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE
        while not self._stopping:
            started = loop.time()
            self._on_start()
            self.child = self._spawn()
            log.info("Envoy started, pid %d", self.child.pid)
            status = await self.child.exited
            self.read_log()
            self._close_log()
            if self._stopping:
                return
            self.restarts += 1
            pause = FIRST_PAUSE if loop.time() - started > STABLE else min(pause * 2, LONGEST_PAUSE)
            log.error("Envoy ended with status %d, starting it again in %.2f s", status, pause)
            await asyncio.sleep(pause)

    async def stop(self, grace: float = 5.0) -> None:
        """SIGTERM, and SIGKILL after `grace` seconds."""
        self._stopping = True
        if self.child is None:
            return
        self.child.kill(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.child.exited), grace)
        if self.child.running:
            self.child.kill(signal.SIGKILL)
            await self.child.exited

    def kill(self) -> None:
        """End it the hard way; `run` starts it again."""
        if self.child is not None:
            self.child.kill(signal.SIGKILL)

    def _spawn(self) -> Child:
        ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(theirs, True)
        try:
            child = self._children.spawn(self._command, {2: theirs}, environment=self._environment)
        finally:
            os.close(theirs)
        self._log_end, self._rest = ours, b""
        asyncio.get_running_loop().add_reader(ours, self.read_log)
        return child

    def read_log(self) -> None:
        """Take in what Envoy has logged until now, without waiting."""
        more = True
        while more and self._log_end is not None:
            try:
                data = os.read(self._log_end, _READ_SIZE)
            except BlockingIOError:
                return
            more = len(data) == _READ_SIZE  # else that was all: a pipe gives what it has
            if not data:
                self._close_log()
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._rest = self._rest[-_MAX_LINE:]
            for line in lines:
                self._read_line(line)

    def _close_log(self) -> None:
        if self._log_end is not None:
            asyncio.get_running_loop().remove_reader(self._log_end)
            os.close(self._log_end)
            self._log_end = None

    def _read_line(self, line: bytes) -> None:
        if b'"logger":"envoy.rds"' in line:  # asked for by us, not by who reads the log
            if taken := _TAKEN.search(line):
                self._on_acceptance(ResourceType.ROUTES, taken[1].decode())
            return
        sys.stderr.buffer.write(line + b"\n")
        sys.stderr.buffer.flush()
        if b'"REST config for ' not in line:
            return
        try:
            message = orjson.loads(line)["message"]
        except (ValueError, KeyError, TypeError):
            return
        for prefix, kind in _REFUSED.items():
            if message.startswith(prefix):
                self._on_refusal(kind, message[len(prefix) :].strip())

    # ---- the admin interface

    async def admin(self, method: str, target: str, *, timeout: float = 5.0) -> Answer:
        """One request to Envoy's admin interface; Unavailable when it does not answer."""
        return await fetch("127.0.0.1", self._admin_port, method, target, timeout=timeout)

    async def is_live(self) -> bool:
        """Envoy serves: its state is LIVE (not initializing, not draining)."""
        try:
            return (await self.admin("GET", "/ready", timeout=2.0)).status == 200
        except Unavailable:
            return False

    async def is_warming(self) -> bool:
        """Some cluster or listener is not in use yet; also True when Envoy does not answer."""
        try:
            gauges = await self._gauges(_WARMING)
        except Unavailable:
            return True
        return any(gauges.values())

    async def active_connections(self) -> int:
        """Connections from clients that are open now; 0 when Envoy does not answer."""
        try:
            gauges = await self._gauges(_CONNECTIONS)
        except Unavailable:
            return 0
        return sum(
            value
            for name, value in gauges.items()
            if not name.startswith(_NOT_TRAFFIC) and ".worker_" not in name  # each worker's share is there as well
        )

    async def _gauges(self, target: str) -> dict[str, int]:
        answer = await self.admin("GET", target)
        if answer.status != 200:
            raise Unavailable(f"Envoy answered {answer.status} to {target}")
        stats = orjson.loads(answer.body)["stats"]
        return {stat["name"]: stat["value"] for stat in stats if "name" in stat}
