"""Starts libFuzzer on a target, with a corpus that the target's seeds begin."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import atheris


def run(
    arguments: list[str],
    one: Callable[[bytes], None],
    seeds: Iterable[bytes],
    mutate: Callable[[bytes, int, int], bytes],
) -> None:
    """Fuzz until an option among `arguments` (libFuzzer's) ends it. The last argument is the corpus' directory."""
    corpus = Path(arguments[-1])
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    atheris.Setup(arguments, one, custom_mutator=mutate)
    atheris.Fuzz()
