"""The command line in this process, through the same `main` as the `heddle` script."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from unittest import mock

from cli.main import main


@dataclass(frozen=True)
class Done:
    code: int
    out_bytes: bytes
    err: str

    @property
    def out(self) -> str:
        return self.out_bytes.decode()


def heddle(*words: str) -> Done:
    """Exit code and output of `heddle WORDS`."""
    out, err = _Text(), _Text()
    with (
        mock.patch.object(sys, "argv", ["heddle", *words]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return Done(code, out.written(), err.written().decode())


class _Text(io.TextIOWrapper):
    """Has a `buffer`, as the real ones do."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def written(self) -> bytes:
        self.flush()
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue()
