"""What the workers of all pods share, and what they keep about a running container."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.container import Process, Program
from local.env import Lookup
from local.images import Images
from local.logs import LogPipe
from local.network import Network
from local.rootfs import RootPlan
from local.volumes import TokenSource

Pod = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Machine:
    """What every pod's worker uses: places, tables and clocks."""

    network: Network
    images: Images
    root: RootPlan
    run_dir: Path
    log_dir: Path
    scratch: Path
    lookup: Lookup
    token_for: TokenSource
    on_status: Callable[[Pod, dict[str, Any]], None]
    monotonic: Callable[[], float]
    wall: Callable[[], float]
    in_thread: Callable[..., Awaitable[Any]]
    on_volumes: Callable[[], None]


@dataclass(slots=True)
class Live:
    """A running container: its process, the program for further ones, its log, and its probes."""

    process: Process
    program: Program
    log: LogPipe
    termination_file: Path
    tasks: list[asyncio.Task[None]]
