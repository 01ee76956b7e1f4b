"""`heddle validate`: files in, exit status and report out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from cli.commands.validate import command

ROUTE = "  http:\n  - route:\n    - destination: {host: reviews}\n"
GOOD = (
    "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: good}\nspec:\n  hosts: [reviews]\n"
    + ROUTE
)
BAD = (
    GOOD.replace("name: good", "name: bad")
    .replace("hosts", "host")
    .replace("    - dest", "    - weight: -1\n      dest")
)
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews}\n"
SAMPLES = Path(__file__).parents[2] / "samples"


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(command, arguments, input=stdin, catch_exceptions=False)


def written(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_good_files_are_one_line_and_exit_0(tmp_path: Path) -> None:
    result = run("-f", str(written(tmp_path, a=GOOD, b=SERVICE)))
    assert result.exit_code == 0
    assert result.output == "1 object of Istio's kinds, 0 errors, 0 warnings, 1 of other kinds not checked\n"


def test_the_meshs_settings_are_checked(tmp_path: Path) -> None:
    text = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    accessLogFormat: "[%START_TIME%] %RESPONSE_CODES%"
"""
    result = run("-f", str(written(tmp_path, istio=text)))
    assert result.exit_code == 1
    error = result.output.splitlines()[0]
    assert error.startswith(
        f"error: {tmp_path / 'istio.yaml'}:6: ConfigMap istio-system/istio: data.mesh: accessLogForm"
    )
    assert "there is no command %RESPONSE_CODES% (column 16) (did you mean %RESPONSE_CODE%?)" in error
    assert "1 object of Istio's kinds, 1 error" in result.output
    assert run("-f", str(written(tmp_path, istio=text.replace("CODES", "CODE")))).exit_code == 0


def test_bad_files_are_every_error_and_exit_1(tmp_path: Path) -> None:
    written(tmp_path, bad=f"{SERVICE}---\n{BAD}", text="a: [\n")
    result = run("-f", str(tmp_path / "bad.yaml"), "-f", str(tmp_path / "text.yaml"), "-n", "prod")
    assert result.exit_code == 1
    bad, text = tmp_path / "bad.yaml", tmp_path / "text.yaml"
    about = "VirtualService prod/bad"
    assert result.output.splitlines() == [
        f"error: {text}:2: this is not YAML: did not find expected node content at column 1 "
        "(look at the indentation and quotes of this line and the one before)",
        f"error: {bad}:9: {about}: spec.host: there is no field 'host' (did you mean hosts?)",
        f"error: {bad}:12: {about}: spec.http[0].route[0].weight: -1 is negative (use 0 for no traffic)",
        "1 object of Istio's kinds, 3 errors, 0 warnings, 1 of other kinds not checked",
    ]


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_the_same_for_programs(tmp_path: Path, output: str) -> None:
    result = run("-f", str(written(tmp_path, bad=BAD)), "-o", output)
    assert result.exit_code == 1
    report = json.loads(result.output) if output == "json" else yaml.safe_load(result.output)
    assert {key: report[key] for key in ("valid", "checked", "notChecked", "warnings")} == {
        "valid": False,
        "checked": 1,
        "notChecked": 0,
        "warnings": [],
    }
    assert report["errors"][0] == {
        "file": str(tmp_path / "bad.yaml"),
        "line": 5,
        "object": "VirtualService default/bad",
        "field": "spec.host",
        "message": "there is no field 'host'",
        "hint": "did you mean hosts?",
    }


def test_standard_input() -> None:
    assert run("-f", "-", stdin=GOOD).exit_code == 0
    result = run("-f", "-", stdin=BAD)
    assert result.exit_code == 1
    assert result.output.startswith("error: -:5: VirtualService default/bad: spec.host")


def test_warnings_are_shown_and_exit_0(tmp_path: Path) -> None:
    sidecar = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default}\n"
    result = run("-f", str(written(tmp_path, a=GOOD + "    mirror: {host: reviews}\n", b=sidecar)))
    assert result.exit_code == 0
    assert result.output.count("warning: ") == 2
    assert "spec.http[0].mirror: Heddle reads this field and does not act upon it yet" in result.output


def test_what_cannot_be_read_is_said_and_the_rest_is_checked(tmp_path: Path) -> None:
    written(tmp_path, good=GOOD)
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    (tmp_path / "empty").mkdir()
    names = ("good.yaml", "missing.yaml", "latin.yaml", "empty")
    result = run(*(part for name in names for part in ("-f", str(tmp_path / name))))
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        f"error: {tmp_path}/missing.yaml: it cannot be read: No such file or directory (check name and rights)",
        f"error: {tmp_path}/latin.yaml:2: it is not UTF-8 text (save it as UTF-8)",
        f"error: {tmp_path}/empty: the directory holds no manifest (files there must end in .json, .yaml, .yml)",
        "1 object of Istio's kinds, 3 errors, 0 warnings, 0 of other kinds not checked",
    ]


def test_directories_are_read_with_what_is_below_and_no_file_twice(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    written(tmp_path / "below", deep=GOOD)
    written(tmp_path, other="images: {a: b}\n")
    (tmp_path / "notes.txt").write_text("not a manifest")
    os.symlink(tmp_path / "below" / "deep.yaml", tmp_path / "link.yaml")
    result = run("-f", str(tmp_path), "-f", str(tmp_path))
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        f"warning: {tmp_path}/other.yaml:1: not a Kubernetes object: ignored",
        "1 object of Istio's kinds, 0 errors, 1 warning, 0 of other kinds not checked",
    ]
    assert run("-f", str(tmp_path / "other.yaml")).exit_code == 1


def test_references_are_followed_across_files(tmp_path: Path) -> None:
    rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r}\nspec:\n  host: reviews\n"
    route = GOOD.replace("{host: reviews}", "{host: reviews, subset: v9}")
    result = run("-f", str(written(tmp_path, a=route, b=rule + "  subsets: [{name: v1}]\n")))
    assert result.exit_code == 0
    assert "DestinationRule default/r has no subset 'v9': requests routed there fail (use one of v1" in result.output


def test_the_samples_are_in_order() -> None:
    result = run("-f", str(SAMPLES), "-o", "json")
    report = json.loads(result.output)
    assert report["errors"] == []
    assert report["checked"] > 0
    assert {warning["message"] for warning in report["warnings"]} <= {"not a Kubernetes object: ignored"}


def test_no_file_named_is_a_usage_error() -> None:
    result = run()
    assert result.exit_code == 2
    assert "--filename" in result.output
