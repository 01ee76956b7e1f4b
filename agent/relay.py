"""What Envoy has against what it should have, and in which order it is told. Pure: no socket, no clock.

A change goes through three stages, so that no request meets a route to a cluster that is not there:

    MAKE    new and changed clusters, endpoints and secrets; nothing is taken away
    SWITCH  once the clusters are in use: route configurations, virtual hosts and listeners, as they should be
    BREAK   once those are in use: clusters and endpoints that nothing refers to any more go

A stage in which nothing changes takes no time: a change of virtual hosts alone is passed on at once. An Envoy that has
just started gets everything as it asks for it, since it orders its first load by itself.

The shell (xds_server.py) calls `poll` for each poll of Envoy's, holds it when there is no news, answers the held ones
that `take_news` names, asks Envoy's gauges while `needs_warm_check`, and passes on what Envoy logs about refusals.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from itertools import count

from agent.bundle import Bundle, Part
from mesh.wire import Applied, Rejection, ResourceType, Versions

Wanted = Mapping[ResourceType, Mapping[str, Part]]
Key = tuple[ResourceType, str]

CLUSTERS: Key = (ResourceType.CLUSTERS, "")
LISTENERS: Key = (ResourceType.LISTENERS, "")
_KINDS = tuple((kind, kind.value) for kind in ResourceType)
SPIN_LIMIT = 3
"""Unaccepted answers of one version before its polls are held even though Envoy logged nothing: it must not spin."""


class Stage(Enum):
    """What Envoy is being brought to; see above."""

    MAKE = "make"
    SWITCH = "switch"
    BREAK = "break"
    DONE = "done"


class Relay:
    """`now()` is the time as RFC 3339 text, for what is reported upstream."""

    def __init__(self, now: Callable[[], str]) -> None:
        self._now = now
        self.wanted: dict[ResourceType, dict[str, Part]] = {kind: {} for kind in ResourceType}
        self.session, self.sequence = "", 0
        self.configured = False
        """There is a configuration, from discovery or from the disk."""
        self.stage = Stage.DONE
        self.applied: dict[str, Applied] = {}
        self.revision = 0
        """Grows whenever `applied` says something new."""
        self._numbers = count(1)
        self._bundles = {key: self._new_bundle(key) for key in (CLUSTERS, LISTENERS)}
        self._own: dict[str, Part] = {}
        self._hosts: dict[str, dict[str, Part]] = {}  # route -> its virtual hosts, as wanted
        self._stale_routes: set[str] = set()  # changed, but not passed on before SWITCH
        self._held_back: dict[ResourceType, dict[str, str]] = {}  # kind -> name -> why
        self._pending: dict[ResourceType, set[str]] = {kind: set() for kind in ResourceType}
        self._refusing: set[Key] = set()
        self._unaccepted: dict[Key, int] = {}
        self._messages: dict[ResourceType, deque[str]] = {kind: deque(maxlen=64) for kind in ResourceType}
        self._news: set[Key] = set()
        self._first_load = True
        self._warming = False

    # ---- what should be

    def load(self, wanted: Wanted) -> None:
        """Start from a configuration that was kept on disk."""
        self.update("", 0, {kind.value: parts for kind, parts in wanted.items()}, {})

    def update(
        self,
        session: str,
        sequence: int,
        changed: Mapping[str, Mapping[str, Part]],
        removed: Mapping[str, tuple[str, ...]],
    ) -> None:
        """An answer of discovery's: from now on this is what Envoy should have."""
        if not self.configured:
            self._news |= {CLUSTERS, LISTENERS}
        self.session, self.sequence, self.configured = session, sequence, True
        touched: dict[ResourceType, set[str]] = {}
        for kind_name, parts in changed.items():
            kind = ResourceType(kind_name)
            self.wanted[kind].update(parts)
            touched.setdefault(kind, set()).update(parts)
        for kind_name, names in removed.items():
            kind = ResourceType(kind_name)
            for name in names:
                self.wanted[kind].pop(name, None)
            touched.setdefault(kind, set()).update(names)
        self._index_hosts(touched.get(ResourceType.VIRTUAL_HOSTS, ()))
        self._stale_routes |= touched.get(ResourceType.ROUTES, set())
        self._make(touched)
        self._advance()

    def versions(self) -> Versions:
        """What this agent holds, for a first request to discovery."""
        return {
            kind.value: {name: part.version for name, part in parts.items()}
            for kind, parts in self.wanted.items()
            if parts
        }

    def good(self) -> Wanted:
        """What is worth keeping for a start without a control plane: `wanted`, less what Envoy refused."""
        kept: dict[ResourceType, dict[str, Part]] = {kind: dict(parts) for kind, parts in self.wanted.items()}
        for key in self._refusing:
            bundle = self._bundles[key]
            for name in bundle.refused:
                kind = self._kind_of(key, name)
                kept[kind].pop(name, None)
                if name in bundle.taken:
                    kept[kind][name] = bundle.taken[name]
        return kept

    def set_own_secret(self, name: str, part: Part) -> None:
        """A secret of this pod's own keeper, not of discovery's (`default`, `ROOTCA`)."""
        if self._own.get(name) != part:
            self.revision += 1
        self._own[name] = part
        self._want((ResourceType.SECRETS, name), {name: part})
        self._report()

    def own_in_use(self, name: str) -> str:
        """The version of that secret that Envoy uses; empty before it has taken one.

        Where it has not asked for the secret there is nothing that could use an older one.
        """
        bundle = self._bundles.get((ResourceType.SECRETS, name))
        part = self._own.get(name) if bundle is None else bundle.taken.get(name)
        return part.version if part else ""

    # ---- what Envoy asks

    def envoy_started(self) -> None:
        """A new Envoy process: it has nothing, and orders its first load by itself."""
        self._unaccepted.clear()
        for messages in self._messages.values():
            messages.clear()
        for pending in self._pending.values():
            pending.clear()
        self._bundles = {key: bundle for key, bundle in self._bundles.items() if self._is_wanted(key)}
        for bundle in self._bundles.values():
            bundle.restart()
        self._first_load = True
        self._make({})
        self._advance()

    def heard_refusal(self, kind: ResourceType, message: str) -> None:
        """Envoy logged that it refused an answer of this kind; the poll that follows is the one it belongs to."""
        self._messages[kind].append(message)

    def heard_acceptance(self, key: Key) -> None:
        """Envoy logged that it took the answer for `key`: the poll that would show it comes later (docs/adr/0064)."""
        bundle = self._bundles.get(key)
        if bundle is not None and bundle.answered and not bundle.settled:
            self._accepted(key, bundle)
            self._advance()

    def _accepted(self, key: Key, bundle: Bundle) -> None:
        self._unaccepted.pop(key, None)
        if not bundle.accepted and key[0] is ResourceType.SECRETS and key[1] in self._own:
            self.revision += 1
        if bundle.take():
            self._news.add(key)
        elif bundle.accepted:
            self._pending[key[0]].discard(key[1])

    def poll(self, kind: ResourceType, name: str, version: str) -> bytes | None:
        """The answer to a poll that has `version` ("" for none yet), or None: hold it until `take_news` names it."""
        key = (kind, name)
        bundle = self._bundles.get(key) or self._subscribe(key)
        if version == bundle.version:
            self._accepted(key, bundle)
        elif bundle.answered and not bundle.settled and self._is_refusal(key):
            self._unaccepted.pop(key, None)
            message = self._messages[kind].popleft() if self._messages[kind] else "Envoy gave no reason"
            if not bundle.refuse(message, self._now()):
                self._pending[kind].discard(name)
            self._refusing.add(key)
        elif bundle.accepted:
            bundle.accepted = False  # a new subscription to something that an older one has: Envoy built a cluster anew
        self._advance()
        return self.answer(key, version)

    def answer(self, key: Key, version: str) -> bytes | None:
        """What a poll of `version` is told now; None while there is nothing to tell."""
        bundle = self._bundles.get(key)
        if bundle is None or bundle.version == version or bundle.stuck:
            return None
        if key in (CLUSTERS, LISTENERS) and not self.configured:
            return None
        self._news.discard(key)
        self._pending[key[0]].add(key[1])
        return bundle.body()

    def take_news(self) -> set[Key]:
        """The subscriptions whose held polls are to be answered now."""
        news, self._news = self._news, set()
        return news

    def left(self, key: Key) -> None:
        """The connection of a held poll is gone, and it was the only one: Envoy has given this subscription up."""
        self._pending[key[0]].discard(key[1])
        if not self._is_wanted(key):
            self._bundles.pop(key, None)
            self._refusing.discard(key)
        self._advance()

    def _new_bundle(self, key: Key) -> Bundle:
        return Bundle(*key, self._numbers.__next__)

    def _subscribe(self, key: Key) -> Bundle:
        kind, name = key
        bundle = self._bundles[key] = self._new_bundle(key)
        if kind is ResourceType.ROUTES:
            bundle.want(self._route_parts(name, bundle))
            self._stale_routes.discard(name)
        elif kind is ResourceType.SECRETS and name in self._own:
            bundle.want({name: self._own[name]})
        elif name in self.wanted[kind]:
            bundle.want({name: self.wanted[kind][name]})
        return bundle

    def _is_refusal(self, key: Key) -> bool:
        if self._messages[key[0]]:
            return True
        self._unaccepted[key] = self._unaccepted.get(key, 0) + 1
        return self._unaccepted[key] >= SPIN_LIMIT

    # ---- the order

    @property
    def needs_warm_check(self) -> bool:
        """Envoy has taken clusters or listeners that it may still be warming: ask its gauges, then call `warmed`."""
        if not self._warming:
            return False
        if self.stage is Stage.MAKE:
            return self._bundles[CLUSTERS].settled
        return self.stage is Stage.SWITCH and self._bundles[LISTENERS].settled

    @property
    def serving(self) -> bool:
        """This Envoy has taken its first load of clusters, listeners and routes."""
        return not self._first_load

    @property
    def is_applied(self) -> bool:
        """Envoy has taken, or refused, everything that was wanted last."""
        return self.stage is Stage.DONE and all(
            state.rejected or state.sequence == self.sequence for state in self.applied.values()
        )

    @property
    def in_order(self) -> bool:
        """Nothing waits for Envoy to take an earlier stage."""
        return self.stage is Stage.DONE or self._first_load

    def warmed(self) -> None:
        """No cluster and no listener of Envoy's is warming."""
        self._warming = False
        self._advance()

    def force(self) -> None:
        """Go on although Envoy has not taken everything: to wait longer would hold back what is good."""
        self._warming = False
        if self.stage is Stage.MAKE:
            self._switch()
        elif self.stage is Stage.SWITCH:
            self._break()
        elif self.stage is Stage.BREAK:
            self.stage = Stage.DONE
        self._advance()

    def _advance(self) -> None:
        if self.stage is Stage.MAKE and (self._first_load or (self._bundles[CLUSTERS].settled and not self._warming)):
            self._switch()
        if self.stage is Stage.SWITCH and self._listeners_and_routes_settled():
            self._break()
        if self.stage is Stage.BREAK and self._bundles[CLUSTERS].settled:
            self.stage = Stage.DONE
        self._report()

    def _listeners_and_routes_settled(self) -> bool:
        return self._bundles[LISTENERS].settled and not self._pending[ResourceType.ROUTES] and not self._warming

    def _make(self, touched: Mapping[ResourceType, Iterable[str]]) -> None:
        self.stage = Stage.MAKE
        wanted = self.wanted[ResourceType.CLUSTERS]
        before = {} if self._first_load else self._bundles[CLUSTERS].target
        if self._want(CLUSTERS, {**before, **wanted}):
            self._warming = True
        for kind in (ResourceType.ENDPOINTS, ResourceType.SECRETS):
            for name in touched.get(kind, ()):
                if name in self.wanted[kind]:
                    self._want((kind, name), {name: self.wanted[kind][name]})

    def _switch(self) -> None:
        self.stage = Stage.SWITCH
        self._held_back = {}
        clusters = self._bundles[CLUSTERS]
        missing = [name for name in clusters.refused if name not in clusters.taken]
        for route in sorted(self._stale_routes):
            bundle = self._bundles.get((ResourceType.ROUTES, route))
            if bundle is not None:
                self._want((ResourceType.ROUTES, route), self._route_parts(route, bundle, missing))
        # Kept as stale while something is held back, so that the next change looks at it again.
        held_hosts = self._held_back.get(ResourceType.VIRTUAL_HOSTS, {})
        self._stale_routes = {name.partition("/")[0] for name in held_hosts}
        listeners = self._usable(
            ResourceType.LISTENERS, self.wanted[ResourceType.LISTENERS], self._bundles[LISTENERS].target, missing
        )
        if self._want(LISTENERS, listeners):
            self._warming = True

    def _break(self) -> None:
        self.stage = Stage.BREAK
        self._first_load = False
        self._want(CLUSTERS, self.wanted[ResourceType.CLUSTERS])

    def _is_wanted(self, key: Key) -> bool:
        kind, name = key
        return key in (CLUSTERS, LISTENERS) or name in self.wanted[kind] or (kind == "secrets" and name in self._own)

    def _want(self, key: Key, target: Mapping[str, Part]) -> bool:
        bundle = self._bundles.get(key)
        if bundle is None:
            return False
        changed = bundle.want(dict(target))
        if changed:
            self._news.add(key)
            self._pending[key[0]].add(key[1])
        if not bundle.refused:
            self._refusing.discard(key)
        return changed

    def _route_parts(self, route: str, bundle: Bundle, missing: Iterable[str] = ()) -> dict[str, Part]:
        table = self.wanted[ResourceType.ROUTES].get(route)
        if table is None:
            return {}
        hosts = self._usable(ResourceType.VIRTUAL_HOSTS, self._hosts.get(route, {}), bundle.target, missing)
        return {route: table, **hosts}

    def _usable(
        self, kind: ResourceType, wanted: Mapping[str, Part], before: Mapping[str, Part], missing: Iterable[str]
    ) -> dict[str, Part]:
        """`wanted`, but what needs a cluster that Envoy refused stays as it was before, if it was."""
        usable = dict(wanted)
        for cluster in missing:
            needle = b'"' + cluster.encode() + b'"'
            for name, part in wanted.items():
                if needle in part.data and name in before and before[name] != part:
                    usable[name] = before[name]
                    why = f"left as it was: it needs the cluster {cluster}, which Envoy refused"
                    self._held_back.setdefault(kind, {})[name] = why
        return usable

    def _index_hosts(self, names: Iterable[str]) -> None:
        wanted = self.wanted[ResourceType.VIRTUAL_HOSTS]
        for name in names:
            route = name.partition("/")[0]
            hosts = self._hosts.setdefault(route, {})
            if name in wanted:
                hosts[name] = wanted[name]
            else:
                hosts.pop(name, None)
            self._stale_routes.add(route)

    # ---- what is reported upstream

    def _report(self) -> None:
        rejected = self._rejections() if self._refusing or self._held_back else {}
        in_force = self._in_force() if self.configured else ()
        now = ""
        for kind, kind_name in _KINDS:
            before = self.applied.get(kind_name)
            now_rejected = tuple(rejected.get(kind, ()))
            whole = kind in in_force and not now_rejected
            if before is None:
                if not whole and not now_rejected:
                    continue
                sequence = self.sequence if whole else 0
            else:
                sequence = self.sequence if whole else before.sequence
                if before.sequence == sequence and before.rejected == now_rejected:
                    continue
            now = now or self._now()
            since = now if before is None or before.sequence != sequence else before.since
            self.applied[kind_name] = Applied(sequence, since, now_rejected)
            self.revision += 1

    def _in_force(self) -> list[ResourceType]:
        """The types of which Envoy has everything that is wanted, or refuses it."""
        found = []
        clusters = self._bundles[CLUSTERS]
        if self.stage is Stage.DONE and clusters.settled:
            found.append(ResourceType.CLUSTERS)
        if clusters.answered:
            found += [kind for kind in (ResourceType.ENDPOINTS, ResourceType.SECRETS) if not self._pending[kind]]
        if self.stage in (Stage.BREAK, Stage.DONE) and self._listeners_and_routes_settled():
            found += [ResourceType.LISTENERS, ResourceType.ROUTES, ResourceType.VIRTUAL_HOSTS]
        return found

    @staticmethod
    def _kind_of(key: Key, part: str) -> ResourceType:
        """A route configuration's parts are itself and its virtual hosts."""
        return ResourceType.VIRTUAL_HOSTS if key[0] is ResourceType.ROUTES and part != key[1] else key[0]

    def _rejections(self) -> dict[ResourceType, list[Rejection]]:
        found: dict[ResourceType, list[Rejection]] = {}
        for key in sorted(self._refusing):
            for name, refusal in self._bundles[key].refused.items():
                found.setdefault(self._kind_of(key, name), []).append(Rejection(name, refusal.message, refusal.since))
        for kind, names in self._held_back.items():
            known = {r.name: r.since for r in (self.applied[kind.value].rejected if kind.value in self.applied else ())}
            found.setdefault(kind, []).extend(
                Rejection(name, why, known.get(name) or self._now()) for name, why in names.items()
            )
        return found
