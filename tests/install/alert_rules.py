"""The alert rules that are shipped, as values."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import yaml

from install import files

FILES = sorted((files.ROOT / "addons" / "rules").glob("*.yml"))
_NAME = re.compile(r"\b(?:heddle|citadel|pilot|sidecar|galley)_[a-z_]+")


@cache
def rules() -> dict[str, dict[str, Any]]:
    """By the alert's name."""
    groups = (group for file in FILES for group in yaml.safe_load(file.read_text())["groups"])
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def named(expr: str) -> set[str]:
    """The metrics that an expression asks for."""
    return set(_NAME.findall(expr))
