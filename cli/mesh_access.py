"""Reaches a running mesh: for now the embedded one, by its engine's Unix socket."""

from __future__ import annotations

import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any

from mesh.errors import HeddleError, Unavailable

TIMEOUT_SECONDS = 80.0  # longer than the longest held request behind it


class Answered(HeddleError):
    """An error that the mesh answered with; its status and words are the answer's."""

    def __init__(self, status: int, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, field=field, hint=hint)
        self.status = status


def answered(status: int, body: object) -> Answered:
    """The error that a JSON body with `error` in it is."""
    said = body.get("error") if isinstance(body, dict) else None
    said = said if isinstance(said, dict) else {}
    message = said.get("message", f"the mesh answered {status}")
    return Answered(status, message, field=said.get("field"), hint=said.get("hint"))


def state_dir() -> Path:
    """Where the embedded mesh keeps its sockets and logs: $HEDDLE_STATE, or a directory of this user's."""
    chosen = os.environ.get("HEDDLE_STATE")
    if chosen:
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/run/heddle-local")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "heddle-local" if runtime else Path(f"/tmp/heddle-local-{os.geteuid()}")  # noqa: S108


class Mesh:
    """One running mesh. Every method raises Unavailable, with the way out, when there is none."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def get(self, path: str) -> Any:
        """The engine's JSON answer to `GET path`."""
        return self._ask("GET", path)

    def post(self, path: str, body: object = None) -> Any:
        """Its answer to `POST path`; `body` goes as JSON, None as no body at all."""
        return self._ask("POST", path, b"" if body is None else json.dumps(body).encode())

    def discovery(self, path: str) -> Any:
        """Discovery's answer, asked for with the operator's identity."""
        return self.get(f"/control/discovery{path}")

    def ca(self, path: str) -> Any:
        """The ca's answer, asked for with the operator's identity."""
        return self.get(f"/control/ca{path}")

    def ca_post(self, path: str, body: object) -> Any:
        """The same for `POST` with a JSON body."""
        return self.post(f"/control/ca{path}", body)

    def _ask(self, method: str, path: str, content: bytes = b"") -> Any:
        connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT_SECONDS)
        try:
            connection.sock = self._connect()
            connection.request(method, path, content or None)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise _no_answer(self.state, error) from error
        finally:
            connection.close()
        try:
            body = json.loads(text) if text else {}
        except ValueError as error:
            raise Unavailable(
                f"the mesh at {self.state} answered {answer.status} and no JSON: {text[:200]!r}"
            ) from error
        if answer.status >= 400:
            raise answered(answer.status, body)
        return body

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(TIMEOUT_SECONDS)
        connection.connect(str(self.state / "engine.sock"))
        return connection


def _no_answer(state: Path, error: Exception) -> Unavailable:
    """In words for each way in which nobody answers at the socket."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError, ConnectionRefusedError)):
        hint = "start one with `heddle local up -f DIR`, or name its directory in HEDDLE_STATE"
        return Unavailable(f"no mesh runs here: nothing answers at {state}", hint=hint)
    if isinstance(error, PermissionError):
        return Unavailable(f"the mesh at {state} is another user's", hint="run the command as the user who started it")
    if isinstance(error, TimeoutError):
        return Unavailable(f"the mesh at {state} did not answer in time", hint=f"see {state}/logs")
    return Unavailable(f"the mesh at {state} cannot be asked: {error}", hint=f"see {state}/logs")


def connect() -> Mesh:
    return Mesh(state_dir())
