"""A real ca, and its operator."""

from __future__ import annotations

import json
from typing import Any

from svid.client import Token, fetch
from svid.material import SvidMaterial
from svid.request import new_key_request
from tests.ca.harness import CaProcess, TokenMint


class Operated(CaProcess):
    """A ca, asked as its operator once `begin` has been called."""

    operator: SvidMaterial

    def begin(self, mint: TokenMint) -> None:
        """Enrol the operator."""
        self.operator = self.enrol(mint.token("istio-system", "heddle-operator"))

    def enrol(self, token: str) -> SvidMaterial:
        """A certificate by token."""
        return fetch(self.address, self.roots, new_key_request(), Token(token))

    def rotation(self, **wish: Any) -> Any:
        """Status and body of the answer to a wish, or to a question where there is none."""
        body = json.dumps(wish).encode() if wish else None
        method, headers = ("POST", {"Content-Type": "application/json"}) if wish else ("GET", {})
        return self.request(method, "/v1/rotation", body, headers, self.operator)[:2]
