"""Revocations over HTTP: `GET /v1/revocations` and `POST /v1/revocations`, for operators (docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask, Response

from ca.revocation import revocations_json
from ca.revoking import Revoking, wish_from
from serving.json_http import json_response, read_json

MAX_BODY = 1 << 20


def add_revocations(app: Flask, revoking: Revoking, operator: Callable[[], str], trust_domain: str) -> None:
    """Add the two routes. `operator` says who the caller is, or raises unless it is one."""

    @app.get("/v1/revocations")
    def revocations() -> Response:
        operator()
        return json_response(revocations_json(revoking.current), 200)

    @app.post("/v1/revocations")
    def revoke() -> Response:
        by = operator()
        wish = wish_from(read_json(MAX_BODY), trust_domain)
        return json_response(revocations_json(revoking.carry_out(wish, by)), 200)
