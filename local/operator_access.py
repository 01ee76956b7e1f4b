"""Asks discovery and ca on behalf of the `heddle` command, with the operator's own SVID."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from pathlib import Path

from local.control_plane import OPERATOR, PARTS, token_file
from local.network import NODE_ADDRESS
from mesh.errors import NotFound, Unavailable
from mesh.identity import Identity
from mesh.ports import CA
from mesh.settings import CONTROL_NAMESPACE
from svid.client import CaAddress
from svid.keeper import Keeper, enrolment
from svid.tls import check_peer, client_context

LONGEST_ANSWER_SECONDS = 75.0


class Operator:
    """`roots` reads the mounted root certificates (PEM)."""

    def __init__(self, state: Path, trust_domain: str, roots: Callable[[], str]) -> None:
        self._trust_domain = trust_domain
        ca = CaAddress(NODE_ADDRESS, CA, self._identity("heddle-ca"))
        self._keeper = Keeper(enrolment(ca, roots=roots, token_file=token_file(state, OPERATOR)))

    def start(self) -> None:
        self._keeper.start()

    def get(self, service: str, path: str) -> tuple[int, bytes]:
        """The status and body of `GET https://<service>/<path>`. NotFound for an unknown service, or Unavailable."""
        part = next((part for part in PARTS if part.name == service and part.name != "webhook"), None)
        if part is None:
            raise NotFound(f"there is no service {service!r} to ask", hint="discovery or ca")
        material = self._keeper.wait_ready(10.0)
        connection = http.client.HTTPSConnection(
            NODE_ADDRESS,
            part.port,
            timeout=LONGEST_ANSWER_SECONDS,
            context=client_context(material.bundle.pem, material),
        )
        try:
            connection.connect()
            check_peer(connection.sock, {self._identity(part.account)})
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the {service} does not answer: {error}") from error
        finally:
            connection.close()

    def _identity(self, account: str) -> Identity:
        return Identity(self._trust_domain, CONTROL_NAMESPACE, account)
