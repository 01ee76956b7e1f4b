"""The one held request to discovery, and the late reports beside it (mesh/wire.py has the messages)."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from agent.bundle import Part, part
from agent.http_client import Answer, Connection, Untrusted, connect
from agent.relay import Relay
from mesh.errors import Forbidden, Gone, HeddleError, NotFound, Unavailable
from mesh.identity import Identity
from mesh.wire import ConfigRequest, ConfigResponse, ProxyInfo, ResourceType, TrustReport
from mesh.xds import TYPE_URLS
from svid.material import SvidMaterial
from svid.roots import trusted
from svid.tls import check_peer, client_context
from svid.trust import News, news_from_json

log = logging.getLogger("agent.discovery")

HOLD = 25.0  # seconds that discovery may hold the request
ANSWER_TIMEOUT = 20.0  # and how much longer the answer may take before the connection counts as dead
APPLY_PAUSE = 0.25  # longest wait for Envoy before the next request, which says what Envoy has applied
REPORT_PAUSE = 0.05  # several late changes make one report
REPORT_TRIES = 8  # of two replicas, it gets to the other one each time in one case of 256
MAX_ANSWER = 1 << 30
HEADERS = (("content-type", "application/json"),)
FIRST_RETRY, LONGEST_RETRY, UNKNOWN_RETRY = 0.1, 10.0, 0.5


class DiscoveryClient:
    """`proxy()` is who asks, `material()` the newest SVID; `on_update()` is called after each change of `relay`.

    `roots()` reads the mounted root certificates (PEM): who was away for as long as a rotation took knows discovery by
    them alone. `on_untrusted()` is called when discovery refuses the SVID.

    `trust()` is what is to be said of trust, and `on_trust(news)` hears of what is new about it.
    """

    def __init__(
        self,
        address: tuple[str, int],
        server: Identity,
        proxy: Callable[[], ProxyInfo],
        relay: Relay,
        *,
        material: Callable[[], SvidMaterial],
        roots: Callable[[], str],
        on_untrusted: Callable[[], None],
        on_update: Callable[[], None],
        trust: Callable[[], TrustReport],
        on_trust: Callable[[News], None],
    ) -> None:
        self._address = address
        self._server = server
        self._proxy = proxy
        self._relay = relay
        self._material, self._roots, self._on_untrusted = material, roots, on_untrusted
        self._on_update = on_update
        self._trust, self._on_trust = trust, on_trust
        self._late = asyncio.Event()  # set while a request is held, whose answer may be long in coming
        self._held = False
        self._reported = 0
        self._connection: Connection | None = None
        self._connected_with = ""
        self._ended: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._applying = False
        self.connected = False
        self.last_error: HeddleError | None = None

    def applied_changed(self) -> None:
        """Envoy has applied or refused something."""
        if self._held:
            self._late.set()
        elif self._applying and self._is_applied():
            self._ask()

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
                await self._connect()
                await self._converse()
            except Gone:
                self._relay.session = ""
            except NotFound as error:  # the pod has just been made: discovery will hear of it
                self._note(error)
                await asyncio.sleep(UNKNOWN_RETRY * (0.5 + random.random()))  # noqa: S311
            except HeddleError as error:
                failures = 0 if self.connected or isinstance(error, Untrusted) else failures
                self._note(error)
                self._disconnect()
                if isinstance(error, Untrusted):
                    self._on_untrusted()
                await asyncio.sleep(min(LONGEST_RETRY, FIRST_RETRY * 2.0**failures) * (0.5 + 0.5 * random.random()))  # noqa: S311
                failures = min(failures + 1, 16)

    def _note(self, error: HeddleError) -> None:
        if self.last_error is None or str(self.last_error) != str(error):
            log.warning("no configuration from discovery, will try again: %s", error)
        self.last_error = error
        self.connected = False

    # From here to `_answered` no task and no future: each step is taken inside the callback that makes it possible, so
    # that a change wakes the agent twice, by discovery's answer and by Envoy's log (docs/adr/0066).

    async def _converse(self) -> None:
        """One request after another, until the SVID is renewed or the connection closes; raises what goes wrong."""
        self._ended = asyncio.get_running_loop().create_future()
        try:
            self._ask()
            await self._ended
        finally:
            self._ended = None
            self._cancel_timer()
            self._held = self._applying = False

    def _ask(self) -> None:
        self._cancel_timer()
        self._applying = False
        if self._ended is None or self._ended.done():
            return
        if self._connection is None or not self._is_current(self._connection):
            self._ended.set_result(None)
            return
        self._reported, self._held = self._relay.revision, True
        wait = HOLD + ANSWER_TIMEOUT
        self._timer = asyncio.get_running_loop().call_later(wait, self._end, _silent(wait))
        self._connection.ask("POST", "/v1/config", HEADERS, self._request(HOLD), MAX_ANSWER, self._answered)

    def _answered(self, answer: Answer | Unavailable) -> None:
        if self._ended is None or self._ended.done():
            return
        self._cancel_timer()
        self._held = False
        try:
            body = _body(answer)
            self.connected, self.last_error = True, None
            if body is not None:
                self._take(body)
        except Exception as error:
            self._end(error)
            return
        if body is None or self._is_applied():
            self._ask()
        else:  # wait a moment for Envoy, so that the next request can say what it has applied
            self._applying = True
            self._timer = asyncio.get_running_loop().call_later(APPLY_PAUSE, self._ask)

    def _take(self, body: bytes) -> None:
        response = ConfigResponse.parse(orjson.loads(body))
        if response.trust is not None:
            self._on_trust(news_from_json(response.trust))
        relay = self._relay
        if (
            response.changed
            or response.removed
            or (response.session, response.sequence) != (relay.session, relay.sequence)
        ):
            relay.update(response.session, response.sequence, to_parts(response.changed), response.removed)
        self._on_update()

    def _is_applied(self) -> bool:
        """Envoy has taken all that is wanted, also of what this agent was told about trust."""
        trust = self._trust()
        return self._relay.is_applied and (trust.sequence, trust.revision) >= trust.known

    def _end(self, error: Exception) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(error)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _request(self, hold: float) -> bytes:
        relay = self._relay
        request = ConfigRequest(
            proxy=self._proxy(),
            session=relay.session,
            sequence=relay.sequence,
            versions=None if relay.session else relay.versions(),
            applied=dict(relay.applied),
            hold_seconds=hold,
            trust=self._trust(),
        )
        return orjson.dumps(request.as_json())

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
                await self._report()
            except HeddleError as error:
                log.info("a report to discovery failed, the next request will carry it: %s", error)

    async def _report(self) -> None:
        """By a connection of its own. It may lead to a replica that does not hold the request: another may not."""
        for left in reversed(range(REPORT_TRIES)):
            connection = await self._open()
            try:
                await _report(connection, self._request(0.0))
            except Gone:
                if not left:
                    raise
            else:
                return
            finally:
                connection.close()

    def _is_current(self, connection: Connection) -> bool:
        return connection.reusable and self._connected_with == self._material().serial

    async def _connect(self) -> None:
        """The connection for the held request: a new one after a break, and after a renewal of the SVID."""
        if self._connection is not None and self._is_current(self._connection):
            return
        self._disconnect()
        serial = self._material().serial
        self._connection, self._connected_with = await self._open(), serial

    async def _open(self) -> Connection:
        material = self._material()
        connection = await connect(*self._address, tls=self._tls(material))
        try:
            check_peer(connection.ssl_object, (self._server,))
        except HeddleError:
            connection.close()
            raise
        return connection

    def _tls(self, material: SvidMaterial) -> ssl.SSLContext:
        try:
            return client_context(trusted(self._roots, material), material)
        except ssl.SSLError:  # somebody has put into the ConfigMap what is no certificate
            return client_context(material.bundle.pem, material)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


async def _report(connection: Connection, body: bytes) -> None:
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            _body(await connection.request("POST", "/v1/report", HEADERS, body, limit=MAX_ANSWER))
    except TimeoutError:
        raise _silent(ANSWER_TIMEOUT) from None


def _silent(seconds: float) -> Unavailable:
    return Unavailable(f"discovery did not answer within {seconds:g} s")


def _body(answer: Answer | Unavailable) -> bytes | None:
    """The body of a 200, None for 204; raises the HeddleError that the status says."""
    if isinstance(answer, Unavailable):
        raise answer
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
