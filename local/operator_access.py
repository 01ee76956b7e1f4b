"""Asks discovery and ca on behalf of the `heddle` command, with the operator's own SVID."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from pathlib import Path

from local.control_plane import OPERATOR, PARTS, Part, token_file
from local.network import NODE_ADDRESS
from mesh.errors import NotFound, Unavailable
from mesh.identity import CONTROL_NAMESPACE, Identity
from mesh.ports import CA
from svid.client import CaAddress
from svid.follow import Follower
from svid.keeper import Keeper, enrolment
from svid.tls import check_peer, client_context

LONGEST_ANSWER_SECONDS = 75.0


class Operator:
    """`roots` reads the mounted root certificates (PEM)."""

    def __init__(self, state: Path, trust_domain: str, roots: Callable[[], str]) -> None:
        self._trust_domain = trust_domain
        ca = CaAddress(NODE_ADDRESS, CA, self._identity("heddle-ca"))
        self._idle: dict[str, list[http.client.HTTPSConnection]] = {}
        self._keeper = Keeper(enrolment(ca, roots=roots, token_file=token_file(state, OPERATOR)))
        self._follower = Follower(self._keeper, ca, roots)

    def start(self) -> None:
        self._keeper.start()
        self._follower.start()

    def get(self, service: str, path: str) -> tuple[int, bytes]:
        """The status and body of `GET https://<service>/<path>`. NotFound for an unknown service, or Unavailable."""
        part = _part(service)
        idle = self._idle.setdefault(service, [])
        try:
            while idle:  # a handshake costs more than most answers, so connections are kept
                try:
                    return self._ask(idle.pop(), idle, "GET", path)
                except (OSError, http.client.HTTPException):
                    continue  # the service has ended or dropped it meanwhile
            return self._ask(self._connect(part), idle, "GET", path)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the {service} does not answer: {error}") from error

    def post(self, service: str, path: str, body: bytes) -> tuple[int, bytes]:
        """The same for `POST` with a JSON body, on a connection of its own: what may have arrived is not sent twice."""
        part = _part(service)
        try:
            return self._ask(self._connect(part), self._idle.setdefault(service, []), "POST", path, body)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the {service} does not answer: {error}") from error

    def _connect(self, part: Part) -> http.client.HTTPSConnection:
        material = self._keeper.wait_ready(10.0)
        connection = http.client.HTTPSConnection(
            NODE_ADDRESS,
            part.port,
            timeout=LONGEST_ANSWER_SECONDS,
            context=client_context(material.bundle.pem, material),
        )
        connection.connect()
        check_peer(connection.sock, {self._identity(part.account)})
        return connection

    def _ask(
        self,
        connection: http.client.HTTPSConnection,
        idle: list[http.client.HTTPSConnection],
        method: str,
        path: str,
        body: bytes | None = None,
    ) -> tuple[int, bytes]:
        try:
            connection.request(method, path, body, {} if body is None else {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answered = answer.read()
        except BaseException:
            connection.close()
            raise
        if answer.will_close:
            connection.close()
        else:
            idle.append(connection)
        return answer.status, answered

    def _identity(self, account: str) -> Identity:
        return Identity(self._trust_domain, CONTROL_NAMESPACE, account)


def _part(service: str) -> Part:
    part = next((part for part in PARTS if part.name == service and part.name != "webhook"), None)
    if part is None:
        raise NotFound(f"there is no service {service!r} to ask", hint="discovery or ca")
    return part
