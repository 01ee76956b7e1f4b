"""The node's NAT rules: golden cases (`cases/services/<name>/{in.yaml,out.rules}`), loaded by real iptables too.

`HEDDLE_REGENERATE=1` writes the out files anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from local import sandbox
from local.services import rules

CASES = Path(__file__).parent / "cases" / "services"
NAMES = sorted(path.name for path in CASES.iterdir())


def render(services: list[dict[str, Any]], slices: list[dict[str, Any]]) -> str:
    return rules(
        services, slices, node_address="10.244.0.1", service_range="10.96.0.0/16", node_services=("10.96.0.10",)
    )


@pytest.mark.parametrize("name", NAMES)
def test_rules(name: str) -> None:
    given = yaml.safe_load((CASES / name / "in.yaml").read_text())
    text = render(given["services"], given["slices"])
    golden = CASES / name / "out.rules"
    if os.environ.get("HEDDLE_REGENERATE"):
        golden.write_text(text)
    assert text == golden.read_text(), "HEDDLE_REGENERATE=1 writes it anew"


def test_no_case_has_other_files() -> None:
    assert {path.name for path in CASES.glob("*/*")} == {"in.yaml", "out.rules"}


@pytest.mark.root
def test_iptables_takes_every_case() -> None:
    script = " && ".join(f"iptables-restore {CASES / name / 'out.rules'}" for name in NAMES)
    with tempfile.TemporaryDirectory(prefix="heddle-rules-") as folder:
        env = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        process = sandbox.start(["sh", "-c", script], Path(folder), env=env, stderr=subprocess.PIPE)
        _, complaint = process.communicate(timeout=60)
    assert process.returncode == 0, complaint.decode()


endpoints = st.lists(
    st.tuples(st.integers(1, 254), st.sampled_from([True, False, None])), max_size=6, unique_by=lambda one: one[0]
)


@given(st.lists(endpoints, max_size=4))
def test_each_ready_endpoint_is_reached_equally_often_and_no_other_at_all(
    groups: list[list[tuple[int, bool | None]]],
) -> None:
    services = [
        {"metadata": {"name": f"s{n}"}, "spec": {"clusterIP": f"10.96.1.{n}", "ports": [{"port": 80}]}}
        for n in range(len(groups))
    ]
    slices = [
        {
            "metadata": {"labels": {"kubernetes.io/service-name": f"s{n}"}},
            "ports": [{"port": 8080}],
            "endpoints": [
                {"addresses": [f"10.244.{n + 1}.{last}"], "conditions": {"ready": ready}} for last, ready in group
            ],
        }
        for n, group in enumerate(groups)
    ]
    text = render(services, slices)
    for n, group in enumerate(groups):
        wanted = {f"10.244.{n + 1}.{last}:8080" for last, ready in group if ready is not False}
        lines = [line for line in text.splitlines() if f"--to-destination 10.244.{n + 1}." in line]
        assert {line.split()[-1] for line in lines} == wanted
        left, chances = 1.0, []
        for line in lines:
            chance = re.search(r"--probability (\S+)", line)
            share = left * float(chance.group(1)) if chance else left
            chances.append(share)
            left -= share
        assert all(abs(chance - 1 / len(lines)) < 1e-6 for chance in chances)
        assert (f"-A HEDDLE-REFUSE -d 10.96.1.{n}/32" in text) == (not wanted)


def test_order_of_objects_does_not_matter() -> None:
    given = yaml.safe_load((CASES / "several" / "in.yaml").read_text())
    forward = render(given["services"], given["slices"])
    assert render(given["services"][::-1], given["slices"][::-1]) == forward
