"""A real Envoy that loads a configuration and ends: `envoy --mode validate`."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from discovery.preflight.bootstrap import bootstrap
from discovery.preflight.trials import Json
from discovery.preflight.verdict import Refused
from mesh.errors import Unavailable

_CRITICAL = "-l", "critical"


def loads(binary: str, config: Json, seconds: float) -> str:
    """Envoy's words when it refuses `config`; "" when it takes it. Unavailable when it does not end in time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "preflight.json"
        path.write_bytes(orjson.dumps(config))
        command = [binary, "--mode", "validate", "-c", str(path), "--concurrency", "1", *_CRITICAL]
        try:
            done = subprocess.run(command, capture_output=True, timeout=max(seconds, 0.05), check=False)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"Envoy did not load it within {seconds:.1f} s") from None
        except OSError as error:
            raise Unavailable(f"Envoy cannot be started: {error}") from None
    if done.returncode == 0:
        return ""
    return (done.stderr + done.stdout).decode(errors="replace") or f"it ended with {done.returncode}"


def until(binary: str, deadline: float, monotonic: Callable[[], float] = time.monotonic) -> Refused:
    """Asks an Envoy each time, until `deadline`; then Unavailable."""

    def refused(elements: object) -> str:
        left = deadline - monotonic()
        if left <= 0:
            raise Unavailable("there is no time left to ask an Envoy")
        return loads(binary, bootstrap(elements), left)  # type: ignore[arg-type]

    return refused
