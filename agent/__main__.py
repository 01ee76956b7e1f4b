"""`heddle-agent`: `run` is the container's main process, the others talk to it over its socket."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from urllib.parse import quote

from agent.settings import AGENT_SOCKET, add_flags, read_settings
from mesh import ports
from mesh.errors import HeddleError, InvalidInput, Unavailable

WAIT_SECONDS, WAIT_EVERY = 60.0, 0.1


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit 0, or 1 with one sentence on standard error."""
    parsed = _parser().parse_args(arguments)
    try:
        if parsed.command in (None, "run"):
            _run(parsed)
        elif parsed.command == "wait":
            asyncio.run(_wait(parsed.timeout))
        else:
            _ask(parsed)
    except HeddleError as error:
        sys.exit(f"heddle-agent: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="heddle-agent", description="The agent of one sidecar.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    add_flags(commands.add_parser("run", help="run the sidecar (the default)"))
    admin = commands.add_parser("admin", help="ask Envoy's admin interface, and print what it answers")
    admin.add_argument("method", choices=("GET", "POST"))
    admin.add_argument("path", help="such as /config_dump or /clusters?format=json")
    commands.add_parser("status", help="identity, what Envoy has applied and what it refuses, as JSON")
    commands.add_parser("renew", help="renew the certificate now, and print both serials as JSON")
    commands.add_parser("drain", help="close connections as their requests end, and fail readiness")
    wait = commands.add_parser("wait", help="return when the sidecar is ready; a postStart hook holds the app by it")
    wait.add_argument("--timeout", type=float, default=WAIT_SECONDS, help="seconds (default: %(default)g)")
    commands.add_parser("restart-envoy", help="kill Envoy, so that it is started again")
    for name, command in commands.choices.items():
        if name != "run":
            command.add_argument("--socket", default=_socket(), help="the agent's socket (default: %(default)s)")
    return parser


def _socket() -> str:
    directory = os.environ.get("SOCKET_DIR") or os.environ.get("DATA_DIR") or "/etc/istio/proxy"
    return f"{directory.rstrip('/')}/{AGENT_SOCKET}"


def _run(parsed: argparse.Namespace) -> None:
    from agent.log import start_logging  # the commands below need none of what `run` imports
    from agent.run import run

    settings = read_settings(os.environ, vars(parsed))
    start_logging(settings.log_level)
    run(settings)


def _ask(parsed: argparse.Namespace) -> None:
    if parsed.command == "admin":
        if not parsed.path.startswith("/"):
            raise InvalidInput("must start with a slash", field="path", hint=f"/{parsed.path}")
        method, path = parsed.method, "/agent/admin" + quote(parsed.path, safe="/?&=%;,:@!$'()*+~")
    else:
        method, path = ("GET" if parsed.command == "status" else "POST"), f"/agent/{parsed.command}"
    status, body = asyncio.run(_exchange(parsed.socket, method, path))
    if status != 200:
        sys.exit(f"heddle-agent: {body.decode(errors='replace').strip() or f'the agent answered {status}'}")
    sys.stdout.buffer.write(body if body.endswith(b"\n") else body + b"\n")


async def _wait(seconds: float) -> None:
    """Until port 15021 says that the sidecar is ready. Unavailable, with the reason, after `seconds`."""
    from agent.health import READY
    from agent.http_client import fetch

    port = int(os.environ.get("HEALTH_PORT") or ports.HEALTH)
    end = time.monotonic() + seconds
    why = ""
    while time.monotonic() < end:
        try:
            answer = await fetch("127.0.0.1", port, "GET", READY, timeout=3.0)
        except Unavailable as error:
            why = str(error)
        else:
            if answer.status == 200:
                return
            why = answer.body.decode(errors="replace")
        await asyncio.sleep(WAIT_EVERY)
    raise Unavailable(f"the sidecar is not ready after {seconds:g} s: {why}")


async def _exchange(socket: str, method: str, path: str) -> tuple[int, bytes]:
    from agent.http_client import connect_unix

    connection = await connect_unix(socket)
    try:
        answer = await connection.request(method, path)
    finally:
        connection.close()
    return answer.status, answer.body


if __name__ == "__main__":
    main()
