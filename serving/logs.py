"""JSON lines on standard output: structlog's, and those of libraries that use `logging`."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson
import structlog
from gunicorn.glogging import Logger

_OF_A_CONNECTION = "Socket error processing request."  # gunicorn's words, in all of its workers


def configure(level: int = logging.INFO) -> None:
    """Call once, at the start of the process."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_dumps)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=lambda *a, **k: _dumps(*a, **k).decode()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


class GunicornLog(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's messages by the root logger; no access log: the apps say what they did."""

    def setup(self, cfg: Any) -> None:
        """Instead of handlers of its own."""
        self.error_log.propagate = True
        self.error_log.setLevel(logging.INFO)

    def access(self, *_arguments: Any) -> None:
        """Nothing."""

    def exception(self, message: str, *arguments: Any, **options: Any) -> None:
        """A peer that falls silent or goes away is its own affair, not an error of ours."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError) and message == _OF_A_CONNECTION:
            self.error_log.info("connection ended: %s", error)
        else:
            super().exception(message, *arguments, **options)


def _dumps(event: Any, **options: Any) -> bytes:
    return orjson.dumps(event, default=options.get("default", repr))
