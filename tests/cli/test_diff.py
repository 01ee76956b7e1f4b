"""`heddle diff`: the command's words in, text, JSON and kubectl diff's exit codes out; and what applying means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.commands.diff import command
from cli.diffing.overlay import NEWEST, applied
from mesh.manifest import documents
from mesh.objects import Key

BOOKINFO = Path(__file__).resolve().parents[2] / "samples" / "bookinfo" / "manifests"
SLICE = {"kubernetes.io/service-name": "web"}


def run(*words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(command, ["--base", str(BOOKINFO), *words], input=stdin, catch_exceptions=False)


def weights(v1: int, v3: int) -> str:
    """The sample's routes, with these shares for everybody but jason."""
    text = (BOOKINFO / "routing.yaml").read_text()
    route = "            subset: v1\n          weight: 100\n"
    assert route in text
    shares = (
        route.replace("100", str(v1))
        + "        - destination: {host: reviews, subset: v3}\n"
        + f"          weight: {v3}\n"
    )
    return text.replace(route, shares)


def test_nothing_different_ends_with_0() -> None:
    done = run("-f", str(BOOKINFO))
    assert (done.exit_code, done.stdout) == (0, "no proxy of 7 would be configured otherwise\n")


def test_differences_end_with_1_and_name_proxies_and_fields(tmp_path: Path) -> None:
    done = run("-f", "-", stdin=weights(90, 10))
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("6 proxies (bookinfo/details-v1-0, ")
    assert lines[1:3] == [
        "  route reviews.bookinfo.svc:9080 weight v1 100 -> 90  "
        "(VirtualService bookinfo/reviews spec.http[1].route[0].weight)",
        "  route reviews.bookinfo.svc:9080 weight v3 0 -> 10  "
        "(VirtualService bookinfo/reviews spec.http[1].route[1].weight)",
    ]
    assert lines[-1] == "6 of 7 proxies would be configured otherwise"


def test_json_holds_the_same() -> None:
    told = json.loads(run("-f", "-", "-o", "json", stdin=weights(90, 10)).stdout)
    assert (told["differs"], told["proxies"]) == (True, 7)
    (difference,) = told["differences"]
    assert len(difference["proxies"]) == 6
    assert difference["changes"][0]["origins"][0]["field"] == "spec.http[1].route[0].weight"


def test_deleting_is_compared_too() -> None:
    done = run("-f", str(BOOKINFO / "security.yaml"), "--delete")
    assert done.exit_code == 1
    assert "inbound port 9080 peer tls STRICT -> PERMISSIVE  (PeerAuthentication bookinfo/default)" in done.stdout


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("kind: [", ("-:2: this is not YAML",)),
        (weights(-1, 0), ("-:36: VirtualService bookinfo/reviews: spec.http[1].route[0].weight",)),
    ],
)
def test_manifests_with_errors_end_with_2(text: str, parts: tuple[str, ...]) -> None:
    done = run("-f", "-", stdin=text)
    assert done.exit_code == 2
    assert all(part in done.stderr for part in parts), done.stderr


# ---- onto a mesh that runs

MESH: dict[str, list[dict[str, Any]]] = {
    "Pod": [
        {
            "metadata": {"namespace": "default", "name": "web-0", "uid": "1", "labels": {"app": "web"}},
            "spec": {"containers": []},
            "status": {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
        }
    ],
    "Service": [
        {
            "kind": "Service",
            "metadata": {"namespace": "default", "name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.7", "ports": [{"port": 80}]},
        }
    ],
    "EndpointSlice": [{"metadata": {"namespace": "default", "name": "web-a", "labels": SLICE}}],
}


def onto(text: str, *, delete: bool = False) -> tuple[dict[str, dict[Key, dict[str, Any]]], tuple[str, ...]]:
    after, notices = applied(MESH, documents(text, "f.yaml"), "default", delete=delete)
    named = {
        kind: {Key(raw["metadata"]["namespace"], raw["metadata"]["name"]): raw for raw in found}
        for kind, found in after.items()
    }
    return named, notices


def service(name: str, port: int, more: str = "") -> str:
    spec = f"{{selector: {{app: web}}, ports: [{{port: {port}}}]}}"
    return f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {spec}\n{more}"


def test_what_is_written_again_keeps_what_the_server_gave_it() -> None:
    after, _ = onto(service("web", 80, "status: {}\n"))
    written = after["Service"][Key("default", "web")]
    assert written["spec"]["clusterIP"] == "10.96.0.7"
    assert written["metadata"]["creationTimestamp"] == "2026-01-01T00:00:00Z"


def test_a_service_with_another_port_has_other_endpoints() -> None:
    after, _ = onto(service("web", 81))
    (piece,) = after["EndpointSlice"].values()
    assert piece["metadata"]["name"] != "web-a"
    assert piece["ports"][0]["port"] == 81
    assert piece["endpoints"][0]["addresses"] == ["10.0.0.1"]


def test_a_new_service_has_an_address_and_endpoints_and_is_the_newest() -> None:
    after, _ = onto(service("other", 80))
    written = after["Service"][Key("default", "other")]
    assert written["spec"]["clusterIP"] not in ("", "10.96.0.7")
    assert written["metadata"]["creationTimestamp"] == NEWEST
    assert len(after["EndpointSlice"]) == 2


def test_a_deleted_service_is_gone() -> None:
    after, _ = onto(service("web", 80), delete=True)
    assert not after["Service"]


def test_workloads_are_not_rolled_out() -> None:
    text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {template: {spec: {}}}\n"
    after, notices = onto(text)
    assert after["Pod"].keys() == {Key("default", "web-0")}
    assert notices == (
        "Deployment default/web: its pods are compared as they run now, for they are not rolled out here",
    )
