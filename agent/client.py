"""The one held request to discovery, and the late reports beside it (mesh/wire.py has the messages)."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from agent.bundle import Part, part
from agent.http_client import Connection, connect
from agent.relay import Relay
from mesh.errors import Forbidden, Gone, HeddleError, NotFound, Unavailable
from mesh.identity import Identity
from mesh.wire import ConfigRequest, ConfigResponse, ProxyInfo, ResourceType
from mesh.xds import TYPE_URLS
from svid.material import SvidMaterial
from svid.tls import check_peer, client_context

log = logging.getLogger("agent.discovery")

HOLD = 25.0  # seconds that discovery may hold the request
ANSWER_TIMEOUT = 20.0  # and how much longer the answer may take before the connection counts as dead
APPLY_PAUSE = 0.25  # longest wait for Envoy before the next request, which says what Envoy has applied
REPORT_PAUSE = 0.05  # several late changes make one report
FIRST_RETRY, LONGEST_RETRY, UNKNOWN_RETRY = 0.1, 10.0, 0.5


class DiscoveryClient:
    """`proxy()` is who asks, `material()` the newest SVID; `on_update()` is called after each change of `relay`."""

    def __init__(
        self,
        address: tuple[str, int],
        server: Identity,
        proxy: Callable[[], ProxyInfo],
        relay: Relay,
        *,
        material: Callable[[], SvidMaterial],
        on_update: Callable[[], None],
    ) -> None:
        self._address = address
        self._server = server
        self._proxy = proxy
        self._relay = relay
        self._material = material
        self._on_update = on_update
        self._applied = asyncio.Event()
        self._late = asyncio.Event()  # set while a request is held, whose answer may be long in coming
        self._held = False
        self._reported = 0
        self._connection: Connection | None = None
        self._connected_with = ""
        self.connected = False
        self.last_error: HeddleError | None = None

    def applied_changed(self) -> None:
        """Envoy has applied or refused something."""
        self._applied.set()
        if self._held:
            self._late.set()

    async def run(self) -> None:
        """Ask, for ever."""
        reporter = asyncio.create_task(self._report_late())
        try:
            await self._keep_asking()
        finally:
            reporter.cancel()

    async def _keep_asking(self) -> None:
        failures = 0
        while True:
            try:
                await self._poll()
                failures, self.last_error = 0, None
            except Gone:
                self._relay.session = ""
            except NotFound as error:  # the pod has just been made: discovery will hear of it
                self._note(error)
                await asyncio.sleep(UNKNOWN_RETRY * (0.5 + random.random()))  # noqa: S311
            except HeddleError as error:
                self._note(error)
                self._disconnect()
                await asyncio.sleep(min(LONGEST_RETRY, FIRST_RETRY * 2.0**failures) * (0.5 + 0.5 * random.random()))  # noqa: S311
                failures = min(failures + 1, 16)

    def _note(self, error: HeddleError) -> None:
        if self.last_error is None or str(self.last_error) != str(error):
            log.warning("no configuration from discovery, will try again: %s", error)
        self.last_error = error
        self.connected = False

    async def _poll(self) -> None:
        relay = self._relay
        connection = await self._connect()
        self._reported, self._held = relay.revision, True
        try:
            answer = await _post(connection, "/v1/config", self._request(HOLD).as_json(), HOLD + ANSWER_TIMEOUT)
        finally:
            self._held = False
        self.connected = True
        if answer is None:
            return
        response = ConfigResponse.parse(orjson.loads(answer))
        del answer
        relay.update(response.session, response.sequence, to_parts(response.changed), response.removed)
        del response
        self._on_update()
        await self._until_applied()

    def _request(self, hold: float) -> ConfigRequest:
        relay = self._relay
        return ConfigRequest(
            proxy=self._proxy(),
            session=relay.session,
            sequence=relay.sequence,
            versions=None if relay.session else relay.versions(),
            applied=dict(relay.applied),
            hold_seconds=hold,
        )

    async def _until_applied(self) -> None:
        """Wait a moment for Envoy, so that the next request can say what it has applied."""
        loop = asyncio.get_running_loop()
        until = loop.time() + APPLY_PAUSE
        while not self._relay.is_applied:
            self._applied.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._applied.wait()
            except TimeoutError:
                return

    async def _report_late(self) -> None:
        """While a request is held: tell discovery what Envoy applies or refuses in the meantime."""
        while True:
            await self._late.wait()
            self._late.clear()
            await asyncio.sleep(REPORT_PAUSE)
            if self._relay.revision == self._reported or not self._held or not self._relay.session:
                continue
            self._reported = self._relay.revision
            try:
                connection = await self._open()
                try:
                    await _post(connection, "/v1/report", self._request(0.0).as_json(), ANSWER_TIMEOUT)
                finally:
                    connection.close()
            except HeddleError as error:
                log.info("a report to discovery failed, the next request will carry it: %s", error)

    async def _connect(self) -> Connection:
        """The connection for the held request: a new one after a break, and after a renewal of the SVID."""
        current = self._connected_with == self._material().serial
        if self._connection is not None and current and self._connection.reusable:
            return self._connection
        self._disconnect()
        serial = self._material().serial
        self._connection, self._connected_with = await self._open(), serial
        return self._connection

    async def _open(self) -> Connection:
        material = self._material()
        connection = await connect(*self._address, tls=client_context(material.bundle.pem, material))
        try:
            check_peer(connection.ssl_object, (self._server,))
        except HeddleError:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


async def _post(connection: Connection, path: str, body: Mapping[str, Any], timeout: float) -> bytes | None:
    """The body of a 200, None for 204; raises the HeddleError that the status says."""
    try:
        async with asyncio.timeout(timeout):
            answer = await connection.request(
                "POST", path, [("content-type", "application/json")], orjson.dumps(body), limit=1 << 30
            )
    except TimeoutError:
        connection.close()
        raise Unavailable(f"discovery did not answer within {timeout:g} s") from None
    if answer.status == 200:
        return answer.body
    if answer.status == 204:
        return None
    raise _error(answer.status, answer.body)


def _error(status: int, body: bytes) -> HeddleError:
    try:
        said = orjson.loads(body)["error"]
        message, hint = str(said["message"]), said.get("hint")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, hint = f"discovery answered {status}", None
    kinds: dict[int, type[HeddleError]] = {403: Forbidden, 404: NotFound, 410: Gone}
    return kinds.get(status, Unavailable)(message, hint=hint)


def to_parts(changed: Mapping[str, Mapping[str, tuple[str, Any]]]) -> dict[str, dict[str, Part]]:
    """Resources as JSON texts, with `@type` where Envoy expects one: a tenth of the memory that dicts take."""
    parts: dict[str, dict[str, Part]] = {}
    for kind, entries in changed.items():
        url = TYPE_URLS.get(ResourceType(kind))
        parts[kind] = {}
        for name, (version, resource) in entries.items():
            if url is not None and "@type" not in resource:
                resource = {"@type": url, **resource}
            parts[kind][name] = part(version, resource)
    return parts
