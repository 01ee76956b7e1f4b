"""The engine's Kubernetes API: list, watch, get and TokenReview, read only, in Kubernetes' own JSON.

It exists so that webhook, ca and discovery use the same client code here as on a cluster (`kubectl get` works as well).
Writes come from the manifests alone; a write by API is refused with the reason.
Source: Kubernetes API concepts (list, watch, bookmarks, 410 Gone, Status objects).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
from flask import Flask, Response, request
from werkzeug.serving import WSGIRequestHandler, make_server

from local.store import Raw, Store
from mesh.errors import Gone, HeddleError, InvalidInput, NotFound, Unauthenticated
from mesh.kinds import KINDS, Kind
from mesh.objects import Key

AUDIENCE = "https://kubernetes.default.svc"
"""Of a token that names no audience."""
QUIET_SECONDS = 5.0
"""After so long without a write a watch gets a bookmark, which also finds out whether the reader is still there."""
CALM_SECONDS = 0.05
"""After a write of another kind a watch gets a bookmark this soon: who waits for a version need not wait for more."""


def create_app(store: Store, review_token: Callable[[str, list[str]], Raw], jwks: Callable[[], Raw]) -> Flask:
    """`review_token(token, audiences)` answers a TokenReview's status, or raises Unauthenticated."""
    app = Flask(__name__)
    by_path = {(kind.group, kind.plural): kind for kind in KINDS}

    @app.errorhandler(HeddleError)
    def refused(error: HeddleError) -> Response:
        return _status(error.status, str(error), {404: "NotFound", 410: "Expired"}.get(error.status, "BadRequest"))

    @app.errorhandler(404)
    def unknown_path(_error: Exception) -> Response:
        return _status(404, f"there is nothing at {request.path}", "NotFound")

    @app.errorhandler(405)
    def read_only(_error: Exception) -> Response:
        message = "this API is read only: change the manifests that `heddle local up -f` was given"
        return _status(405, message, "MethodNotAllowed")

    @app.get("/version")
    def version() -> Response:
        return _json({"major": "1", "minor": "37", "gitVersion": "v1.37.0+heddle-local", "platform": "linux"})

    @app.get("/openid/v1/jwks")
    def keys() -> Response:
        return _json(jwks())

    @app.post("/apis/authentication.k8s.io/v1/tokenreviews")
    def token_review() -> Response:
        review = request.get_json(force=True, silent=True)
        spec = review.get("spec") if isinstance(review, dict) else None
        if not isinstance(spec, dict) or not isinstance(spec.get("token"), str):
            raise InvalidInput("a TokenReview needs a token", field="spec.token")
        try:
            status = review_token(spec["token"], spec.get("audiences") or [])
        except Unauthenticated as error:
            status = {"authenticated": False, "error": str(error)}
        answer = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {}, "status": status}
        return _json(answer, 201)

    @app.get("/api")
    def core() -> Response:
        return _json({"kind": "APIVersions", "versions": ["v1"]})

    @app.get("/apis")
    def groups() -> Response:
        return _json({"kind": "APIGroupList", "apiVersion": "v1", "groups": _groups()})

    @app.get("/api/v1")
    def core_resources() -> Response:
        return _json(_resources("", "v1"))

    @app.get("/apis/<group>/<version>")
    def group_resources(group: str, version: str) -> Response:
        return _json(_resources(group, version))

    def find(group: str, plural: str) -> Kind:
        if (group, plural) not in by_path:
            raise NotFound(f"there is no resource {plural!r} in group {group or 'core'!r}")
        return by_path[group, plural]

    def serve(group: str, version: str, plural: str, namespace: str, name: str) -> Response:
        kind = find(group, plural)
        api_version = f"{group}/{version}" if group else version
        if name:
            raw = store.get(kind.kind, Key(namespace, name))
            if raw is None:
                raise NotFound(f'{plural} "{name}" not found')
            return _json({**raw, "apiVersion": api_version})
        if request.args.get("watch") in ("1", "true"):
            since = request.args.get("resourceVersion") or "0"
            seconds = float(request.args.get("timeoutSeconds") or 3600)
            return _watch(store, kind.kind, api_version, namespace, int(since), seconds)
        items, newest = store.items_with_version(kind.kind)
        chosen = [{**i, "apiVersion": api_version} for i in items if _within(i, namespace)]
        meta = {"resourceVersion": str(newest)}
        return _json({"apiVersion": api_version, "kind": f"{kind.kind}List", "metadata": meta, "items": chosen})

    @app.get("/api/v1/<plural>")
    def core_all(plural: str) -> Response:
        return serve("", "v1", plural, "", "")

    @app.get("/api/v1/namespaces/<name>")
    def one_namespace(name: str) -> Response:
        return serve("", "v1", "namespaces", "", name)

    @app.get("/api/v1/namespaces/<namespace>/<plural>")
    def core_in(namespace: str, plural: str) -> Response:
        return serve("", "v1", plural, namespace, "")

    @app.get("/api/v1/namespaces/<namespace>/<plural>/<name>")
    def core_one(namespace: str, plural: str, name: str) -> Response:
        return serve("", "v1", plural, namespace, name)

    @app.get("/apis/<group>/<version>/<plural>")
    def grouped_all(group: str, version: str, plural: str) -> Response:
        return serve(group, version, plural, "", "")

    @app.get("/apis/<group>/<version>/namespaces/<namespace>/<plural>")
    def grouped_in(group: str, version: str, namespace: str, plural: str) -> Response:
        return serve(group, version, plural, namespace, "")

    @app.get("/apis/<group>/<version>/namespaces/<namespace>/<plural>/<name>")
    def grouped_one(group: str, version: str, namespace: str, plural: str, name: str) -> Response:
        return serve(group, version, plural, namespace, name)

    return app


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # watches are chunked, and clients keep their connections
    disable_nagle_algorithm = (
        True  # head and body are two writes: the second must not wait for the first's acknowledgement
    )

    def log(self, type: str, message: str, *args: object) -> None:
        """Nothing: the engine logs what it does, not who reads it."""


def serve_in_thread(app: Flask, host: str, port: int) -> Callable[[], None]:
    """Serve until the returned function is called. Only the engine's own network namespace can reach it."""
    server = make_server(host, port, app, threaded=True, request_handler=_Handler)
    threading.Thread(target=server.serve_forever, name="api", daemon=True).start()
    return server.shutdown


def _watch(store: Store, kind: str, api_version: str, namespace: str, since: int, seconds: float) -> Response:
    def line(event: str, raw: Raw) -> bytes:
        return orjson.dumps({"type": event, "object": {**raw, "apiVersion": api_version}}) + b"\n"

    def stream() -> Iterator[bytes]:
        seen, until = since, time.monotonic() + seconds
        yield b""  # sends the headers now, so that the reader knows that it is watching
        if seen == 0:  # "start with everything there is"
            items, seen = store.items_with_version(kind)
            yield b"".join(line("ADDED", raw) for raw in items if _within(raw, namespace))
        while (left := until - time.monotonic()) > 0:
            newest = store.wait_newer(seen, min(QUIET_SECONDS, left))
            try:
                for event in store.watch(frozenset((kind,)), seen, CALM_SECONDS):
                    seen = event.version
                    if _within(event.object, namespace):
                        yield line(event.type, event.object)
            except Gone as error:
                yield orjson.dumps({"type": "ERROR", "object": _status_body(410, str(error), "Expired")}) + b"\n"
                return
            seen = max(seen, newest)  # an event up to `newest` would have come
            bookmark = {"kind": kind, "metadata": {"resourceVersion": str(seen)}}
            yield line("BOOKMARK", bookmark)

    return Response(stream(), mimetype="application/json")


def _within(raw: Raw, namespace: str) -> bool:
    return not namespace or raw["metadata"].get("namespace", "") == namespace


def _groups() -> list[Raw]:
    versions: dict[str, list[str]] = {}
    for kind in KINDS:
        if kind.group:
            versions.setdefault(kind.group, list(kind.versions))
    return [
        {
            "name": group,
            "versions": [{"groupVersion": f"{group}/{v}", "version": v} for v in of_group],
            "preferredVersion": {"groupVersion": f"{group}/{of_group[0]}", "version": of_group[0]},
        }
        for group, of_group in versions.items()
    ]


def _resources(group: str, version: str) -> Raw:
    resources: list[Any] = [
        {
            "name": kind.plural,
            "singularName": kind.kind.lower(),
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": ["get", "list", "watch"],
        }
        for kind in KINDS
        if kind.group == group and version in kind.versions
    ]
    if not resources:
        raise NotFound(f"there is no API group {group}/{version}")
    name = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": resources}


def _json(body: Raw, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, mimetype="application/json")


def _status_body(code: int, message: str, reason: str) -> Raw:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def _status(code: int, message: str, reason: str) -> Response:
    return _json(_status_body(code, message, reason), code)
