"""`heddle analyze`: files in; text, JSON, SARIF and exit codes out; what is suppressed and what counts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from cli.analysing.found import found
from cli.commands.analyze import command
from cli.commands.diff import command as diff
from cli.commands.explain import command as explain
from mesh.manifest import documents

WRONG = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: wrong
spec:
  hosts: [web]
  http:
    - route:
        - destination:
            host: nobody
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: infra}
spec: {selector: {app: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {selector: {}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: a, image: a}]}}}
"""
NO_HOST = "f.yaml:10: error HDL0101: VirtualService default/wrong: spec.http[0].route[0].destination.host: "
NO_POD = "f.yaml:20: warning HDL0104: Gateway infra/edge: spec.selector: "


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("f.yaml").write_text(WRONG)
    return "f.yaml"


def run(*words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(command, words, input=stdin, catch_exceptions=False)


def codes(*words: str) -> list[str]:
    return [finding["code"] for finding in json.loads(run(*words, "-o", "json").stdout)["findings"]]


def test_each_finding_is_a_line_with_its_place_and_the_worst_comes_first(file: str) -> None:
    done = run("-f", file)
    assert done.exit_code == 1
    first, second, summary = done.stdout.splitlines()
    assert first.startswith(NO_HOST)
    assert second.startswith(NO_POD)
    assert summary == "4 objects looked at: 1 error, 1 warning, 0 info"


def test_json_has_code_object_field_reason_and_way_out(file: str) -> None:
    told = json.loads(run("-f", file, "-o", "json").stdout)["findings"][0]
    assert (told["code"], told["name"], told["istio"]) == ("HDL0101", "no-such-host", ["IST0101"])
    assert (told["file"], told["line"], told["object"]) == ("f.yaml", 10, "VirtualService default/wrong")
    assert told["message"]
    assert told["hint"]


def test_sarif_is_what_code_review_reads(file: str) -> None:
    """https://docs.oasis-open.org/sarif/sarif/v2.1.0/: 3.27 result, 3.28 location, 3.49 reportingDescriptor."""
    told: Any = json.loads(run("-f", file, "-o", "sarif").stdout)
    assert told["version"] == "2.1.0"
    (sarif_run,) = told["runs"]
    rules, results = sarif_run["tool"]["driver"]["rules"], sarif_run["results"]
    assert [rules[result["ruleIndex"]]["id"] for result in results] == [result["ruleId"] for result in results]
    assert [result["level"] for result in results] == ["error", "warning"]
    place = results[0]["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "f.yaml"}, "region": {"startLine": 10}}


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (("-S", "HDL0101"), ["HDL0104"]),
        (("-S", "IST0101"), []),
        (("-S", "HDL0104=Gateway infra/edge"), ["HDL0101"]),
        (("-S", "HDL0104=Gateway infra/other"), ["HDL0101", "HDL0104"]),
        (("-S", "HDL0104=Gateway infra/*"), ["HDL0101"]),
        (("-S", "gateway-selects-no-pod=* infra/e*"), ["HDL0101"]),
        (("-S", "IST0101=Gateway edge.infra"), ["HDL0101"]),
        (("-S", "IST0101=Gateway *.infra"), ["HDL0101"]),
        (("-S", "IST0101=Gateway infra.edge"), ["HDL0101", "HDL0104"]),
        (("-S", "IST0143"), ["HDL0101", "HDL0104"]),
        (("-n", "infra"), ["HDL0104"]),
    ],
    ids=str,
)
def test_what_is_reported_can_be_narrowed(file: str, words: tuple[str, ...], left: list[str]) -> None:
    assert codes("-f", file, *words) == left


def test_an_annotation_suppresses_on_the_object_itself(file: str) -> None:
    text = WRONG.replace("name: wrong", "name: wrong\n  annotations: {galley.istio.io/analyze-suppress: IST0101}")
    Path(file).write_text(text)
    assert codes("-f", file) == ["HDL0104"]


@pytest.mark.parametrize(("fail_on", "code"), [("error", 0), ("warning", 1), ("info", 1)])
def test_the_exit_code_follows_what_one_asks_for(file: str, fail_on: str, code: int) -> None:
    assert run("-f", file, "-S", "HDL0101", "--fail-on", fail_on).exit_code == code


def test_objects_that_are_wrong_are_findings_and_the_others_are_looked_at() -> None:
    text = WRONG.replace("namespace: infra", "namespace: 7") + "---\nkind: [\n"
    told = json.loads(run("-f", "-", "-o", "json", stdin=text.replace('hosts: ["*"]', "hosts: 9")).stdout)["findings"]
    assert {(each["code"], each["line"]) for each in told} >= {("HDL0101", 10), ("HDL0001", 19)}
    assert [each["code"] for each in told].count("HDL0001") == 2
    invalid = json.loads(run("-f", "-", "-o", "json", stdin=WRONG.replace('"*"', "7")).stdout)["findings"]
    assert [(each["code"], each["line"]) for each in invalid] == [("HDL0101", 10), ("HDL0002", 20)]


def test_what_is_found_about_pods_is_told_of_their_workload() -> None:
    annotations = "annotations: {sidecar.istio.io/proxyCPUs: '1'}, "
    text = WRONG.replace("template: {metadata: {", "replicas: 3, template: {metadata: {" + annotations)
    found = [line for line in run("-f", "-", stdin=text).stdout.splitlines() if "HDL0504" in line]
    assert len(found) == 1
    assert found[0].startswith("-:25: warning HDL0504: Deployment default/web: spec.template.metadata.annotations[")


def test_what_proxies_refuse_is_told_from_the_objects_status() -> None:
    """Of a cluster's object, whose status discovery writes; not of what is applied anew, or was said of it before."""
    (document,) = documents(NOT_TAKEN, "f.yaml")
    told = found({"Gateway": [document.raw]}, complete=True, now=datetime.now(UTC))
    (finding,) = [each.finding for each in told if each.finding.code.number == "HDL0004"]
    assert str(finding.about) == "Gateway infra/edge"
    assert finding.problem.message == "Reconciled is False: 1 of 2 proxies refuse it"
    document.raw["metadata"]["generation"] = 3
    told = found({"Gateway": [document.raw]}, complete=True, now=datetime.now(UTC))
    assert "HDL0004" not in {each.finding.code.number for each in told}


NOT_TAKEN = """apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: infra, generation: 2}
spec: {selector: {app: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
status:
  conditions:
  - {type: Accepted, status: "False", reason: UnresolvedReferences, message: said by other codes, observedGeneration: 2}
  - {type: Reconciled, status: "False", reason: Refused, message: 1 of 2 proxies refuse it, observedGeneration: 2}
  - {type: Other, status: "True", observedGeneration: 2}
"""


NO_OBJECTS = """apiVersion: networking.istio.io/v1
kind: VirtualServce
metadata: {name: a}
---
apiVersion: example.com/v1
kind: Widget
metadata: {name: of-somebody}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: many
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: a, image: a}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  template:
    metadata:
      annotations:
        sidecar.istio.io/proxyCPU: lots
    spec: {containers: [{name: a, image: a}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: eighty}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: [web.example], gateways: [nowhere], http: [{route: [{destination: {host: web.example}}]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec: {selector: {app: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
"""


def test_what_no_api_server_would_take_is_told_by_line_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(NO_OBJECTS)
    told = json.loads(run("-f", str(file), "-o", "json").stdout)["findings"]
    found = {(each["line"], each["code"], each["object"], each.get("field", "")) for each in told}
    assert found >= {
        (2, "HDL0002", "VirtualServce default/a", "kind"),
        (13, "HDL0002", "Deployment default/web", "spec.replicas"),
        (24, "HDL0505", "StatefulSet default/db", 'spec.template.metadata.annotations["sidecar.istio.io/proxyCPU"]'),
        (30, "HDL0002", "Service default/web", "spec.ports[0].port"),
        (35, "HDL0103", "VirtualService default/web", "spec.gateways[0]"),
    }
    assert not any("Widget" in each["object"] for each in told)


@pytest.mark.parametrize("command_of", [explain, diff])
def test_the_other_commands_name_file_and_line_too(command_of: click.Command, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(NO_OBJECTS.replace("VirtualServce", "VirtualService"))
    words = ["a", "b"] if command_of is explain else ["--base", str(tmp_path)]
    done = CliRunner().invoke(command_of, ["-f", str(tmp_path), *words])
    said = done.stderr + str(done.exception)
    assert "f.yaml:13: Deployment default/web: spec.replicas: a whole number is expected" in said
    (tmp_path / "f.yaml").write_text(NO_OBJECTS.split("---\n")[3])
    done = CliRunner().invoke(command_of, ["-f", str(tmp_path), *words])
    said = done.stderr + str(done.exception)
    assert 'f.yaml:8: StatefulSet default/db: spec.template.metadata.annotations["sidecar.istio.io/proxyCPU"]' in said


def test_what_is_not_acted_upon_is_said() -> None:
    text = (
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s}\nspec: {egress: [{hosts: ['./*']}]}\n"
    )
    done = run("-f", "-", stdin=text)
    assert done.stdout.startswith("-:2: warning HDL0003: Sidecar default/s: kind: ")


FIXABLE = """# Kept, as every comment.
apiVersion: v1
kind: Namespace
metadata:
  name: shop
  labels:
    istio-injection: enabled
    istio.io/rev: canary  # goes with its line
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
    - match: [{uri: {prefix: /a}}]
      route:
        - destination: {host: web}
    - route:
        - destination: {host: web}
    # of the rule below
    - match: [{uri: {prefix: /late}}]
      route:
        - destination: {host: web}

---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {}
  template:
    metadata:
      labels: {app: web}
      annotations:
        sidecar.istio.io/proxyCPUs: 100m
    spec: {containers: [{name: a, image: a}]}
"""


def test_what_is_mechanical_is_corrected_and_nothing_else(file: str) -> None:
    Path(file).write_text(FIXABLE)
    assert codes("-f", file) == ["HDL0503", "HDL0202", "HDL0504"]
    done = run("-f", file, "--fix")
    assert done.exit_code == 0
    assert done.stdout == "4 objects looked at: 0 errors, 0 warnings, 0 info\n"
    assert done.stderr.count("corrected: f.yaml:") == 3
    gone = ("    istio.io/rev: canary  # goes with its line\n", LATE)
    expected = FIXABLE.replace("proxyCPUs", "proxyCPU")
    for lines in gone:
        assert lines in expected
        expected = expected.replace(lines, "")
    assert Path(file).read_text() == expected


LATE = "    - match: [{uri: {prefix: /late}}]\n      route:\n        - destination: {host: web}\n"


def test_what_lines_do_not_tell_is_left_to_its_author(file: str) -> None:
    one_line = (
        "{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {istio-injection: enabled, istio.io/rev: b}}}\n"
    )
    Path(file).write_text(one_line)
    done = run("-f", file, "--fix")
    assert "HDL0503" in done.stdout
    assert Path(file).read_text() == one_line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("-f", "-", "--fix"), "--fix: only files can be corrected"),
        (("-f", "none.yaml"), "none.yaml: it cannot be read"),
        (("-f", "-", "-S", "=x"), "--suppress: '=x' suppresses nothing"),
        (("-f", "-", "-S", "HDL0104=edge"), "--suppress: 'HDL0104=edge' suppresses nothing"),
        (("-f", "-", "-S", "HDL9999"), "--suppress: no code is called 'HDL9999'"),
        (("--on-mesh",), "--on-mesh: there are no manifests to apply"),
    ],
)
def test_what_cannot_be_found_out_ends_with_2(words: tuple[str, ...], says: str) -> None:
    done = run(*words)
    assert done.exit_code == 2
    assert says in done.stderr
