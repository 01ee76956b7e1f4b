"""Containers' output: from a pipe to a file of bounded size, on the engine's event loop."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

LIMIT = 10 * 1024 * 1024  # bytes; one earlier file of this size is kept beside it
_CHUNK = 65536


class LogPipe:
    """The write end is `writer`, for the container; what arrives is appended to `path`, until all writers are gone."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop, limit: int = LIMIT) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._loop, self._limit = path, loop, limit
        self._file = self._open()
        self._size = os.fstat(self._file).st_size
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._open_for_reading = True
        loop.add_reader(self._reader, self._read)

    def close_writer(self) -> None:
        """Once the container has its own copy."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def close(self) -> None:
        """Take in what is left, and close."""
        self.close_writer()
        while self._open_for_reading and self._read():
            pass
        self._end()

    def _read(self) -> bool:
        """Whether something was read."""
        try:
            data = os.read(self._reader, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._end()
            return False
        if self._size + len(data) > self._limit:
            self._rotate()
        os.write(self._file, data)
        self._size += len(data)
        return True

    def _rotate(self) -> None:
        os.close(self._file)
        self._path.replace(self._path.with_suffix(".log.1"))
        self._file, self._size = self._open(), 0

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _end(self) -> None:
        if self._open_for_reading:
            self._open_for_reading = False
            self._loop.remove_reader(self._reader)
            os.close(self._reader)
            os.close(self._file)


def tail(path: Path, limit: int = 2048) -> str:
    """The last lines of a file, at most `limit` bytes of them."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limit))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return text if len(text) < limit else text.partition("\n")[2]
