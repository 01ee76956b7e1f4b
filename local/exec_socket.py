"""`heddle local exec`: the caller passes its own terminal to the engine, which starts the command on it inside the pod.

One connection a command. The client sends one message: JSON `{"namespace", "pod", "container", "argv"}` with its
standard input, output and error attached (SCM_RIGHTS, unix(7)). The answer is JSON: `{"exit": <code>}` or
`{"error": {...}}`.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import structlog

from mesh.errors import HeddleError, InvalidInput

MAX_MESSAGE = 1 << 20
log = structlog.get_logger("heddle.local")

# namespace, pod, container ("" for the first), argv, (stdin, stdout, stderr) -> wait for the exit code
Run = Callable[[str, str, str, Sequence[str], tuple[int, int, int]], int]


def serve_in_thread(path: Path, run: Run) -> None:
    """Accept commands on the Unix socket `path`, for its owner alone."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(64)

    def accept() -> NoReturn:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_answer, args=(connection, run), name="exec", daemon=True).start()

    threading.Thread(target=accept, name="exec-accept", daemon=True).start()


def _answer(connection: socket.socket, run: Run) -> None:
    with connection:
        descriptors: list[int] = []
        try:
            message, descriptors, _, _ = socket.recv_fds(connection, MAX_MESSAGE, 3)
            answer: dict[str, Any] = {"exit": _run(message, descriptors, run)}
        except HeddleError as error:
            answer = {"error": error.as_json()}
        except Exception as error:
            log.exception("exec failed")
            answer = {"error": {"code": "internal", "message": f"{type(error).__name__}: {error}"}}
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        try:
            connection.sendall(json.dumps(answer).encode())
        except OSError:
            return  # the caller has gone


def _run(message: bytes, descriptors: list[int], run: Run) -> int:
    try:
        order = json.loads(message)
        argv = [str(word) for word in order["argv"]]
        place = (str(order["namespace"]), str(order["pod"]), str(order.get("container", "")))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput("an exec message is JSON with namespace, pod and argv") from error
    if len(descriptors) != 3 or not argv:
        raise InvalidInput("an exec message carries three descriptors and a command")
    return run(*place, argv, (descriptors[0], descriptors[1], descriptors[2]))


def call(
    path: Path,
    namespace: str,
    pod: str,
    container: str,
    argv: Sequence[str],
    stdio: tuple[int, int, int] = (0, 1, 2),
) -> int:
    """Run `argv` in the pod on the descriptors `stdio` (this process's own by default); its exit code.

    Raises HeddleError with the engine's words when it cannot be started.
    """
    order = {"namespace": namespace, "pod": pod, "container": container, "argv": list(argv)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(path))
        socket.send_fds(connection, [json.dumps(order).encode()], list(stdio))
        chunks = []
        while chunk := connection.recv(65536):
            chunks.append(chunk)
    answer = json.loads(b"".join(chunks) or b'{"error": {"message": "the engine has ended"}}')
    if "error" in answer:
        error = answer["error"]
        raise InvalidInput(error["message"], field=error.get("field"), hint=error.get("hint"))
    return int(answer["exit"])
