"""gunicorn round a service: one worker process, HTTPS by contexts made in memory."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gunicorn.app.base import BaseApplication

from serving.logs import GunicornLog


@dataclass(frozen=True, slots=True)
class Running:
    """A started service: its WSGI application (or what its worker calls instead), the TLS context for gunicorn's next
    question, and what ends it.

    `close` may be called more than once.
    """

    app: Any
    context: Callable[[], Any]
    close: Callable[[], None]


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """`start` is called in the worker, after the fork: threads and keys are made where they are used, nothing is read
    or connected before. `settings` are gunicorn's, by its names."""

    def __init__(self, start: Callable[[], Running], listen: str, **settings: Any) -> None:
        self._start, self._listen, self._settings = start, listen, settings
        self._running: Running | None = None
        super().__init__()

    def load_config(self) -> None:
        for name, value in {
            "bind": self._listen,
            "workers": 1,
            "logger_class": GunicornLog,
            "control_socket_disable": True,
            # gunicorn speaks TLS when there is a certificate file; the contexts come from `ssl_context`, from memory.
            "certfile": os.devnull,
            "ssl_context": lambda _config, _default: self._current().context(),
            "worker_exit": lambda _server, _worker: self.close(),
            **self._settings,
        }.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """The WSGI application, in the worker."""
        _raise_file_limit()
        self._running = self._start()
        return self._running.app

    def close(self) -> None:
        """End what `start` began."""
        if self._running is not None:
            self._running.close()

    def _current(self) -> Running:
        assert self._running is not None
        return self._running


def _raise_file_limit() -> None:
    """Each connection is a file, and many systems allow 1,024 at first, for programs that use select(2).

    Without one left, gunicorn's worker ends.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
