"""xDS over REST for an Envoy without an agent: `POST /v3/discovery:<type>` in plain HTTP.

Envoy (`http_subscription_impl.cc`) polls each subscription by itself with the version that it has, and polls again as
soon as it is answered. So a poll without news is held, and ends with 304; an empty set is a 200 with `resources: []`,
since anything else leaves Envoy warming. A refusal has no message in REST: it is the old version once more. A new
subscription to the same names looks alike, so the first few are answered at once; after that the poll is held, and
answered again after longer and longer pauses.

The port knows nobody: there is no client certificate. So it gives no private keys (`secrets` is always empty), and
whoever reaches it can read the configuration of any pod. plain.py says what such an Envoy can do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from flask import Flask, Response

from discovery.compiling import Compiled
from discovery.findings import Finding
from discovery.hub import Hub, Moment, Signal
from discovery.layers import Entries, Resource
from discovery.polls import ORDINARY
from discovery.sessions import BETWEEN_POLLS_SECONDS, EXPIRY_SECONDS, POD_WAIT_SECONDS, Tools
from discovery.status import ProxyStatus, TypeStatus
from discovery.versions import set_version
from mesh.errors import HeddleError, InvalidInput, NotFound
from mesh.objects import Key, Pod
from mesh.wire import ResourceType
from mesh.xds import HOLD_SECONDS, TYPE_URLS, assemble_routes
from serving.json_http import handle_errors, read_json

MAX_BODY = 4 << 20
ANSWERS_BEFORE_REFUSAL = 3
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
MOST_SUBSCRIPTIONS = 20_000

_NODE_ID = re.compile(r"(?P<role>[^~]+)~(?P<ip>[^~]*)~(?P<pod>[^~.]+(\.[^~.]+)*)\.(?P<namespace>[^~.]+)~[^~]*\Z")


@dataclass(frozen=True, slots=True)
class Poll:
    """One DiscoveryRequest. `names` empty: everything of the type."""

    key: Key
    ip: str
    node: str
    kind: ResourceType
    names: tuple[str, ...]
    version: str


@dataclass(slots=True)
class Subscription:
    """What one subscription was given. `answers`: how often in a row `sent` went out without being taken."""

    sent: str = ""
    taken: str = ""
    answers: int = 0
    again: float = 0.0

    @property
    def refused(self) -> bool:
        return self.answers >= ANSWERS_BEFORE_REFUSAL


class BareProxy:
    """One Envoy, by its node id."""

    def __init__(self, tools: Tools, pod: Pod, poll: Poll) -> None:
        self._tools = tools
        self.key, self.pod_uid = pod.meta.key, pod.meta.uid
        self.node, self.ip = poll.node, pod.ip
        self.since = self.last_seen_text = tools.wall()
        self.compiled = Compiled()
        self.subscriptions: dict[tuple[ResourceType, tuple[str, ...]], Subscription] = {}
        self.ended: HeddleError | None = None
        self._seen = tools.hub.clock()
        self._held = 0
        self._moment: Moment | None = None
        self._applied = 0
        self._news = Signal()

    # ---- as a member of the hub

    version = ""

    @property
    def connected(self) -> bool:
        return self._held > 0 or self._tools.hub.clock() - self._seen < BETWEEN_POLLS_SECONDS

    @property
    def generation(self) -> int:
        moment = self._moment
        if moment is not None and self._applied < moment.generation and self.subscriptions:
            current = (set_version(select(self.compiled, *of)) for of in self.subscriptions)
            if all(map(str.__eq__, current, (held.taken for held in self.subscriptions.values()))):
                self._applied = moment.generation
        return self._applied

    def refresh(self, moment: Moment) -> None:
        self.compiled = self._tools.compile(moment, self.key, self.compiled)
        if not self.compiled.failed:
            self._moment = moment
            self._news.notify()

    def unchanged(self, moment: Moment) -> None:
        if not self.compiled.failed:
            self._moment = moment

    def expired(self, now: float) -> bool:
        return self._held == 0 and now - self._seen > EXPIRY_SECONDS

    def end(self, error: HeddleError) -> None:
        self.ended = error
        self._news.notify()

    # ---- as Envoy's server

    def poll(self, poll: Poll) -> bytes | None:
        """The DiscoveryResponse; None when nothing came for `HOLD_SECONDS`."""
        hub = self._tools.hub
        if self._moment is None:
            self.refresh(hub.current(0.0))
        subscription = self._subscription(poll)
        deadline = hub.clock() + HOLD_SECONDS
        self._held += 1
        try:
            while True:
                if self.ended is not None:
                    raise self.ended
                entries = select(self.compiled, poll.kind, poll.names)
                version = set_version(entries)
                if self._moment is not None and self._is_news(subscription, poll.version, version):
                    return _response(poll.kind, version, entries)
                now = hub.clock()
                if now >= deadline:
                    return None
                self._news.wait((min(subscription.again, deadline) if subscription.again > now else deadline) - now)
        finally:
            self._held -= 1
            self._seen, self.last_seen_text = hub.clock(), self._tools.wall()

    def status(self) -> ProxyStatus:
        """By type; a subscription that Envoy keeps refusing shows as a rejection."""
        return ProxyStatus(
            key=self.key,
            kind="bare",
            ip=self.ip,
            identity="",
            role=str(self.compiled.plan.proxy.role) if self.compiled.plan else "",
            envoy_version="",
            agent_version="",
            connected=self.connected,
            since=self.since,
            last_seen=self.last_seen_text,
            sequence=self._applied,
            failed=self.compiled.failed,
            types={kind: self._type_status(ResourceType(kind)) for kind in {str(k) for k, _ in self.subscriptions}},
        )

    def _subscription(self, poll: Poll) -> Subscription:
        key = (poll.kind, poll.names)
        if key not in self.subscriptions and len(self.subscriptions) >= MOST_SUBSCRIPTIONS:
            raise InvalidInput(f"{poll.node} has more than {MOST_SUBSCRIPTIONS} subscriptions", field="resource_names")
        return self.subscriptions.setdefault(key, Subscription())

    def _is_news(self, subscription: Subscription, has: str, version: str) -> bool:
        """Whether to answer with `version` now; keeps the books."""
        now = self._tools.hub.clock()
        if has == version:
            subscription.sent, subscription.taken = version, version
            subscription.answers, subscription.again = 0, 0.0
            self._tools.hub.progressed()
            return False
        if subscription.sent != version:
            subscription.sent, subscription.answers, subscription.again = version, 0, 0.0
        elif subscription.refused and now < subscription.again:
            return False
        subscription.answers += 1
        if subscription.refused:
            pause = FIRST_PAUSE * 2.0 ** min(subscription.answers - ANSWERS_BEFORE_REFUSAL, 10)
            subscription.again = now + min(LONGEST_PAUSE, pause)
        return True

    def _type_status(self, kind: ResourceType) -> TypeStatus:
        entries = select(self.compiled, kind, ())
        current = set_version(entries)
        mine = [(names, held) for (of, names), held in self.subscriptions.items() if of is kind]
        taken = all(held.taken == set_version(select(self.compiled, kind, names)) for names, held in mine)
        refused = [" ".join(names) or "all" for names, held in mine if held.refused]
        said = "Envoy asked again with the version before; its log says why"
        return TypeStatus(
            current=current,
            applied=current if taken else "",
            count=len(entries),
            lagging=not taken,
            rejected=tuple({"name": name, "message": said, "since": ""} for name in refused),
        )


class Bare:
    """All Envoys without an agent that poll this process. `tools.compiler` makes their plans."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._proxies: dict[str, BareProxy] = {}

    def poll(self, poll: Poll) -> bytes | None:
        """Raises NotFound for a pod that is not known."""
        hub: Hub = self._tools.hub
        pod = hub.pod(poll.key, lambda pod: bool(pod.ip) and not pod.finished, POD_WAIT_SECONDS)
        if pod is None:
            raise NotFound(
                f"the pod {poll.key} of {poll.node!r} is not known",
                field="node.id",
                hint="node.id is sidecar~<ip>~<pod>.<namespace>~<domain>, and the pod must exist and have an address",
            )
        proxy = self._proxies.get(poll.node)
        if proxy is None or proxy.ended is not None:
            self._forget_ended()
            proxy = self._proxies[poll.node] = BareProxy(self._tools, pod, poll)
            hub.add(proxy)
        return proxy.poll(poll)

    def status(self) -> list[tuple[ProxyStatus, tuple[Finding, ...]]]:
        """Each with what is wrong in its plan."""
        self._forget_ended()
        return [(proxy.status(), proxy.compiled.findings) for proxy in self._proxies.values()]

    def _forget_ended(self) -> None:
        self._proxies = {node: proxy for node, proxy in self._proxies.items() if proxy.ended is None}


def create_bare_app(bare: Bare) -> Flask:
    """The Flask application of the plain HTTP port."""
    app = Flask("discovery.bare", static_folder=None)

    @app.post("/v3/discovery:<kind>")
    def discover(kind: str) -> Response:
        body = bare.poll(parse_poll(kind, read_json(MAX_BODY)))
        return Response(status=304) if body is None else Response(body, 200, mimetype="application/json")

    handle_errors(app, "discovery", ordinary=ORDINARY)
    return app


def parse_poll(kind: str, raw: object) -> Poll:
    """A DiscoveryRequest in protobuf's JSON, in either spelling of its fields. NotFound or InvalidInput."""
    if kind not in set(TYPE_URLS):
        known = ", ".join(TYPE_URLS)
        raise NotFound(f"there are no resources of type {kind!r}", hint=f"known: {known}")
    if not isinstance(raw, dict):
        raise InvalidInput("a DiscoveryRequest is a JSON object", field="body")
    node = raw.get("node")
    node_id = node.get("id") if isinstance(node, dict) else None
    found = _NODE_ID.match(node_id) if isinstance(node_id, str) else None
    if found is None:
        raise InvalidInput(
            f"{node_id!r} does not name a pod",
            field="node.id",
            hint="write sidecar~<ip>~<pod>.<namespace>~<domain>",
        )
    names = _either(raw, "resource_names", "resourceNames", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidInput("must be a list of texts", field="resource_names")
    version = _either(raw, "version_info", "versionInfo", "")
    if not isinstance(version, str):
        raise InvalidInput("must be a text", field="version_info")
    wildcard = () if "*" in names else tuple(sorted(set(names)))
    return Poll(Key(found["namespace"], found["pod"]), found["ip"], found[0], ResourceType(kind), wildcard, version)


def select(compiled: Compiled, kind: ResourceType, names: tuple[str, ...]) -> Entries:
    """The resources that a subscription is about, route configurations put together."""
    entries = compiled.resources.get(kind, {})
    if names:
        entries = {name: entries[name] for name in names if name in entries}
    if kind is not ResourceType.ROUTES:
        return entries
    hosts: dict[str, list[Resource]] = {name: [] for name in entries}
    for name, host in compiled.resources.get(ResourceType.VIRTUAL_HOSTS, {}).items():
        route = name.partition("/")[0]
        if route in hosts:
            hosts[route].append(host)
    return {
        name: (set_version({"": route, **{str(i): h for i, h in enumerate(hosts[name])}}), _whole(route, hosts[name]))
        for name, route in entries.items()
    }


def _whole(route: Resource, hosts: list[Resource]) -> bytes:
    return assemble_routes(route[1], [host for _, host in hosts])


def _response(kind: ResourceType, version: str, entries: Entries) -> bytes:
    return orjson.dumps(
        {
            "version_info": version,
            "type_url": TYPE_URLS[kind],
            "resources": [orjson.Fragment(resource) for _, resource in entries.values()],
        }
    )


def _either(raw: Mapping[str, Any], snake: str, camel: str, default: object) -> object:
    return raw.get(snake, raw.get(camel, default))
