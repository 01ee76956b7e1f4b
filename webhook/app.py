"""The webhook's HTTP: `POST /inject` and `/validate` for API servers, `/healthz`, `/readyz`, `/metrics` for everyone.

`create_app` is served over HTTPS; `health_app` has the last three only and is served in plain HTTP as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import orjson
import structlog
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from mesh.errors import HeddleError
from serving.health import create_health_app
from webhook.config import InjectionConfig
from webhook.metrics import Metrics
from webhook.overrides import Override
from webhook.preflight import Asks, not_asked
from webhook.review import LeadsHere, NamespaceLabels, Outcome, Result, refusal, review
from webhook.validate import MAX_REVIEW, Advise, Validated, Verdict, no_advice, unchecked, validate

MOST_READ = 2 * MAX_REVIEW
"""Bytes. A body over the limit is refused by `review`, after it was read: a client that is still sending would not see
the answer. What is far beyond it is not read."""
_JSON = "application/json"

log = structlog.get_logger("webhook")


@dataclass(frozen=True, slots=True)
class Deps:
    """Everything that the app works with. `leads_here` says of a value of `istio.io/rev` that is no known tag whether
    pods of it are sent here; `not_ready` returns what is missing, empty when nothing is."""

    config: Callable[[], InjectionConfig]
    namespace_labels: NamespaceLabels
    leads_here: LeadsHere
    not_ready: Callable[[], str]
    metrics: Metrics
    advise: Advise = no_advice
    preflight: Asks = not_asked
    record: Callable[[Override], None] = lambda _override: None


def create_app(deps: Deps) -> Flask:
    """The Flask application for HTTPS."""
    app = health_app(deps)
    app.config["MAX_CONTENT_LENGTH"] = MOST_READ

    @app.post("/inject")
    def inject() -> Response:
        outcome = _review(deps, request.get_data(cache=False))
        deps.metrics.counted(outcome.result)
        log.info(outcome.result.value, pod=outcome.about, reason=outcome.reason)
        return Response(outcome.body, mimetype=_JSON)

    @app.post("/validate")
    def check() -> Response:
        outcome = _validate(deps, request.get_data(cache=False))
        deps.metrics.validated(outcome)
        if outcome.overridden is not None:
            deps.record(outcome.overridden)
        if outcome.verdict is not Verdict.PASSED or outcome.warnings:
            log.info(outcome.verdict.value, object=outcome.about, reason=outcome.reason, warnings=outcome.warnings)
        return Response(outcome.body, mimetype=_JSON)

    @app.errorhandler(HeddleError)
    def refused(error: HeddleError) -> Response:
        return _refused(deps, error.status, error.as_json())

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        code = (error.name or "").lower().replace(" ", "-")
        return _refused(deps, error.code or 500, {"code": code, "message": error.description or error.name})

    return app


def health_app(deps: Deps) -> Flask:
    """`/healthz`, `/readyz` and `/metrics` alone."""
    return create_health_app("webhook", deps.metrics.text, deps.not_ready)


def _validate(deps: Deps, body: bytes) -> Validated:
    try:
        return validate(body, request.content_type or "", deps.advise, deps.preflight)
    except HeddleError:
        raise
    except Exception as error:  # what we cannot check is admitted, and said to be unchecked: nobody is locked out
        log.exception("validation failed")
        return unchecked(body, f"{type(error).__name__}: {error}")


def _review(deps: Deps, body: bytes) -> Outcome:
    try:
        return review(body, request.content_type or "", deps.namespace_labels, deps.config(), deps.leads_here)
    except HeddleError:
        raise
    except Exception as error:  # a pod that we cannot handle is refused with a reason, not by a broken answer
        log.exception("injection failed")
        return refusal(body, f"the injection failed on this pod: {type(error).__name__}: {error}")


def _refused(deps: Deps, status: int, error: dict[str, str]) -> Response:
    if request.path == "/inject":
        deps.metrics.counted(Result.DENIED)
        log.warning("request refused", status=status, error=error["message"])
    elif request.path == "/validate":
        deps.metrics.not_validated(status)
        log.warning("request refused", status=status, error=error["message"])
    return Response(orjson.dumps({"error": error}), status, mimetype=_JSON)
