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

    def told() -> Response:
        """`listed`: whether proxies have what is revoked; where a root's key is elsewhere nobody can tell them."""
        return json_response({**revocations_json(revoking.current), "listed": revoking.listed}, 200)

    @app.get("/v1/revocations")
    def revocations() -> Response:
        operator()
        return told()

    @app.post("/v1/revocations")
    def revoke() -> Response:
        by = operator()
        wish = wish_from(read_json(MAX_BODY), trust_domain)
        revoking.carry_out(wish, by)
        return told()
