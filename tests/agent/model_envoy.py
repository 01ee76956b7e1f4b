"""An Envoy for the relay's pure tests: it polls, takes, refuses and forgets as Envoy 1.40 was seen to do over REST."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from agent.bundle import Part
from agent.relay import CLUSTERS, LISTENERS, Key, Relay
from mesh.wire import ResourceType

PATIENCE = 400  # answers after which the relay counts as making Envoy spin


def part(version: str, **fields: Any) -> Part:
    return Part(version, json.dumps(fields, separators=(",", ":")).encode())


def cluster(name: str, version: str = "1", **more: Any) -> Part:
    return part(version, name=name, **more)


def host(name: str, to: str, version: str = "1", **more: Any) -> Part:
    return part(version, name=name, to=to, **more)


def listener(name: str, route: str, version: str = "1", **more: Any) -> Part:
    return part(version, name=name, route=route, **more)


@dataclass
class Subscription:
    """`version` is that of the last answer taken whole."""

    version: str = ""
    holds: bool = False


@dataclass
class ModelEnvoy:
    """A resource with `bad` is refused: `"named"` by its name, the rest being in force; True as a whole."""

    relay: Relay
    clusters: dict[str, Any] = field(default_factory=dict)
    endpoints: dict[str, Any] = field(default_factory=dict)
    listeners: dict[str, Any] = field(default_factory=dict)
    routes: dict[str, Any] = field(default_factory=dict)
    subscriptions: dict[Key, Subscription] = field(default_factory=dict)
    answers: int = 0
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.relay.envoy_started()
        self.subscriptions[CLUSTERS] = Subscription()

    def settle(self) -> None:
        """Poll until every poll is held and no warm check is due."""
        busy = True
        while busy:
            for key in self.relay.take_news():
                if key in self.subscriptions:
                    self.subscriptions[key].holds = False
            due = [key for key, subscription in self.subscriptions.items() if not subscription.holds]
            for key in due:
                self.poll(key)
            busy = bool(due)
            if not busy and self.relay.needs_warm_check:
                self.relay.warmed()
                busy = True
            assert self.answers < PATIENCE, "the relay makes Envoy spin"

    def poll(self, key: Key) -> None:
        subscription = self.subscriptions.get(key)
        if subscription is None:
            return
        body = self.relay.poll(*key, subscription.version)
        if body is None:
            subscription.holds = True
            return
        self.answers += 1
        response = json.loads(body)
        message = self.apply(key, response["resources"])
        if message:
            self.relay.heard_refusal(key[0], message)
        else:
            subscription.version = response["version_info"]

    def apply(self, key: Key, resources: list[dict[str, Any]]) -> str:
        """ "" when everything is taken, else what Envoy logs."""
        text = json.dumps(resources)
        if '"bad": true' in text:
            return "Proto constraint validation failed"
        named = [resource["name"] for resource in resources if resource.get("bad")]
        good = {resource["name"]: resource for resource in resources if resource["name"] not in named}
        if key == CLUSTERS:
            self._take_clusters(good, named)
        elif key == LISTENERS:
            self.listeners = good | {n: old for n, old in self.listeners.items() if n in named}
            self._follow(ResourceType.ROUTES, {each["route"] for each in self.listeners.values()}, self.routes)
        elif resources:
            kept = self.endpoints if key[0] is ResourceType.ENDPOINTS else self.routes
            kept[key[1]] = resources[0]
        self._check()
        if not named:
            return ""
        list_of = "cluster(s)" if key == CLUSTERS else "listener(s)"
        separator = ", " if key == CLUSTERS else "\n"
        return f"Error adding/updating {list_of} " + separator.join(f"{name}: no good" for name in named)

    def _take_clusters(self, good: dict[str, Any], named: list[str]) -> None:
        before = self.clusters
        self.clusters = good | {name: old for name, old in before.items() if name in named}
        for name in [n for n, new in good.items() if before.get(n) != new]:
            self._leave((ResourceType.ENDPOINTS, name))
        self._follow(ResourceType.ENDPOINTS, set(self.clusters), self.endpoints)
        self.subscriptions.setdefault(LISTENERS, Subscription())

    def _follow(self, kind: ResourceType, names: set[str], kept: dict[str, Any]) -> None:
        for key in [key for key in self.subscriptions if key[0] is kind and key[1] not in names]:
            self._leave(key)
            kept.pop(key[1], None)
        for name in sorted(names):
            self.subscriptions.setdefault((kind, name), Subscription())

    def _leave(self, key: Key) -> None:
        if self.subscriptions.pop(key, None) is not None:
            self.relay.left(key)

    def _check(self) -> None:
        """What a request could run into at this moment."""
        for route in {each["route"] for each in self.listeners.values()}:
            for each in self.routes.get(route, {}).get("virtual_hosts", ()):
                if each["to"] not in self.clusters:
                    self.broken.append(f"{route}/{each['name']} -> {each['to']}")
