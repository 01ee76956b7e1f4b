"""Asks discovery what proxies would make of an object, by mutual TLS with the webhook's own certificate."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from http.client import HTTPException, HTTPSConnection
from typing import Any

import orjson
import structlog

from mesh.errors import HeddleError, Unavailable
from mesh.identity import Identity
from svid.tls import check_peer

ANYWAY = "heddle.dev/admit-anyway"
"""Annotation: the reason why an object is to be admitted although an Envoy refuses what it leads to."""
SECONDS = 3.0
"""For all of it; the API server waits 5 s."""
PATH = "/v1/preflight"

log = structlog.get_logger("webhook")


class Came(StrEnum):
    """What came of a preflight, for metrics. NONE: discovery has no Envoy. AWAY: nobody answered in time."""

    TAKEN = "taken"
    REFUSED = "refused"
    OVERRIDDEN = "overridden"
    NONE = "no_envoy"
    AWAY = "unavailable"


@dataclass(frozen=True, slots=True)
class Refused:
    """A field of the object leads to something that the Envoy of `proxies` proxies would refuse."""

    field: str
    message: str
    example: str
    proxies: int

    def __str__(self) -> str:
        whose = f"{self.proxies} proxies, such as that of {self.example}," if self.proxies > 1 else self.example
        return f"{self.field}: Envoy refuses what it leads to in {whose}: {self.message}"


Asks = Callable[[Mapping[str, Any]], list[Refused]]
"""The refusals of an object; none for one that is taken, or that could not be tried."""


def not_asked(_raw: Mapping[str, Any]) -> list[Refused]:
    return []


class Preflight:
    """`context` is the TLS context to connect with, as of now; `discovery` is who must answer."""

    def __init__(
        self,
        host: str,
        port: int,
        context: Callable[[], ssl.SSLContext],
        discovery: Identity,
        on_end: Callable[[Came], None] = lambda _came: None,
        *,
        seconds: float = SECONDS,
    ) -> None:
        self._host, self._port, self._context, self._discovery = host, port, context, discovery
        self._on_end, self._seconds = on_end, seconds
        self._told = ""
        self._telling = threading.Lock()

    def __call__(self, raw: Mapping[str, Any]) -> list[Refused]:
        """Never raises: an object that cannot be tried is not refused for it."""
        try:
            answer = self._ask(orjson.dumps({"object": raw, "seconds": self._seconds}))
            refusals = [_refused(each) for each in answer["refusals"]]
        except (OSError, HTTPException, HeddleError, ValueError, KeyError, TypeError) as error:
            self._tell(f"{error}")
            self._on_end(Came.AWAY)
            return []
        if not answer.get("envoy"):
            self._tell("discovery has no Envoy")
            self._on_end(Came.NONE)
        else:
            self._on_end(Came.REFUSED if refusals else Came.TAKEN)
        return refusals

    def _ask(self, body: bytes) -> Any:
        connection = HTTPSConnection(self._host, self._port, timeout=self._seconds)
        with closing(connection):
            plain = socket.create_connection((self._host, self._port), self._seconds)
            plain.settimeout(self._seconds + 0.5)
            connection.sock = self._context().wrap_socket(plain)
            check_peer(connection.sock, {self._discovery})
            connection.request("POST", PATH, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 200:
                raise Unavailable(f"discovery answered {answer.status}: {said[:200].decode(errors='replace')}")
            return orjson.loads(said)

    def _tell(self, why: str) -> None:
        """Once for each reason, as long as it is the same."""
        with self._telling:
            if why != self._told:
                self._told = why
                log.warning("objects are admitted without preflight", why=why)


def _refused(raw: Mapping[str, Any]) -> Refused:
    return Refused(str(raw["field"]), str(raw["message"]), str(raw["example"]), int(raw["proxies"]))
