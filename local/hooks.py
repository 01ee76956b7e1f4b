"""Lifecycle hooks, and commands run inside a container for the engine's own purposes. Asyncio.

Source: Kubernetes "Container Lifecycle Hooks".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from local.container import LaunchFailed, Process, launch
from local.logs import LogPipe, tail
from local.probes import RunCommand, http_get, resolve_port
from mesh.errors import HeddleError

_CANNOT_EXECUTE = 126  # what shells answer for a program that cannot be started
_OUTPUT_LIMIT = 65536


async def run_hook(
    hook: Mapping[str, Any], container: Mapping[str, Any], address: str, run: RunCommand, seconds: float
) -> str:
    """Run a postStart or preStop hook; what went wrong, or nothing."""
    try:
        if hook.get("exec"):
            code, output = await run(list(hook["exec"].get("command") or []), seconds)
            return f"code {code}: {output[-500:]}" if code else ""
        if hook.get("httpGet"):
            action = hook["httpGet"]
            port = resolve_port(container, action.get("port"), f"{container['name']}.lifecycle")
            secure = (action.get("scheme") or "HTTP").upper() == "HTTPS"
            path, headers = action.get("path") or "/", action.get("httpHeaders") or []
            status, body = await http_get(action.get("host") or address, port, path, headers, secure)
            return f"HTTP status {status}: {body[:200]}" if status >= 400 else ""
        if hook.get("sleep"):
            await asyncio.sleep(hook["sleep"].get("seconds") or 0)
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, HeddleError) as error:
        return str(error) or type(error).__name__
    return ""


async def run_and_collect(
    order: Mapping[str, Any], path: Path, in_thread: Callable[..., Awaitable[Any]], seconds: float
) -> tuple[int, str]:
    """Start what `order` says and return its code and the end of its output, which is kept in `path` meanwhile.

    It is killed after `seconds`, and TimeoutError raised.
    """
    loop = asyncio.get_running_loop()
    log = LogPipe(path, loop, limit=_OUTPUT_LIMIT)
    try:
        process = Process(await in_thread(launch_with_log, order, log), loop)
        try:
            code, _ = await asyncio.wait_for(asyncio.shield(process.ended), max(0.01, seconds))
        finally:
            process.kill()
        log.close()
        return code, tail(path)
    except LaunchFailed as error:
        return _CANNOT_EXECUTE, str(error)
    finally:
        log.close()
        path.unlink(missing_ok=True)


def launch_with_log(order: Mapping[str, Any], log: LogPipe) -> int:
    """Start a process that reads nothing and whose output goes to `log`; its PID."""
    with open("/dev/null", "rb") as nothing:
        try:
            return launch(order, nothing.fileno(), log.writer, log.writer)
        finally:
            log.close_writer()
