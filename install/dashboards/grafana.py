"""A dashboard as Grafana reads it. Pure.

Source: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from install import files
from install.dashboards.control_plane import CONTROL_PLANE
from install.dashboards.panels import Dashboard, Panel, Query, Variable
from install.dashboards.traffic import MESH, SERVICE, WORKLOADS

DASHBOARDS = (MESH, SERVICE, WORKLOADS, CONTROL_PLANE)
FOLDER = files.ROOT / "addons" / "dashboards"
SOURCE = {"type": "prometheus", "uid": "prometheus"}
WIDTH = 24

Raw = dict[str, Any]


def page(dashboard: Dashboard) -> str:
    """manifests/addons/dashboards/<name>.json"""
    return json.dumps(model(dashboard), indent=2) + "\n"


def page_of(dashboard: Dashboard) -> Path:
    """Where `page` is committed."""
    return FOLDER / f"{dashboard.name}.json"


def model(dashboard: Dashboard) -> Raw:
    """The dashboard as Grafana's JSON model."""
    return {
        "uid": f"heddle-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["heddle"],
        "schemaVersion": 39,
        "refresh": "15s",
        "time": {"from": "now-30m", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["heddle"], "title": "Heddle", "keepTime": True}],
        "templating": {"list": [_variable(each) for each in dashboard.variables]},
        "panels": list(_panels(dashboard)),
    }


def _variable(variable: Variable) -> Raw:
    return {
        "name": variable.name,
        "label": variable.name,
        "type": "query",
        "datasource": SOURCE,
        "query": variable.values,
        "refresh": 2,  # when the time range changes: workloads come and go
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panels(dashboard: Dashboard) -> Iterator[Raw]:
    number, top = 0, 0
    for title, panels in dashboard.rows:
        number += 1
        place = {"h": 1, "w": WIDTH, "x": 0, "y": top}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        top += 1
        left = height = 0
        for panel in panels:
            if left + panel.width > WIDTH:
                top, left, height = top + height, 0, 0
            number += 1
            own = _height(panel)
            yield _panel(panel, number, {"h": own, "w": panel.width, "x": left, "y": top})
            left, height = left + panel.width, max(height, own)
        top += height


def _height(panel: Panel) -> int:
    return 4 if panel.kind == "stat" and panel.width <= 4 else 8


def _panel(panel: Panel, number: int, place: Raw) -> Raw:
    table = panel.kind == "table"
    made: Raw = {
        "id": number,
        "title": panel.title,
        "type": panel.kind,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [_target(query, chr(ord("A") + at), table=table) for at, query in enumerate(panel.queries)],
    }
    if panel.about:
        made["description"] = panel.about
    if table:
        names = {f"Value #{chr(ord('A') + at)}": query.legend for at, query in enumerate(panel.queries)}
        columns = {"excludeByName": {"Time": True}, "renameByName": names}
        made["transformations"] = [{"id": "merge", "options": {}}, {"id": "organize", "options": columns}]
    return made


def _target(query: Query, reference: str, *, table: bool) -> Raw:
    target: Raw = {"refId": reference, "datasource": SOURCE, "expr": query.expr}
    if table:
        return {**target, "format": "table", "instant": True}
    return {**target, "legendFormat": query.legend} if query.legend else target
