"""The alert rules, judged by Prometheus' promtool (Debian: prometheus): each fires where it should, not elsewhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import run
from ca.metrics import Metrics as CaMetrics
from ca.rotation.state import Rotation
from discovery.metrics import Metrics as DiscoveryMetrics
from tests.install.alert_rules import FILES, named, rules
from webhook.metrics import Metrics as WebhookMetrics

CASES: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(Path(__file__).with_name("alerts.yaml").read_text())


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_file_is_read_by_prometheus_alone() -> None:
    promtool("check", "rules", *map(str, FILES))


def test_each_alert_says_what_is_wrong_and_what_to_do() -> None:
    for rule in rules().values():
        assert rule["annotations"].keys() == {"summary", "description"}
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_each_alert_has_its_two_cases() -> None:
    assert CASES.keys() == rules().keys()
    assert all(case.keys() == {"fires", "quiet"} for case in CASES.values())


@pytest.mark.parametrize("side", ["fires", "quiet"])
def test_alerts_fire_where_they_should_and_only_there(side: str, tmp_path: Path) -> None:
    cases = [judged(alert, case[side], fires=side == "fires") for alert, case in CASES.items()]
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": list(map(str, FILES)), "tests": cases}))
    assert "SUCCESS" in promtool("test", "rules", str(file))


def judged(alert: str, case: dict[str, Any], *, fires: bool) -> dict[str, Any]:
    """The case as promtool has them."""
    rule = rules()[alert]
    expected = []
    if fires:
        # A description is the same wherever its alert fires; what differs is in the summary.
        annotations = {"summary": case["summary"], "description": rule["annotations"]["description"]}
        labels = {"severity": rule["labels"]["severity"], **case.get("labels", {})}
        expected = [{"exp_labels": labels, "exp_annotations": annotations}]
    return {
        "name": alert,
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case["series"].items()],
        "alert_rule_test": [{"eval_time": case["at"], "alertname": alert, "exp_alerts": expected}],
    }


def test_alerts_ask_for_what_there_is() -> None:
    asked = {name for rule in rules().values() for name in named(rule["expr"])}
    made = "".join(metrics.text().decode() for metrics in (DiscoveryMetrics(), ca(), WebhookMetrics()))
    made += Path(run.__file__).read_text()
    assert asked
    assert {name for name in asked if not re.search(rf"\b{name}\b", made)} == set()


def ca() -> CaMetrics:
    metrics = CaMetrics()
    metrics.ends(lambda: {"root": 3.0, "intermediate": 2.0, "serving": 1.0})
    metrics.rotation(Rotation)
    metrics.first_ends(lambda: {"volume": 1.0})
    return metrics
