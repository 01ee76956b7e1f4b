"""Plain requests in tests: one connection each, redirects not followed."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def get(
    port: int,
    path: str = "/",
    host: str = "",
    headers: Mapping[str, str] | None = None,
    timeout: float = 10.0,
    address: str = "127.0.0.1",
) -> Answer:
    """GET from `address`:`port` with `host` as its authority. Header names of the answer are in lower case."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Host": host or f"{address}:{port}", **(headers or {})})
        response = connection.getresponse()
        body = response.read()
        return Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, body)
    finally:
        connection.close()
