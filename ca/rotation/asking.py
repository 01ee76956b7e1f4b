"""Asks discovery what its agents trust, and the other replicas of the ca what they know: `GET /v1/trust` of each."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Collection
from typing import Any

from mesh.errors import HeddleError, Unavailable
from mesh.identity import Identity
from svid.material import SvidMaterial
from svid.tls import check_peer, client_context

PATH = "/v1/trust"
TIMEOUT = 3.0
MAX_ANSWER = 64 << 20

Address = tuple[str, int]


class Asking:
    """By mutual TLS with the ca's own certificate, on one kept connection for each address. For one thread."""

    def __init__(self, material: Callable[[], SvidMaterial]) -> None:
        self._material = material
        self._kept: dict[Address, tuple[http.client.HTTPSConnection, SvidMaterial]] = {}

    def ask(self, at: Address, server: Identity) -> Any:
        """The JSON that `server` answers there. Raises Unavailable."""
        material = self._material()
        kept = self._kept.pop(at, None)
        if kept is not None and kept[1] is material:
            try:
                return self._asked(at, *kept)
            except HeddleError:
                pass  # it may have been closed meanwhile
        elif kept is not None:
            kept[0].close()
        return self._asked(at, _connected(at, server, material), material)

    def keep_only(self, addresses: Collection[Address]) -> None:
        """Close the connections to those that are no more."""
        for at in self._kept.keys() - set(addresses):
            self._kept.pop(at)[0].close()

    def _asked(self, at: Address, connection: http.client.HTTPSConnection, material: SvidMaterial) -> Any:
        try:
            connection.request("GET", PATH)
            answer = connection.getresponse()
            raw = answer.read(MAX_ANSWER)
            if answer.status != 200:
                raise Unavailable(f"it answers {answer.status}")
            body = json.loads(raw)
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            raise Unavailable(str(error) or type(error).__name__) from None
        except HeddleError:
            connection.close()
            raise
        self._kept[at] = connection, material
        return body


def _connected(at: Address, server: Identity, material: SvidMaterial) -> http.client.HTTPSConnection:
    connection = http.client.HTTPSConnection(*at, timeout=TIMEOUT)
    try:
        plain = socket.create_connection(at, TIMEOUT)
        connection.sock = client_context(material.bundle.pem, material).wrap_socket(plain)
        check_peer(connection.sock, (server,))
    except OSError as error:
        connection.close()
        raise Unavailable(str(error) or type(error).__name__) from None
    except HeddleError as error:
        connection.close()
        raise Unavailable(f"somebody else answers there: {error}") from None
    return connection
