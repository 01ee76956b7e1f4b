"""The dashboards: current, of one piece, and of queries that Prometheus reads."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from install import files
from install.dashboards.grafana import DASHBOARDS, FOLDER, SOURCE, WIDTH, page, page_of
from install.dashboards.panels import Dashboard
from tests.install.dashboard_queries import queries

EACH = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.name)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def read(dashboard: Dashboard) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page_of(dashboard).read_text())
    return found


@EACH
def test_what_is_committed_is_current(dashboard: Dashboard) -> None:
    assert page_of(dashboard).read_text() == page(dashboard), "python -m install.dashboards writes it anew"


def test_grafana_is_given_each_of_them_and_their_source() -> None:
    objects = {(raw["kind"], raw["metadata"]["name"]): raw for raw in files.folder("addons")}
    given = objects["ConfigMap", "grafana-dashboards"]["data"]
    assert given == {page_of(each).name: page(each) for each in DASHBOARDS}
    assert {file.name for file in FOLDER.iterdir()} == given.keys()
    sources = yaml.safe_load(objects["ConfigMap", "grafana"]["data"]["datasources.yaml"])["datasources"]
    assert SOURCE in [{"type": each["type"], "uid": each["uid"]} for each in sources]
    assert len({read(each)["uid"] for each in DASHBOARDS}) == len(DASHBOARDS)


@EACH
def test_panels_have_a_place_of_their_own(dashboard: Dashboard) -> None:
    panels = read(dashboard)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels):
        cells = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert place["x"] + place["w"] <= WIDTH
        assert not cells & taken
        taken |= cells


@EACH
def test_queries_use_variables_that_there_are(dashboard: Dashboard) -> None:
    found = read(dashboard)
    declared = {each["name"] for each in found["templating"]["list"]} | {"__rate_interval"}
    asked = json.dumps([found["panels"], found["templating"]])
    used = {"".join(names) for names in _VARIABLE.findall(asked.replace("$__all", ""))}
    assert used == declared


def test_tables_name_each_of_their_columns() -> None:
    tables = [panel for each in DASHBOARDS for panel in read(each)["panels"] if panel["type"] == "table"]
    assert tables
    for panel in tables:
        (names,) = [each["options"]["renameByName"] for each in panel["transformations"] if each["id"] == "organize"]
        assert names.keys() == {f"Value #{target['refId']}" for target in panel["targets"]}
        assert all(target["instant"] and target["format"] == "table" for target in panel["targets"])


def test_prometheus_reads_every_query(tmp_path: Path) -> None:
    """By promtool (Debian: prometheus), as rules."""
    rules = [{"record": f"query:{at}", "expr": expr} for at, expr in enumerate(queries())]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(rules)} rules found" in done.stdout
