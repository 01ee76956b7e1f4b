"""JSON in and out of a Flask application, and every error as `{"error": {"code", "message", "field"?, "hint"?}}`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from mesh.errors import Busy, HeddleError, InvalidInput, TooLarge, Unsupported
from serving.http1 import JSON, Answer, json_answer


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
        raw: bytes = environ["wsgi.input"].read(limit + 1)
        if len(raw) <= limit:
            return raw
    raise TooLarge(f"a body is at most {limit} bytes long")


def refusal(error: HeddleError, challenge: str = "") -> Answer:
    """What a refused request is answered. `challenge` says how one proves who one is (RFC 9110 section 11.6.1)."""
    headers: tuple[tuple[str, str], ...] = ()
    if isinstance(error, Busy) and error.retry_after:
        headers = (("Retry-After", str(math.ceil(error.retry_after))),)  # RFC 9110 section 10.2.3
    if challenge and error.status == HTTPStatus.UNAUTHORIZED:
        headers = (*headers, ("WWW-Authenticate", challenge))
    return json_answer(error.status, {"error": error.as_json()}, *headers)


def handle_errors(
    app: Flask,
    who: str,
    *,
    ordinary: Collection[int] = (),
    count: Callable[[str], None] = lambda _code: None,
    challenge: str = "",
) -> None:
    """Answer errors (`challenge`: see `refusal`), and log them as `who`. Statuses in `ordinary` are no news; `count` is
    given each error's code."""
    log = structlog.get_logger(who)

    @app.errorhandler(HeddleError)
    def refused(error: HeddleError) -> Response:
        count(error.code)
        level = log.info if error.status in ordinary else log.warning
        level("refused", method=request.method, path=request.path, error=str(error), status=error.status)
        answer = refusal(error, challenge)
        return Response(answer.body, answer.status, list(answer.headers))

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
