"""What renderings depend on beside the element that they render."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Context:
    """`access_log`: a file, or empty for none."""

    trust_domain: str
    access_log: str
