"""What the agent and discovery say to each other (docs/architecture.md has examples).

Plain dataclasses over JSON values: both ends use these, and the agent must not load a validation library for them.
Discovery checks what it receives with `ConfigRequest.parse`, which names the field that is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mesh.errors import InvalidInput

MAX_HOLD_SECONDS = 60.0


class ResourceType(StrEnum):
    """What a sidecar is made of. `ROUTES` are route configurations without their virtual hosts."""

    CLUSTERS = "clusters"
    ENDPOINTS = "endpoints"
    LISTENERS = "listeners"
    ROUTES = "routes"
    VIRTUAL_HOSTS = "virtualHosts"
    SECRETS = "secrets"


# name -> version, for each type
Versions = dict[str, dict[str, str]]


def virtual_host_name(route: str, virtual_host: str) -> str:
    """The wire's name of a virtual host. Route names hold no slash, so the first one separates."""
    return f"{route}/{virtual_host}"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A resource that Envoy refused: Envoy's own words, and since when (RFC 3339)."""

    name: str
    message: str
    since: str

    def as_json(self) -> dict[str, str]:
        return {"name": self.name, "message": self.message, "since": self.since}


@dataclass(frozen=True, slots=True)
class Applied:
    """What Envoy has taken of one type: the last sequence accepted whole, since when, and what it refuses now."""

    sequence: int
    since: str
    rejected: tuple[Rejection, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {"sequence": self.sequence, "since": self.since, "rejected": [r.as_json() for r in self.rejected]}


@dataclass(frozen=True, slots=True)
class ProxyInfo:
    """Who asks. Identity comes from the client certificate; these are claims that discovery checks against the pod."""

    namespace: str
    pod: str
    ip: str
    envoy_version: str = ""
    agent_version: str = ""

    def as_json(self) -> dict[str, str]:
        return {
            "namespace": self.namespace,
            "pod": self.pod,
            "ip": self.ip,
            "envoyVersion": self.envoy_version,
            "agentVersion": self.agent_version,
        }


@dataclass(frozen=True, slots=True)
class TrustReport:
    """What a holder of a certificate acts upon: sequence and revision of the bundle, number of the last order to renew.

    `root`: fingerprint of the root that its own leaf chains to, empty when that is not known; `serial`: the leaf's.
    An agent counts what Envoy has taken; what it has read itself is `known`, so that it is not sent again meanwhile.
    """

    sequence: int
    revision: int = 0
    order: int = 0
    root: str = ""
    serial: str = ""
    known: tuple[int, int] = (0, 0)

    @property
    def version(self) -> tuple[int, int, int]:
        """Of the news that has been taken."""
        return self.sequence, self.revision, self.order

    def as_json(self) -> dict[str, Any]:
        return {
            "sequence": self.sequence,
            "revision": self.revision,
            "order": self.order,
            "root": self.root,
            "serial": self.serial,
            "known": list(self.known),
        }

    @staticmethod
    def parse(raw: object, path: str = "trust") -> TrustReport:
        """Raises InvalidInput with the field's path."""
        body = _mapping(raw, path)
        root, serial = _text(body, "root", path)[:128], _text(body, "serial", path)[:128]
        sequence, revision, order = (_whole(body, name, path) for name in ("sequence", "revision", "order"))
        known = body.get("known", [0, 0])
        if not isinstance(known, list) or len(known) != 2 or not all(type(each) is int for each in known):
            raise InvalidInput("must be two numbers", field=f"{path}.known".lstrip("."))
        return TrustReport(sequence, revision, order, root, serial, (known[0], known[1]))


@dataclass(frozen=True, slots=True)
class ConfigRequest:
    """`versions` is sent only when there is no session (first request, or after 410). Without `trust`, an agent is too
    old to be told of the bundle by discovery."""

    proxy: ProxyInfo
    session: str = ""
    sequence: int = 0
    versions: Versions | None = None
    applied: Mapping[str, Applied] = field(default_factory=dict)
    hold_seconds: float = 25.0
    trust: TrustReport | None = None

    def as_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "proxy": self.proxy.as_json(),
            "session": self.session,
            "sequence": self.sequence,
            "applied": {name: state.as_json() for name, state in self.applied.items()},
            "holdSeconds": self.hold_seconds,
        }
        if self.versions is not None:
            body["versions"] = self.versions
        if self.trust is not None:
            body["trust"] = self.trust.as_json()
        return body

    @staticmethod
    def parse(raw: object) -> ConfigRequest:
        """Raises InvalidInput with the field's path."""
        body = _mapping(raw, "body")
        proxy = _mapping(body.get("proxy"), "proxy")
        versions = body.get("versions")
        hold = body.get("holdSeconds", 25.0)
        if not isinstance(hold, (int, float)) or isinstance(hold, bool) or not 0 <= hold <= MAX_HOLD_SECONDS:
            raise InvalidInput(f"must be a number from 0 to {MAX_HOLD_SECONDS:g}, got {hold!r}", field="holdSeconds")
        return ConfigRequest(
            proxy=ProxyInfo(
                namespace=_text(proxy, "namespace", "proxy", required=True),
                pod=_text(proxy, "pod", "proxy", required=True),
                ip=_text(proxy, "ip", "proxy"),
                envoy_version=_text(proxy, "envoyVersion", "proxy"),
                agent_version=_text(proxy, "agentVersion", "proxy"),
            ),
            session=_text(body, "session", ""),
            sequence=_whole(body, "sequence", ""),
            versions=None if versions is None else _parse_versions(versions),
            applied={
                name: _parse_applied(state, name)
                for name, state in _mapping(body.get("applied", {}), "applied").items()
            },
            hold_seconds=float(hold),
            trust=None if body.get("trust") is None else TrustReport.parse(body["trust"]),
        )


@dataclass(frozen=True, slots=True)
class ConfigResponse:
    """What changed since the sequence that the agent named. `changed`: type -> name -> (version, resource).

    `trust`: the bundle and the order as they are now (the ca's `GET /v1/bundle`), where the agent has others.
    """

    session: str
    sequence: int
    changed: Mapping[str, Mapping[str, tuple[str, Any]]]
    removed: Mapping[str, tuple[str, ...]]
    trust: Mapping[str, Any] | None = None

    @staticmethod
    def parse(raw: Mapping[str, Any]) -> ConfigResponse:
        return ConfigResponse(
            session=raw["session"],
            sequence=raw["sequence"],
            changed={
                kind: {name: (entry["version"], entry["resource"]) for name, entry in entries.items()}
                for kind, entries in raw["changed"].items()
            },
            removed={kind: tuple(names) for kind, names in raw["removed"].items()},
            trust=raw.get("trust"),
        )


def _mapping(value: object, path: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput(f"must be a JSON object, got {type(value).__name__}", field=path)
    return value


def _text(body: Mapping[str, Any], name: str, path: str, *, required: bool = False) -> str:
    value = body.get(name, "")
    if not isinstance(value, str) or (required and not value):
        wanted = "a non-empty text" if required else "a text"
        raise InvalidInput(f"must be {wanted}, got {value!r}", field=f"{path}.{name}".lstrip("."))
    return value


def _whole(body: Mapping[str, Any], name: str, path: str) -> int:
    value = body.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidInput(f"must be a whole number from 0, got {value!r}", field=f"{path}.{name}".lstrip("."))
    return value


def _parse_versions(raw: object) -> Versions:
    versions: Versions = {}
    for kind, entries in _mapping(raw, "versions").items():
        named = _mapping(entries, f"versions.{kind}")
        if not all(isinstance(version, str) for version in named.values()):
            raise InvalidInput("every version must be a text", field=f"versions.{kind}")
        versions[kind] = dict(named)
    return versions


def _parse_applied(raw: object, kind: str) -> Applied:
    if type(raw) is dict:  # the usual case at once: this is parsed for each type in each poll
        sequence, since = raw.get("sequence"), raw.get("since")
        if type(sequence) is int and sequence >= 0 and type(since) is str and raw.get("rejected", []) == []:
            return Applied(sequence, since)
    path = f"applied.{kind}"
    body = _mapping(raw, path)
    rejected = body.get("rejected", [])
    if not isinstance(rejected, list):
        raise InvalidInput("must be a list", field=f"{path}.rejected")
    return Applied(
        sequence=_whole(body, "sequence", path),
        since=_text(body, "since", path),
        rejected=tuple(_parse_rejection(entry, f"{path}.rejected[{i}]") for i, entry in enumerate(rejected)),
    )


def _parse_rejection(raw: object, path: str) -> Rejection:
    body = _mapping(raw, path)
    return Rejection(_text(body, "name", path), _text(body, "message", path)[:4096], _text(body, "since", path))
