"""How results are shown, and what a mesh could leave behind."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import click
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from cli.demo.host import left_behind, surroundings, tree
from cli.output import age, columns, duration, moment, output_option, show
from tests.lanes import MACHINE

pytestmark = MACHINE


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.0004, "0ms"),
        (0.012, "12ms"),
        (0.9994, "999ms"),
        (0.9996, "1s"),
        (1, "1s"),
        (59.9, "59s"),
        (60, "1m"),
        (95, "1m35s"),
        (3600, "1h"),
        (3605, "1h"),
        (90000, "1d1h"),
        (86400 * 400, "400d"),
        (-95, "-1m35s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(min_value=-1e9, max_value=1e9))
def test_a_duration_has_at_most_two_units(seconds: float) -> None:
    assert sum(letter.isalpha() for letter in duration(seconds).replace("ms", "m")) in (1, 2)


def test_ages() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert age("2026-01-01T00:00:00Z", now) == "1d"
    assert age("2026-01-01T23:59:30.5+00:00", now) == "29s"
    assert age("", now) == ""
    assert moment("") is None


def test_columns_line_up_and_numbers_stay_as_they_are() -> None:
    text = columns(("name", "serial"), [("a", "007"), ("long", None), ("b", 1.50)])
    assert [line.rstrip() for line in text.splitlines()] == ["NAME    SERIAL", "a       007", "long", "b       1.5"]
    assert columns(("name",), []) == "(none)"


@click.command()
@output_option
def print_value(output: str) -> None:
    show({"b": [1, "ü"], "a": None}, output, lambda value: f"table of {len(value)}")


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_programs_read_back_what_was_shown(form: str, read: object) -> None:
    shown = CliRunner().invoke(print_value, ["-o", form]).stdout
    assert callable(read)
    assert read(shown) == {"b": [1, "ü"], "a": None}


def test_people_get_a_table_and_other_forms_are_refused() -> None:
    assert CliRunner().invoke(print_value).stdout == "table of 2\n"
    assert CliRunner().invoke(print_value, ["-o", "xml"]).exit_code == 2


@pytest.mark.root
def test_processes_and_namespaces_of_a_tree_are_found_and_missed_when_gone() -> None:
    waits = ["unshare", "-r", "-n", sys.executable, "-c", "print(flush=True); input()"]
    before = surroundings()
    process = subprocess.Popen(waits, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    found = tree(process.pid)
    assert [pid for pid, _ in found.processes] == [process.pid]
    assert len(found.namespaces) == 1
    process.communicate(b"\n")
    assert left_behind(found, before) == ""


def test_what_is_left_is_named_by_its_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.demo.host.TEARDOWN_SECONDS", 0)
    with subprocess.Popen(["sleep", "60"]) as process:
        now = surroundings()
        left = left_behind(tree(process.pid), replace(now, interfaces=now.interfaces - {"lo"}))
        process.kill()
    assert left == "processes sleep 60; interfaces lo"
