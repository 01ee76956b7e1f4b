"""Envoy's xDS and SDS server on the agent's Unix socket: holds each poll until the relay has news for it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial

import orjson

from agent.http_server import JSON, Later, Request, Response
from agent.relay import Key, Relay
from mesh.errors import InvalidInput
from mesh.wire import ResourceType
from mesh.xds import AGENT_HOLD_SECONDS, TYPE_URLS, rest_path

log = logging.getLogger("agent.xds")

PATHS = {rest_path(kind): kind for kind in TYPE_URLS}
STAGE_TIMEOUT = 15.0
"""Seconds after which a change goes on although Envoy has not taken all of the stage before."""
WARM_CHECK_FIRST, WARM_CHECK_LONGEST = 0.001, 0.1  # seconds between two looks at Envoy's gauges
_UNCHANGED = Response(304, content_type=JSON)

# A poll is 77 KB, nearly all of it the list of Envoy's extensions inside `node`. Envoy writes the fields in the order
# of their numbers, without white space: version_info, node, resource_names, type_url.
_HEAD = re.compile(rb'\{(?:"version_info":"([0-9]*)",)?"node":\{')
_TAIL = re.compile(
    rb'\](?:,"[a-z_]+":(?:"[^"\\]*"|\{\}))*\}(?:,"resource_names":\["([^"\\,]+)"\])?,"type_url":"[^"]*"\}\Z'
)
_TAIL_BYTES = 2048
_VERSION = re.compile(rb'"version":\{"major_number":(\d+)(?:,"minor_number":(\d+))?(?:,"patch":(\d+))?\}')


def parse_poll(body: bytes) -> tuple[str, str]:
    """(version, resource name) of a DiscoveryRequest in JSON; the name is empty for clusters and listeners."""
    head, tail = _HEAD.match(body), _TAIL.search(body, max(0, len(body) - _TAIL_BYTES))
    if head and tail:
        return (head[1] or b"").decode(), (tail[1] or b"").decode()
    try:
        request = orjson.loads(body)
        names = request.get("resource_names") or [""]
        version = request.get("version_info", "")
    except (ValueError, AttributeError):
        raise InvalidInput("a DiscoveryRequest must be a JSON object") from None
    if len(names) != 1 or not isinstance(names[0], str) or not isinstance(version, str):
        raise InvalidInput("one resource name a subscription", field="resource_names")
    return version, names[0]


def envoy_version(body: bytes) -> str:
    """Envoy's version as `1.40.0`, by what it says of itself in every poll; empty when it does not."""
    found = _VERSION.search(body, 0, _TAIL_BYTES)
    return ".".join((part or b"0").decode() for part in found.groups()) if found else ""


class _Held:
    """A poll that waits for news."""

    __slots__ = ("later", "timer", "version")
    later: Later
    timer: asyncio.TimerHandle

    def __init__(self, version: str) -> None:
        self.version = version


class XdsServer:
    """`is_warming()` asks Envoy's gauges; `before_poll()` takes in what Envoy has logged until now.

    `on_applied()` is called whenever `relay.applied` says something new.
    """

    def __init__(
        self,
        relay: Relay,
        *,
        is_warming: Callable[[], Awaitable[bool]],
        before_poll: Callable[[], None],
        on_applied: Callable[[], None],
    ) -> None:
        self._relay = relay
        self._is_warming = is_warming
        self._before_poll = before_poll
        self._on_applied = on_applied
        self._revision = relay.revision
        self._stage_timer: asyncio.TimerHandle | None = None
        self.envoy_version = ""
        self._held: dict[Key, list[_Held]] = {}
        self._warm_check: asyncio.Task[None] | None = None

    def handle(self, kind: ResourceType, request: Request) -> Response | Later:
        """Answer now, or later when there is news."""
        self._before_poll()
        version, name = parse_poll(request.body)
        self.envoy_version = self.envoy_version or envoy_version(request.body)
        body = self._relay.poll(kind, name, version)
        self.pass_on()
        return _ok(body) if body is not None else self._hold((kind, name), version)

    def pass_on(self) -> None:
        """Answer the held polls that there is news for. Call after every change of the relay."""
        while news := self._relay.take_news():
            for key in news:
                for held in tuple(self._held.get(key, ())):
                    if (body := self._relay.answer(key, held.version)) is not None:
                        self._release(key, held)
                        held.later.give(_ok(body))
        if self._relay.needs_warm_check and self._warm_check is None:
            self._warm_check = asyncio.create_task(self._check_warming())
        if self._relay.revision != self._revision:
            self._revision = self._relay.revision
            self._on_applied()
        if not self._relay.in_order:
            self._stage_timer = self._stage_timer or asyncio.get_running_loop().call_later(STAGE_TIMEOUT, self._go_on)
        elif self._stage_timer is not None:
            self._stage_timer.cancel()
            self._stage_timer = None

    def _go_on(self) -> None:
        self._stage_timer = None
        log.warning("Envoy has not taken stage %s of a change, going on", self._relay.stage.value)
        self._relay.force()
        self.pass_on()

    def _hold(self, key: Key, version: str) -> Later:
        held = _Held(version)
        held.later = Later(partial(self._left, key, held))
        held.timer = asyncio.get_running_loop().call_later(AGENT_HOLD_SECONDS, self._expire, key, held)
        self._held.setdefault(key, []).append(held)
        return held.later

    def _release(self, key: Key, held: _Held) -> None:
        held.timer.cancel()
        others = self._held[key]
        others.remove(held)
        if not others:
            del self._held[key]

    def _expire(self, key: Key, held: _Held) -> None:
        self._release(key, held)
        held.later.give(_UNCHANGED)

    def _left(self, key: Key, held: _Held) -> None:
        self._release(key, held)
        if key not in self._held:
            self._relay.left(key)
            self.pass_on()

    async def _check_warming(self) -> None:
        pause = WARM_CHECK_FIRST
        try:
            while self._relay.needs_warm_check:
                if await self._is_warming():
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, WARM_CHECK_LONGEST)
                else:
                    self._relay.warmed()
        finally:
            self._warm_check = None
        self.pass_on()


def _ok(body: bytes) -> Response:
    return Response(200, body, JSON)
