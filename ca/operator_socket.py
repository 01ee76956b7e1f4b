"""The ca's socket for operators in its own container: the same HTTP, to whoever can open it (docs/adr/0210).

It is how `heddle rotate` asks the ca of a cluster: by `pods/exec`, so that only who has that right in the control
plane's namespace rotates, and no credential of an operator exists anywhere.
"""

from __future__ import annotations

import io
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from werkzeug.serving import WSGIRequestHandler, make_server

from ca.app import Deps, create_app
from ca.callers import Credentials
from ca.policy import Caller
from ca.settings import CaSettings
from mesh.errors import Forbidden
from serving.operator_socket import listen

LONGEST_BODY = 1 << 20


class SocketCallers:
    """Whoever asks here is the operator, and gets no certificate: for that, somebody must have proved who they are."""

    def __init__(self, settings: CaSettings) -> None:
        self._caller = Caller("socket", settings.operator.identity(settings.trust_domain))

    def authenticate(self, _credentials: Credentials, _now: float) -> Caller:
        raise Forbidden("certificates are not issued over the operator's socket")

    def operator(self, _credentials: Credentials, _now: float) -> Caller:
        return self._caller


def serve_operators(place: Path, deps: Deps) -> None:
    """Serve at `place`, in daemon threads, for the life of the process. OSError when it cannot be made."""
    app = create_app(replace(deps, callers=SocketCallers(deps.settings)))
    with listen(place) as listener:  # the server takes a copy
        server = make_server(
            f"unix://{place}", 0, _BodyEnds(app), threaded=True, request_handler=_Handler, fd=listener.fileno()
        )
    threading.Thread(target=server.serve_forever, name="operators", daemon=True).start()


class _BodyEnds:
    """werkzeug's server does not end the stream where the body ends, as gunicorn does and serving.json_http expects."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        length = min(int(environ.get("CONTENT_LENGTH") or 0), LONGEST_BODY)
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
        return self._app(environ, start_response)


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"  # a Unix socket's peer has no address

    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing: what is done is logged where it is done."""
