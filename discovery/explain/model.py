"""An explanation: what a request meets on its way, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from discovery.plan.model import Role
from discovery.plan.origins import Origin
from mesh.objects import Key

HTTP_PORT, HTTPS_PORT = 80, 443
UNSEEN = "heddle.dev/unseen"
"""The type of a Secret that whoever asks may not read: it is taken for what the Gateway takes it for."""


@dataclass(frozen=True, slots=True)
class Request:
    """One that the pod `client` sends to `host` (a name as its app would dial it, or an address) and `port`.

    For a gateway: one that arrives at it for `host`, at a port of its Service. `headers` in lower case. `authority` is
    the Host header; empty for the one that clients make of host and port. `tls`: the app itself speaks TLS.
    """

    client: Key
    host: str
    port: int
    path: str = "/"
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    authority: str = ""
    tls: bool = False

    @property
    def named(self) -> str:
        """What stands in the Host header."""
        if self.authority:
            return self.authority.lower()
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = HTTPS_PORT if self.tls else HTTP_PORT
        return (host if self.port == usual else f"{host}:{self.port}").lower()


class Part(StrEnum):
    """Which element of a plan, or of the mesh, decides a step."""

    NAME = "name"
    LISTENER = "listener"
    HOST = "virtual host"
    ROUTE = "route"
    FAULT = "fault"
    DESTINATION = "destination"
    ENDPOINTS = "endpoints"
    TLS = "tls"
    INBOUND = "inbound"
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Step:
    """`name` is the element's in the plan; `origins` are the objects, with their fields, that decide it."""

    part: Part
    name: str
    says: str
    origins: tuple[Origin, ...] = ()


class Result(StrEnum):
    """SERVED: an app has it. ANSWERED: a proxy answers, because it is told to. REFUSED: nobody serves it."""

    SERVED = "served"
    ANSWERED = "answered"
    REFUSED = "refused"


class Transport(StrEnum):
    """What a server sees. TLS is the app's own, or a rule's towards servers that are not of the mesh."""

    PLAIN = "plain text"
    MUTUAL = "mutual TLS"
    TLS = "TLS"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`status`: the HTTP status that the client gets; 0 where it is the app's, or where the connection just ends."""

    result: Result
    status: int = 0
    reason: str = ""
    hint: str = ""
    origins: tuple[Origin, ...] = ()


@dataclass(frozen=True, slots=True)
class Branch:
    """What becomes of a share (above 0, at most 1) of such requests.

    `workloads`: the pods that may get it (`namespace/pod`), or addresses that are no pod's.
    """

    share: float
    outcome: Outcome
    steps: tuple[Step, ...] = ()
    destination: str = ""
    subset: str = ""
    workloads: tuple[str, ...] = ()
    transport: Transport | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """`role` None: the client has no proxy. `steps` are common to all branches; `passed_over` are the routes that come
    before the one that decides, and why they do not take the request. `http`: a proxy on the way reads it as HTTP."""

    request: Request
    role: Role | None
    http: bool
    steps: tuple[Step, ...]
    branches: tuple[Branch, ...]
    passed_over: tuple[Step, ...] = ()
    notes: tuple[str, ...] = field(default=())


def refused(
    reason: str, hint: str = "", origins: tuple[Origin, ...] = (), *, status: int = 0, steps: tuple[Step, ...] = ()
) -> tuple[Branch, ...]:
    """All requests end so."""
    return (Branch(1.0, Outcome(Result.REFUSED, status, reason, hint, origins), steps),)
