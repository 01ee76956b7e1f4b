"""`POST /v1/intermediate`, for operators: this replica signs with another intermediate from now on."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask, Response

from ca.authority import Authority
from ca.issue import rfc3339
from serving.json_http import json_response


def add_intermediate(app: Flask, authority: Authority, operator: Callable[[], None]) -> None:
    """Add the route; `operator` raises unless the current request is an operator's."""

    @app.post("/v1/intermediate")
    def replace() -> Response:
        operator()
        old, new = authority.replace_issuer()
        return json_response({"old": old.serial, "new": new.serial, "notAfter": rfc3339(new.issuer.not_after)}, 200)
