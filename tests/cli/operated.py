"""A real ca behind the engine's socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from svid.client import Token, fetch
from svid.material import SvidMaterial
from svid.request import new_key_request
from tests.ca.harness import ISSUER, ApiServer, CaProcess, TokenMint


class OperatorOf:
    """Passes on to a ca what the engine is asked for, with the operator's certificate."""

    def __init__(self, ca: CaProcess, material: SvidMaterial) -> None:
        self._ca, self._material = ca, material

    def get(self, service: str, path: str) -> tuple[int, bytes]:
        return self._ask("GET", service, path)

    def post(self, service: str, path: str, body: bytes) -> tuple[int, bytes]:
        return self._ask("POST", service, path, body)

    def _ask(self, method: str, service: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        assert service == "ca"
        status, answer, _ = self._ca.request(method, path, body, {"Content-Type": "application/json"}, self._material)
        return status, json.dumps(answer).encode()


class Operated(CaProcess):
    """With the operator's way to it."""

    operator: OperatorOf
    mint: TokenMint

    def enrol(self, account: str = "heddle-operator") -> SvidMaterial:
        token = Token(self.mint.token("istio-system", account))
        return fetch(self.address, self.roots, new_key_request(), token)


@contextmanager
def operated(directory: Path) -> Iterator[Operated]:
    """A ca with its state in `directory`/state."""
    mint = TokenMint()
    keys = ("--token-issuer-keys", "api", "--token-issuer", ISSUER)
    with ApiServer(mint) as api:
        # Its sidecar never says anything, so that a rotation stays where it begins.
        api.pods["n", "waits"] = {
            "metadata": {
                "namespace": "n",
                "name": "waits",
                "uid": "uid-waits",
                "annotations": {"sidecar.istio.io/status": "{}"},
            },
            "spec": {"serviceAccountName": "a", "nodeName": "node-1"},
            "status": {"containerStatuses": [{"name": "istio-proxy", "state": {"running": {}}}]},
        }
        with Operated(directory / "state", api, *keys) as process:
            process.mint = mint
            process.operator = OperatorOf(process, process.enrol())
            yield process
