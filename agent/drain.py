"""The end of a pod: readiness goes, what is in flight finishes, then Envoy stops.

`drain_listeners?graceful&skip_exit` (Envoy's admin interface) makes every HTTP/1.1 answer say `connection: close` and
sends GOAWAY on HTTP/2, and keeps the listeners open for those who have not heard yet that this pod is going.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from agent.envoy import Envoy
from mesh.errors import Unavailable

log = logging.getLogger("agent.drain")

RESERVE = 2.0  # seconds of the grace period that are left for Envoy to stop and for us to exit
LOOK_EVERY = 0.1


def drain_seconds(wanted: float, grace_period: float) -> float:
    """How long connections may take to end: as configured, but over before kubelet sends SIGKILL."""
    return max(0.0, min(wanted, grace_period - RESERVE))


async def drain(
    envoy: Envoy, seconds: float, hurry: asyncio.Event, *, now: Callable[[], float], least: float = 0.0
) -> None:
    """Returns when no connection is open any more, though not within `least` seconds, after `seconds`, or as soon as
    `hurry` is set. Those who still open connections, because they have not heard yet that this pod is going, are why
    there is a least."""
    if not envoy.running:
        return
    deadline, soonest = now() + seconds, now() + min(least, seconds)
    try:
        await envoy.admin("POST", "/drain_listeners?graceful&skip_exit")
    except Unavailable as error:
        log.warning("Envoy does not drain: %s", error)
        return
    while now() < deadline and not hurry.is_set():
        if now() >= soonest and not await envoy.active_connections():
            log.info("drained: no connection is open")
            return
        try:
            async with asyncio.timeout(LOOK_EVERY):
                await hurry.wait()
        except TimeoutError:
            continue
    log.info("drain ends, %d connections are still open", await envoy.active_connections())
