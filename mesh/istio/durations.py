"""Durations as Istio writes them: `5s`, `0.5s`, `1h2m3.5s`, `250ms`; seconds as float in Python.

The grammar is that of Go's `time.ParseDuration`, which Istio reads durations with.
"""

from __future__ import annotations

import re

_UNITS = {"h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "µs": 10**3, "μs": 10**3, "ns": 1}
_PART = re.compile(r"([0-9]{1,18})(?:\.([0-9]{0,18}))?(h|ms|us|µs|μs|ns|m|s)|\.([0-9]{1,18})(h|ms|us|µs|μs|ns|m|s)")
_LONGEST_NANOSECONDS = 2**63 - 1


def parse_duration(text: str) -> float:
    """Seconds; ValueError, with the way out, on anything that is not a duration."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", rest):
        raise ValueError(f"{text!r} has no unit: write {text}s for seconds, or use h, m, ms")
    nanoseconds = 0
    position = 0
    while part := _PART.match(rest, position):
        position = part.end()
        whole, fraction, unit = part[1] or "0", part[2] or part[4] or "", part[3] or part[5]
        scale = _UNITS[unit]
        nanoseconds += int(whole) * scale + int(fraction or "0") * scale // 10 ** len(fraction)
    if position == 0 or position != len(rest):
        raise ValueError(f"{text!r} is not a duration: write it as 5s, 250ms, 1m30s or 1h")
    if nanoseconds > _LONGEST_NANOSECONDS:
        raise ValueError(f"{text!r} is too long: the longest duration is about 292 years")
    return sign * nanoseconds / 10**9


def format_duration(seconds: float) -> str:
    """The way Kubernetes stores it: seconds with as many decimals as are needed. `parse_duration` reads it back."""
    nanoseconds = round(seconds * 10**9)
    whole, rest = divmod(abs(nanoseconds), 10**9)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{'-' if nanoseconds < 0 else ''}{whole}{fraction}s"
