"""The ca's own certificate: signed by itself, kept current, and put under every new connection."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from ca.issue import Issuance, issued_json
from ca.policy import Caller
from ca.request import parse_request
from ca.settings import CA, CaSettings
from mesh.errors import Unavailable
from svid.keeper import Keeper
from svid.material import SvidMaterial, material_from_response
from svid.request import new_key_request
from svid.tls import server_context

SOCKET_TIMEOUT = 10.0  # seconds for each read or write, handshake included: a silent peer must not hold a thread


class Serving:
    """Holds the TLS context for the next connection. Call `start` once, in the process that serves."""

    def __init__(self, issuance: Issuance, settings: CaSettings, on_change: Callable[[SvidMaterial], None]) -> None:
        self._issuance = issuance
        self._caller = Caller("self", CA.identity(settings.trust_domain))
        self._context: ssl.SSLContext | None = None
        self._on_change = on_change
        self.keeper = Keeper(self._obtain, on_change=self._swap)

    def start(self) -> None:
        """Make the first certificate here and now (raises what signing raises), renew it in a thread from then on."""
        self.keeper.renew_now()
        self.keeper.start()

    def context(self) -> ssl.SSLContext:
        """The context for a new connection."""
        if self._context is None:
            raise Unavailable("the ca has no serving certificate yet")
        return self._context

    def _obtain(self, _current: SvidMaterial | None) -> SvidMaterial:
        request = new_key_request()
        issued = self._issuance.issue(self._caller, parse_request(request.csr_pem), None)
        return material_from_response(request.key_pem, issued_json(issued))

    def _swap(self, material: SvidMaterial) -> None:
        # Optional: callers with a token have no certificate. One that is shown must verify, or the handshake fails.
        context = server_context(material, client_certificate=ssl.CERT_OPTIONAL)
        context.sslsocket_class = _ImpatientSocket
        self._context = context
        self._on_change(material)


class _ImpatientSocket(ssl.SSLSocket):
    """A blocking socket that gives up: gunicorn's threads switch sockets to blocking without a timeout."""

    def setblocking(self, flag: bool) -> None:
        self.settimeout(None if flag else 0.0)

    def settimeout(self, value: float | None) -> None:
        super().settimeout(SOCKET_TIMEOUT if value is None else value)
