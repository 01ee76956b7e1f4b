"""JSON in and out of a Flask application, and every error as `{"error": {"code", "message", "field"?, "hint"?}}`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import orjson
import structlog
from flask import Flask, Response, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import HTTPException

from mesh.errors import Busy, HeddleError, InvalidInput, TooLarge, Unsupported

JSON = "application/json"


def json_response(body: object, status: int) -> Response:
    return Response(orjson.dumps(body), status, mimetype=JSON)


def read_json(limit: int) -> Any:
    """The body of Flask's current request; see `json_of`."""
    return json_of(request.environ, limit)


def json_of(environ: Mapping[str, Any], limit: int) -> Any:
    """The body of a WSGI request, of at most `limit` bytes. Raises Unsupported, TooLarge or InvalidInput."""
    content_type = environ.get("CONTENT_TYPE", "")
    _check_type(content_type)
    return parse_json(content_type, _read(environ, limit))


def parse_json(content_type: str, body: bytes) -> Any:
    """A body that came with that Content-Type. Raises Unsupported or InvalidInput."""
    _check_type(content_type)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body is not JSON: {error}", field="body") from None


def _check_type(content_type: str) -> None:
    if content_type == JSON:
        return
    mimetype = content_type.partition(";")[0].strip().lower()
    if mimetype != JSON:
        raise Unsupported(f"the body is {mimetype or 'of no type'}", hint=f"send Content-Type: {JSON}")


def _read(environ: Mapping[str, Any], limit: int) -> bytes:
    """The whole body. The server ends the stream where the body ends, also one in chunks, for which werkzeug's own
    limit only cuts off."""
    if int(environ.get("CONTENT_LENGTH") or 0) <= limit:
        try:
            raw: bytes = environ["wsgi.input"].read(limit + 1)
        except (OSError, ParseException) as error:  # a timeout, the connection is gone, or chunks that are none
            raise InvalidInput(f"the body did not arrive: {error}", field="body") from None
        if len(raw) <= limit:
            return raw
    raise TooLarge(f"a body is at most {limit} bytes long")


def handle_errors(
    app: Flask, who: str, *, ordinary: Collection[int] = (), count: Callable[[str], None] = lambda _code: None
) -> None:
    """Answer errors, and log them as `who`. Statuses in `ordinary` are no news; `count` is given each error's code."""
    log = structlog.get_logger(who)

    @app.errorhandler(HeddleError)
    def refused(error: HeddleError) -> Response:
        count(error.code)
        level = log.info if error.status in ordinary else log.warning
        level("refused", method=request.method, path=request.path, error=str(error), status=error.status)
        response = json_response({"error": error.as_json()}, error.status)
        if isinstance(error, Busy) and error.retry_after:
            response.headers["Retry-After"] = str(math.ceil(error.retry_after))  # RFC 9110 section 10.2.3
        return response

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        code = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}.get(status, "invalid")
        count(code)
        response = json_response({"error": {"code": code, "message": error.description or error.name}}, status)
        allowed = getattr(error, "valid_methods", None)
        if allowed:
            response.headers["Allow"] = ", ".join(sorted(allowed))
        return response

    @app.errorhandler(Exception)
    def failed(_error: Exception) -> Response:
        count("internal")
        log.exception("failed", method=request.method, path=request.path)
        return json_response({"error": {"code": "internal", "message": f"{who} failed; its log says why"}}, 500)
