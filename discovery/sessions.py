"""Agents' sessions: one held request each (`mesh/wire.py` has the messages, versions.py the bookkeeping).

A request is held until this proxy's resources differ from what its agent has, or until its time is up. A client that
hangs holds its own greenlet and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from gevent.event import Event

from discovery.compiling import Compiled, Compiler
from discovery.hub import Hub, Moment
from discovery.metrics import Metrics
from discovery.versions import Delta, Ledger, difference
from mesh.errors import Forbidden, Gone, HeddleError, NotFound
from mesh.identity import Identity
from mesh.objects import Key, Pod
from mesh.wire import ConfigRequest, ProxyInfo, TrustReport

POD_WAIT_SECONDS = 3.0
"""How long a proxy is kept waiting for its own pod to become known, before it is told to ask again."""
BETWEEN_POLLS_SECONDS = 10.0
"""A proxy without a held request counts as connected for this long."""
EXPIRY_SECONDS = 120.0
LAST_SEEN_SECONDS = 1.0
"""How exact the time is at which a proxy was last heard of: putting a time into words costs as much as a short poll."""
MOST_PODS = 4096


@lru_cache(maxsize=MOST_PODS)
def _runs_as(pod: Pod, trust_domain: str) -> Identity:
    return Identity(trust_domain, pod.meta.namespace, pod.service_account)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with content."""

    session: str
    sequence: int
    delta: Delta
    trust: bytes = b""
    """What is new about trust, as JSON; empty when nothing is."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What sessions need from outside. `wall` gives RFC 3339 text, `new_id` an unguessable name.

    `trust`: what an agent that has said so much has yet to hear about trust, as JSON.
    """

    hub: Hub
    compiler: Compiler
    metrics: Metrics
    wall: Callable[[], str]
    new_id: Callable[[], str]
    trust: Callable[[TrustReport | None], bytes] = lambda _report: b""

    def compile(self, moment: Moment, key: Key, last: Compiled) -> Compiled:
        """What the proxy `key` should have as of `moment`; `last` where that cannot be computed."""
        began = self.hub.clock()
        compiled = self.compiler.compile(moment.snapshot, moment.snapshot.pods[key], last)
        self.metrics.compiled(self.hub.clock() - began, failed=compiled.failed)
        return compiled


class Session:
    """One agent's session. Lives until the pod goes, the agent starts another, or nothing is heard of it."""

    def __init__(
        self,
        tools: Tools,
        pod: Pod,
        identity: Identity,
        request: ConfigRequest,
        on_end: Callable[[Session], None] = lambda _: None,
    ) -> None:
        self._tools = tools
        self._on_end = on_end
        self.id = tools.new_id()
        self.key = pod.meta.key
        self.pod_uid = pod.meta.uid
        self.identity = identity
        self.proxy: ProxyInfo = request.proxy
        self.trust = request.trust
        self.since = tools.wall()
        self.last_seen_text = self.since
        self.ledger = Ledger.new(request.versions, request.applied)
        self.compiled = Compiled()
        self._began = self._seen = self._told = tools.hub.clock()
        self._moment: Moment | None = None
        self._turn = 0
        self._held: Event | None = None
        self._ended: HeddleError | None = None

    # ---- as a member of the hub

    @property
    def version(self) -> str:
        return self.proxy.agent_version

    @property
    def connected(self) -> bool:
        return self._held is not None or self._tools.hub.clock() - self._seen < BETWEEN_POLLS_SECONDS

    @property
    def generation(self) -> int:
        return self.ledger.generation

    def refresh(self, moment: Moment) -> None:
        self.compiled = self._tools.compile(moment, self.key, self.compiled)
        if self.compiled.failed:
            return
        self._moment = moment
        self._tell()

    def unchanged(self, moment: Moment) -> None:
        if not self.compiled.failed:
            self._moment = moment
            self._tell()

    def expired(self, now: float) -> bool:
        return self._held is None and now - self._seen > EXPIRY_SECONDS

    def end(self, error: HeddleError) -> None:
        self._ended = error
        self._on_end(self)
        if self._held is not None:
            self._held.set()

    # ---- as the agent's partner

    def poll(self, request: ConfigRequest, *, fresh: bool) -> Reply | None:
        """What changed, held until something does; None when nothing did for `hold_seconds`, or when a later poll of
        the same session came. A fresh session is always answered, since the agent must learn its name."""
        hub = self._tools.hub
        self.proxy = request.proxy
        deadline = hub.clock() + request.hold_seconds
        self._turn += 1
        turn = self._turn
        if self._held is not None:
            self._held.set()
            self._held = None
        if not fresh:
            self.ledger = self.ledger.asked(request.sequence)
            self.report(request)
        if self._moment is None:
            self.refresh(hub.current(0.0))
        try:
            while True:
                if self._ended is not None:
                    raise self._ended
                if turn != self._turn:
                    return None
                delta = difference(self.ledger.held, self.compiled.resources)
                trust = self._tools.trust(self.trust)
                if self._moment is not None and (delta or fresh):
                    return self._answer(delta, self._moment, trust)
                if trust and self.ledger.pending is None:
                    return Reply(self.id, self.ledger.sequence, delta, trust)
                self._is_current()
                left = deadline - hub.clock()
                if left <= 0:
                    return None
                self._held = held = Event()
                hub.progressed()
                held.wait(left)
        finally:
            self._heard()
            if turn == self._turn:
                self._held = None

    def report(self, request: ConfigRequest) -> None:
        """Take in what Envoy has applied, and what the agent trusts."""
        self._heard()
        self.trust = request.trust
        before = self.ledger
        self.ledger = before.reported(request.applied)
        now = self._tools.hub.clock()
        for answer in before.unapplied:
            if answer not in self.ledger.unapplied:
                self._tools.metrics.converged(now - answer.arrived)
        for kind, state in request.applied.items():
            known = before.applied.get(kind)
            if state.rejected and (known is None or known.rejected != state.rejected):
                self._tools.metrics.rejected(kind)
        self._tools.hub.progressed()

    def _answer(self, delta: Delta, moment: Moment, trust: bytes) -> Reply:
        # A proxy that begins now is not late for what changed long ago.
        arrived = max(moment.arrived, self._began)
        self.ledger = self.ledger.answered(self.compiled.resources, delta, moment.generation, arrived)
        self._tools.metrics.pushed(delta)
        assert self.ledger.pending is not None
        return Reply(self.id, self.ledger.pending.sequence, delta, trust)

    def wake(self) -> None:
        """Have a held poll look again."""
        if self._held is not None:
            self._held.set()

    def _tell(self) -> None:
        """Wake the held poll if there is news. It may have been woken before and not have run yet."""
        if self._held is None:
            return
        if difference(self.ledger.held, self.compiled.resources):
            self._held.set()
        else:
            self._is_current()

    def _is_current(self) -> None:
        """The agent lacks nothing: the caller has looked."""
        if self._moment is not None and self.ledger.pending is None:
            self.ledger = self.ledger.current(self.compiled.resources, self._moment.generation)

    def _heard(self) -> None:
        self._seen = self._tools.hub.clock()
        if self._seen - self._told >= LAST_SEEN_SECONDS:
            self._told, self.last_seen_text = self._seen, self._tools.wall()


class Sessions:
    """All agents' sessions of this process."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._by_id: dict[str, Session] = {}
        self._by_pod: dict[Key, Session] = {}

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_pod.values()))

    def poll(self, request: ConfigRequest, identity: Identity) -> Reply | None:
        """Answer `POST /v1/config` of the caller `identity`. Raises Forbidden, NotFound, Gone, Unavailable."""
        pod = self._pod(request, identity)
        if request.session:
            return self._known(request, pod).poll(request, fresh=False)
        session = Session(self._tools, pod, identity, request, self._forget)
        before = self._by_pod.get(session.key)
        if before is not None:
            self._tools.hub.remove(before, Gone("the agent has started another session"))
        self._by_id[session.id] = self._by_pod[session.key] = session
        self._tools.hub.add(session)
        return session.poll(request, fresh=True)

    def wake(self) -> None:
        """Have every held poll look again."""
        for session in self:
            session.wake()

    def report(self, request: ConfigRequest, identity: Identity) -> None:
        """Answer `POST /v1/report`. Raises Forbidden, NotFound, Gone, Unavailable."""
        self._known(request, self._pod(request, identity)).report(request)

    def _known(self, request: ConfigRequest, pod: Pod) -> Session:
        session = self._by_id.get(request.session)
        if session is None or session.key != pod.meta.key:
            raise Gone(
                "this discovery does not know the session",
                field="session",
                hint="start a new one: leave session empty and send versions",
            )
        return session

    def _pod(self, request: ConfigRequest, identity: Identity) -> Pod:
        """The caller's pod. A wrong identity is refused at once; a pod that is not known yet is waited for."""
        claimed, hub = request.proxy, self._tools.hub
        key = Key(claimed.namespace, claimed.pod)

        def fits(pod: Pod) -> bool:
            self._authorise(pod, identity)
            return bool(pod.ip) and claimed.ip in ("", pod.ip) and not pod.finished

        pod = hub.pod(key, fits, min(POD_WAIT_SECONDS, request.hold_seconds))
        if pod is None:
            at = f" with address {claimed.ip}" if claimed.ip else ""
            raise NotFound(f"the pod {key} is not known{at}", field="proxy.pod", hint="try again: it may be on its way")
        return pod

    def _authorise(self, pod: Pod, identity: Identity) -> None:
        moment = self._tools.hub.current(0.0)
        expected = _runs_as(pod, moment.snapshot.settings.trust_domain)
        if identity != expected:
            raise Forbidden(
                f"{identity} asked for the configuration of the pod {pod.meta.key}, which runs as {expected}",
                field="proxy.pod",
                hint="a proxy can ask only for itself",
            )

    def _forget(self, session: Session) -> None:
        self._by_id.pop(session.id, None)
        if self._by_pod.get(session.key) is session:
            del self._by_pod[session.key]
