"""The pod's SVID, always current: the asyncio shell round svid/schedule.py. A child process fetches each certificate.

When to renew is decided by the wall clock and looked at at least every ten seconds, so that a clock that jumps is seen.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import orjson

from agent.children import Children
from agent.svid_json import material_from_json, material_to_json
from mesh.errors import HeddleError, Unavailable
from mesh.identity import Identity
from mesh.key_kinds import DEFAULT_KEY
from svid import schedule
from svid.material import PodRef, SvidMaterial
from svid.trust import NO_ORDER, News, early_renewal, has_lost_its_root, newer

log = logging.getLogger("agent.identity")

FETCH_TIMEOUT = 40.0
"""Seconds for a whole run of the child: up to two requests to the ca, each with timeouts of its own."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What the child is told each time."""

    ca: tuple[str, int]
    ca_identity: Identity
    root_cert_file: str
    token_file: str
    pod: PodRef
    ttl_seconds: int | None
    key_kind: str = DEFAULT_KEY

    def as_json(self, current: SvidMaterial | None) -> dict[str, Any]:
        return {
            "ca": {"host": self.ca[0], "port": self.ca[1], "identity": str(self.ca_identity)},
            "rootCertFile": self.root_cert_file,
            "tokenFile": self.token_file,
            "pod": [self.pod.namespace, self.pod.name, self.pod.uid],
            "ttlSeconds": self.ttl_seconds,
            "keyKind": self.key_kind,
            "current": material_to_json(current) if current else None,
        }


class Refused(HeddleError):
    """The ca, or the way to it, said no; status, code and `retry_after` (seconds) are as it gave them."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(str(body.get("message")), field=body.get("field"), hint=body.get("hint"))
        self.status, self.code = int(body.get("status", 503)), str(body.get("code"))
        self.retry_after = float(body.get("retryAfter", 0.0))


class IdentityKeeper:
    """`on_change(material)` is called with every new SVID, the kept one at the start included."""

    def __init__(
        self,
        children: Children,
        orders: Orders,
        on_change: Callable[[SvidMaterial], None],
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._wall = wall
        self._children = children
        self._orders = orders
        self._on_change = on_change
        self._working = asyncio.Lock()
        self._life: schedule.Life | None = None
        self._attempts = schedule.Attempts()
        self._ready = asyncio.Event()
        self._wake = asyncio.Event()
        self._refused_at = float("-inf")
        self.order = NO_ORDER
        self.material: SvidMaterial | None = None
        self.last_error: HeddleError | None = None

    @property
    def renew_at(self) -> float | None:
        """When the next renewal is due (Unix seconds)."""
        return self._life.renew_at if self._life else None

    @property
    def usable(self) -> bool:
        """There is an SVID that is valid now."""
        return self._life is not None and schedule.usable(self._life, self._wall())

    @property
    def renewing(self) -> bool:
        """A certificate has been asked for and has not come."""
        return self._working.locked()

    async def ready(self) -> SvidMaterial:
        """The SVID, as soon as there is one."""
        await self._ready.wait()
        assert self.material is not None
        return self.material

    def adopt(self, material: SvidMaterial) -> None:
        """Use `material` from now on; a newer bundle that is known already stays."""
        before = self.material
        material = replace(material, bundle=newer(before.bundle if before else None, material.bundle))
        if before is not None and not set(before.bundle.roots) & set(material.bundle.roots):
            self.order = NO_ORDER  # of a ca that is no more
        self._life = schedule.life(material.not_before, material.not_after, self._wall(), random.random())  # noqa: S311
        self.material, self.last_error = material, None
        self._bring_forward(self._wall() + schedule.AGAIN)
        self._on_change(material)
        self._ready.set()

    def tell(self, news: News) -> None:
        """Trust a newer bundle, and renew early when that is ordered. Call it once there is an SVID."""
        assert self.material is not None
        if news.order.number > self.order.number:
            self.order = news.order
            self._bring_forward(self._wall())
        if news.bundle.stamp > self.material.bundle.stamp:
            log.info("trusts bundle %d with %d roots", news.bundle.sequence, len(news.bundle.roots))
            self.material = replace(self.material, bundle=news.bundle)
            self._on_change(self.material)
            if has_lost_its_root(self.material):
                self._renew_soon()

    def refused(self) -> None:
        """A peer does not take the SVID in hand: renew at once, but for this reason not again and again."""
        if schedule.may_believe(self._refused_at, time.monotonic()):
            self._refused_at = time.monotonic()
            self._renew_soon()

    def _renew_soon(self) -> None:
        self._attempts = schedule.hurried(self._attempts, time.monotonic(), random.random())  # noqa: S311
        if self._life is not None:
            wall = self._wall()
            self._life = schedule.earlier(self._life, wall, wall, wall, 0.0)
        self._wake.set()

    def _bring_forward(self, earliest: float) -> None:
        """Renew early, not before `earliest`, if the SVID is one of those that are to be (see `early_renewal`)."""
        if self._life is None or self.material is None:
            return
        window = early_renewal(self.order, self.material, earliest)
        if window is not None:
            self._life = schedule.earlier(self._life, *window, self._wall(), random.random())  # noqa: S311
            self._wake.set()

    async def run(self) -> None:
        """Renew when it is due, for ever."""
        while True:
            pause = await self.step()
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def step(self) -> float:
        """Do what is due now; the seconds after which to look again."""
        async with self._working:
            action = schedule.decide(self._life, self._attempts, self._wall(), time.monotonic())
            if action is not schedule.Action.WAIT:
                try:
                    await self._renew(recover=action is schedule.Action.RECOVER)
                except HeddleError as error:
                    log.warning("no new certificate, will try again: %s", error)
            return schedule.pause(self._life, self._attempts, self._wall(), time.monotonic())

    async def renew_now(self) -> SvidMaterial:
        """Renew at once, whatever the schedule says; raises what the ca answers."""
        async with self._working:
            return await self._renew(recover=not self.usable)

    async def _renew(self, *, recover: bool) -> SvidMaterial:
        try:
            material = await self._fetch(None if recover else self.material)
        except HeddleError as error:
            self.last_error = error
            told = error.retry_after if isinstance(error, Refused) else 0.0
            self._attempts = schedule.after_failure(self._attempts, time.monotonic(), random.random(), told)  # noqa: S311
            raise
        self.adopt(material)
        assert self._life is not None
        self._attempts = schedule.after_success(self._life, self._wall(), time.monotonic(), random.random())  # noqa: S311
        log.info("certificate %s of %s until %d", material.serial, material.identity, material.not_after)
        return material

    async def _fetch(self, current: SvidMaterial | None) -> SvidMaterial:
        order = orjson.dumps(self._orders.as_json(current))
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                answer = orjson.loads(await self._run_child(order))
        except TimeoutError:
            raise Unavailable(f"no certificate within {FETCH_TIMEOUT:g} s") from None
        except ValueError:
            raise Unavailable("the process that fetches certificates failed; its log says why") from None
        if "error" in answer:
            raise Refused(answer["error"])
        return material_from_json(answer["material"])

    async def _run_child(self, order: bytes) -> bytes:
        order_read, order_write = os.pipe2(os.O_CLOEXEC)
        answer_read, answer_write = os.pipe2(os.O_CLOEXEC)
        child = self._children.spawn(
            [sys.executable, "-m", "agent.enrol"], {0: order_read, 1: answer_write}, environment=os.environ
        )
        os.close(order_read)
        os.close(answer_write)
        with open(order_write, "wb") as pipe:  # some kilobytes: less than a pipe holds
            pipe.write(order)
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader),
            open(answer_read, "rb"),  # noqa: SIM115  # the transport closes it
        )
        try:
            return await reader.read()
        finally:
            transport.close()
            child.kill(signal.SIGKILL)
