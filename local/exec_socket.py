"""`heddle local exec`: the caller passes its own terminal to the engine, which starts the command on it inside the pod.

One connection a command. The client sends one message, JSON `{"namespace", "pod", "container", "argv"}` with its
standard input, output and error attached (SCM_RIGHTS, unix(7)), and shuts down its side. The answer is JSON:
`{"exit": <code>}` or `{"error": {...}}`. When the client goes before the answer, its command is ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import Any, Protocol

import structlog

from mesh.errors import HeddleError, InvalidInput, Unavailable

MAX_MESSAGE = 1 << 20
MESSAGE_SECONDS = 10.0
HANGUP_SECONDS = 2.0
"""So long a command whose caller has gone has to end by SIGHUP."""
log = structlog.get_logger("heddle.local")


class Execution(Protocol):
    """A command that runs (local.kubelet.Execution)."""

    @property
    def ended(self) -> Future[int]: ...
    @property
    def kill(self) -> Callable[[int], None]: ...


# namespace, pod, container ("" for the first), argv, (stdin, stdout, stderr) -> the command, started
Run = Callable[[str, str, str, Sequence[str], tuple[int, int, int]], Execution]


def serve_in_thread(path: Path, run: Run) -> Callable[[], None]:
    """Accept commands on the Unix socket `path`, for its owner alone; returns what ends that."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(64)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=_answer, args=(connection, run), name="exec", daemon=True).start()

    def close() -> None:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        listener.close()

    threading.Thread(target=accept, name="exec-accept", daemon=True).start()
    return close


def _answer(connection: socket.socket, run: Run) -> None:
    with connection:
        descriptors: list[int] = []
        try:
            message = _receive(connection, descriptors)
            answer: dict[str, Any] = {"exit": _run(connection, message, descriptors, run)}
        except HeddleError as error:
            answer = {"error": error.as_json()}
        except Exception as error:
            log.exception("exec failed")
            answer = {"error": {"code": "internal", "message": f"{type(error).__name__}: {error}"}}
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        with contextlib.suppress(OSError):  # the caller has gone
            connection.sendall(json.dumps(answer).encode())


def _receive(connection: socket.socket, descriptors: list[int]) -> bytes:
    """The whole message; its descriptors are added to `descriptors`."""
    connection.settimeout(MESSAGE_SECONDS)
    message = b""
    try:
        while True:
            part, received, _, _ = socket.recv_fds(connection, MAX_MESSAGE, 3, socket.MSG_CMSG_CLOEXEC)
            descriptors += received
            message += part
            if not part:
                break
            if len(message) > MAX_MESSAGE:
                raise InvalidInput(f"an exec message has at most {MAX_MESSAGE} bytes")
    except TimeoutError as error:
        raise InvalidInput(f"an exec message must be complete after {MESSAGE_SECONDS:g} s") from error
    connection.settimeout(None)
    return message


def _run(connection: socket.socket, message: bytes, descriptors: list[int], run: Run) -> int:
    try:
        order = json.loads(message)
        argv = order["argv"]
        place = (str(order["namespace"]), str(order["pod"]), str(order.get("container", "")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput("an exec message is JSON with namespace, pod and argv") from error
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
        raise InvalidInput("argv is a list of at least one text", field="argv")
    if len(descriptors) != 3:
        raise InvalidInput(f"an exec message carries three descriptors, this one has {len(descriptors)}")
    running = run(*place, argv, (descriptors[0], descriptors[1], descriptors[2]))
    _wait(connection, running)
    return running.ended.result()


def _wait(connection: socket.socket, running: Execution) -> None:
    """Until the command has ended, which is told to when the caller goes."""
    woken, wake = socket.socketpair()
    with woken, wake:
        running.ended.add_done_callback(lambda _: _ring(wake))
        poll = select.poll()
        poll.register(connection, 0)  # POLLHUP is always told: both sides are shut when the caller has gone
        poll.register(woken, select.POLLIN)
        if any(ready == connection.fileno() for ready, _ in poll.poll()) and not running.ended.done():
            running.kill(signal.SIGHUP)
            if not wait_for([running.ended], HANGUP_SECONDS).done:
                running.kill(signal.SIGKILL)
        wait_for([running.ended])


def _ring(wake: socket.socket) -> None:
    with contextlib.suppress(OSError):  # nobody waits any more
        wake.send(b".")


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
    message = json.dumps(order).encode()
    if len(message) > MAX_MESSAGE:
        raise InvalidInput(f"a command has at most {MAX_MESSAGE} bytes", field="argv", hint="put the input in a file")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(path))
            sent = socket.send_fds(connection, [message], list(stdio))
            connection.sendall(message[sent:])
            connection.shutdown(socket.SHUT_WR)
            chunks = []
            while chunk := connection.recv(65536):
                chunks.append(chunk)
    except OSError as error:
        raise Unavailable(
            f"the engine does not answer at {path}: {error}", hint="is the mesh still running?"
        ) from error
    if not chunks:
        raise Unavailable("the engine ended while the command ran", hint="start it again with `heddle local up`")
    answer = json.loads(b"".join(chunks))
    if "error" in answer:
        said = answer["error"]
        raise InvalidInput(said["message"], field=said.get("field"), hint=said.get("hint"))
    return int(answer["exit"])
