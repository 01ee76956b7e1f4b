"""What the dashboards that are committed ask of Prometheus, as Grafana asks it when nothing is chosen."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from install.dashboards.grafana import DASHBOARDS, page_of

WINDOW = "1m"
_VALUES = re.compile(r"label_values\((.*), (\w+)\)")


def queries() -> list[str]:
    """Every query of every panel, once."""
    return list(
        dict.fromkeys(
            _chosen(target["expr"], page)
            for page in _pages()
            for panel in page["panels"]
            for target in panel.get("targets", ())
        )
    )


def variables() -> list[str]:
    """For each variable, a query whose answers have its values."""
    found = []
    for page in _pages():
        for variable in page["templating"]["list"]:
            said = _VALUES.fullmatch(variable["query"])
            assert said, f"{variable['query']} is no label_values(series, label)"
            series, label = said.groups()
            found.append(_chosen(f"group by ({label}) ({series})", page))
    return found


def _pages() -> Iterator[dict[str, Any]]:
    return (json.loads(page_of(each).read_text()) for each in DASHBOARDS)


def _chosen(expr: str, page: dict[str, Any]) -> str:
    """With Grafana's variables replaced: its own by a window, the page's by what stands for all."""
    expr = expr.replace("$__rate_interval", WINDOW)
    for variable in page["templating"]["list"]:
        expr = expr.replace(f"${variable['name']}", variable["allValue"])
    return expr
