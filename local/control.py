"""What the `heddle` command asks the engine: HTTP on a Unix socket that only its owner can open.

`GET /status`, `GET /objects/<kind>`, `GET /logs/<namespace>/<pod>[/<container>]`, `POST /down`,
`GET` and `POST /control/{discovery,ca}/<path>`, `POST /capture/<namespace>/<pod>/{start,stop}`,
`POST /components/<name>/{start,stop,kill}`.
Running a command in a pod needs the caller's own terminal, so it has a socket of its own (`local.exec`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server

from local.components import Components
from local.operator_access import Operator
from local.store import Store
from mesh.errors import HeddleError, NotFound
from mesh.kinds import KINDS


def create_app(
    store: Store,
    components: Components,
    operator: Operator,
    status: Callable[[], dict[str, Any]],
    log_path: Callable[[str, str, str], Path],
    capture: Callable[[str, str, str], dict[str, Any]],
    down: Callable[[], None],
) -> Flask:
    app = Flask(__name__)

    @app.errorhandler(HeddleError)
    def refused(error: HeddleError) -> Response:
        return _json({"error": error.as_json()}, error.status)

    @app.errorhandler(HTTPException)
    def unknown(error: HTTPException) -> Response:
        code = error.code or 500
        return _json({"error": {"code": error.name, "message": error.description or error.name}}, code)

    @app.get("/status")
    def get_status() -> Response:
        return _json(status())

    @app.get("/objects/<kind>")
    def objects(kind: str) -> Response:
        if kind not in {entry.kind for entry in KINDS}:
            raise NotFound(f"there is no kind {kind!r}", hint="write it as in manifests, such as Pod")
        return _json({"items": store.items(kind), "resourceVersion": store.version})

    @app.get("/logs/<namespace>/<pod>")
    @app.get("/logs/<namespace>/<pod>/<container>")
    def logs(namespace: str, pod: str, container: str = "") -> Response:
        return _json({"path": str(log_path(namespace, pod, container))})

    @app.get("/control/<service>/<path:path>")
    def control(service: str, path: str) -> Response:
        query = f"?{request.query_string.decode()}" if request.query_string else ""
        code, body = operator.get(service, f"/{path}{query}")
        return Response(body, code, mimetype="application/json")

    @app.post("/control/<service>/<path:path>")
    def control_post(service: str, path: str) -> Response:
        code, body = operator.post(service, f"/{path}", request.get_data())
        return Response(body, code, mimetype="application/json")

    @app.post("/components/<name>/<verb>")
    def component(name: str, verb: str) -> Response:
        match verb:
            case "start":
                components.start(name)
            case "stop":
                components.stop(name)
            case "kill":
                components.stop(name, now=True)
            case _:
                raise NotFound(f"cannot {verb!r} a component", hint="start, stop or kill")
        return _json({"components": components.states()})

    @app.post("/capture/<namespace>/<pod>/<verb>")
    def packets(namespace: str, pod: str, verb: str) -> Response:
        if verb not in ("start", "stop"):
            raise NotFound(f"cannot {verb!r} a capture", hint="start or stop")
        return _json(capture(namespace, pod, verb))

    @app.post("/down")
    def go_down() -> Response:
        down()
        return _json({"ending": True})

    return app


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"  # a Unix socket's peer has no address

    def log(self, type: str, message: str, *args: object) -> None:
        """Nothing: the engine logs what it does, not who asks."""


def serve_in_thread(app: Flask, path: Path) -> None:
    """Serve on the Unix socket `path`, for its owner alone."""
    path.unlink(missing_ok=True)
    server = make_server(f"unix://{path}", 0, app, threaded=True, request_handler=_Handler)
    path.chmod(0o600)
    threading.Thread(target=server.serve_forever, name="control", daemon=True).start()


def _json(body: object, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, mimetype="application/json")
