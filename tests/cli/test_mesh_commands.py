"""Commands that ask a running mesh, over the engine's real sockets with made-up pods behind them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.load import Load
from local import exec_socket, up
from mesh.errors import NotFound
from tests.cli.run import heddle
from tests.local.command_server import CommandServer
from tests.support.echo import EchoApp


def type_status(current: str = "a", applied: str = "a", rejected: Sequence[dict[str, str]] = ()) -> dict[str, Any]:
    return {
        "current": current,
        "applied": applied,
        "upToDate": current == applied and not rejected,
        "since": "2026-01-01T00:00:00Z",
        "rejected": list(rejected),
    }


def proxy(pod: str, *, connected: bool = True, failed: bool = False, **types: Any) -> dict[str, Any]:
    return {
        "namespace": "n",
        "pod": pod,
        "connected": connected,
        "failed": failed,
        "lastSeen": "2026-01-01T00:00:00Z" if not connected else "",
        "types": {"clusters": type_status(), **types},
    }


def answer_status(mesh: CommandServer, *proxies: dict[str, Any], ready: bool = True, problems: Any = ()) -> None:
    body = {"ready": ready, "observed": 0, "proxies": list(proxies), "problems": list(problems)}
    mesh.operator.answers["discovery/v1/status"] = (200, body)


def test_status_when_all_is_well(mesh: CommandServer) -> None:
    answer_status(mesh, proxy("a"), proxy("b"))
    for name in ("ca", "webhook", "discovery"):
        mesh.components.start(name)
    done = heddle("status")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].split()[:3] == ["PROXY", "CLUSTERS", "ENDPOINTS"]
    assert lines[1].split()[:3] == ["n/a", "current", "-"]
    assert lines[-1] == "ready: every proxy has applied what is current"


def test_status_in_json_and_yaml_has_ready_on_top(mesh: CommandServer) -> None:
    answer_status(mesh, proxy("a"), ready=False)
    mesh.problems.append("f.yaml:3: Service n/web: spec.ports: the service has no port")
    in_json, in_yaml = heddle("status", "-o", "json"), heddle("status", "-o", "yaml")
    assert (in_json.code, in_yaml.code) == (3, 3)
    assert json.loads(in_json.out) == yaml.safe_load(in_yaml.out)
    assert json.loads(in_json.out)["ready"] is False
    assert "the service has no port" in json.loads(in_json.out)["problems"][0]["message"]


def test_status_tells_rejections_problems_and_lost_proxies_in_words(mesh: CommandServer) -> None:
    rejected = {"name": "0.0.0.0_80", "message": "Proto constraint validation failed", "since": ""}
    problem = {"object": "VirtualService n/v", "field": "spec.hosts", "message": "no such host", "hint": "add it"}
    listeners = type_status(rejected=[rejected])
    odd = proxy("a", listeners=listeners, routes=type_status(applied=""))
    answer_status(mesh, odd, proxy("b", connected=False, failed=True), ready=False, problems=[problem])
    done = heddle("status")
    assert done.code == 3
    assert "REJECTED by n/a: listeners 0.0.0.0_80: Proto constraint validation failed" in done.out
    assert "PROBLEM VirtualService n/v: spec.hosts: no such host (add it)" in done.out
    assert "NOT CONNECTED n/b: last seen " in done.out
    assert "FAILED n/b: what it should have could not be computed" in done.out
    assert "CONTROL PLANE: ca is stopped" in done.out
    row = done.out.splitlines()[1].split()
    assert row[:5] == ["n/a", "current", "-", "REJECTED", "pending"]


def test_status_without_discovery_is_not_ready_and_says_why(mesh: CommandServer) -> None:
    done = heddle("status")
    assert done.code == 3
    assert "PROBLEM discovery: the discovery does not answer: refused" in done.out


def test_status_waits_for_the_version_of_the_manifests(mesh: CommandServer) -> None:
    mesh.store.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "n", "name": "a"}})
    answer_status(mesh)
    assert heddle("status", "--wait", "5").code == 0
    assert mesh.operator.asked == ["discovery/v1/status?observed=1&wait=5"]


def test_answers_that_are_no_json_are_said_to_be(mesh: CommandServer) -> None:
    mesh.operator.answers["ca/v1/certificates"] = (200, b"<html>")
    done = heddle("certificates")
    assert done.code == 1
    assert done.err.startswith("heddle: the mesh at ")
    assert "answered 200 and no JSON: b'<html>'" in done.err
    mesh.operator.answers["ca/v1/certificates"] = (403, ["odd"])
    assert heddle("certificates").err == "heddle: the mesh answered 403\n"
    said = {"error": {"code": "forbidden", "message": "only operators may ask", "hint": "be one"}}
    mesh.operator.answers["ca/v1/certificates"] = (403, said)
    assert heddle("certificates").err == "heddle: only operators may ask (be one)\n"


def certificate(account: str, serial: str, issued: str, expiry: int, renewal: int = 0, pod: str = "") -> dict[str, Any]:
    return {
        "identity": f"spiffe://cluster.local/ns/n/sa/{account}",
        "serial": serial,
        "issuer": "ca-1",
        "issuedAt": issued,
        "secondsToExpiry": expiry,
        "secondsToRenewal": renewal,
        "pod": {"namespace": "n" if pod else "", "name": pod, "uid": ""},
    }


def test_certificates_show_the_newest_of_each_holder(mesh: CommandServer) -> None:
    found = [
        certificate("web", "02", "2026-01-02", 86400, 43200, "web-1"),
        certificate("web", "01", "2026-01-01", 100, 0, "web-1"),
        certificate("web", "03", "2026-01-02", 500, 0, "web-2"),
        certificate("old", "04", "2026-01-02", 0),
    ]
    mesh.operator.answers["ca/v1/certificates"] = (200, {"certificates": found})
    lines = heddle("certificates").out.splitlines()
    assert [line.split()[2] for line in lines[1:]] == ["02", "03"]
    assert lines[1].split()[-2:] == ["1d", "12h"]
    assert lines[2].split()[-2:] == ["8m20s", "due"]
    assert len(json.loads(heddle("certificates", "--all", "-o", "json").out)["certificates"]) == 4
    assert heddle("certificates", "-n", "other").out == "(none)\n"


def test_local_status(mesh: CommandServer) -> None:
    mesh.add_pod("n", "web-1")
    mesh.problems.append("Pod n/x: the injection webhook does not answer")
    done = heddle("local", "status")
    assert done.out.splitlines()[1].split()[:6] == ["n", "web-1", "2/2", "Running", "0", "10.244.1.1"]
    assert "ingress        http://127.0.0.1:8080 -> port 80\n" in done.out
    assert "ingress        https://127.0.0.1:8443 -> port 443\n" in done.out
    assert done.out.endswith("PROBLEM Pod n/x: the injection webhook does not answer\n")


def test_pods_are_found_by_the_beginning_of_their_name(mesh: CommandServer) -> None:
    for namespace, name in (("a", "web-1"), ("a", "web-12"), ("b", "db-1")):
        mesh.add_pod(namespace, name)
        (mesh.state / "logs" / f"{namespace}-{name}.log").write_text(f"log of {name}\n")
    assert heddle("local", "logs", "db").out == "log of db-1\n"
    assert heddle("local", "logs", "web-1").out == "log of web-1\n"
    assert heddle("local", "logs", "a/web-12").out == "log of web-12\n"
    assert heddle("local", "logs", "web").err == (
        "heddle: web could be a/web-1, a/web-12 (write more of the name, or -n NAMESPACE)\n"
    )
    assert heddle("local", "logs", "db", "-n", "a").err == (
        "heddle: there is no pod db (`heddle local status` lists them)\n"
    )
    assert heddle("local", "logs", "db", "-c", "no such").err == "heddle: pod db-1 has no container 'no such'\n"


def test_logs_of_the_control_plane_and_of_what_was_silent(mesh: CommandServer) -> None:
    (mesh.state / "logs" / "ca.log").write_bytes(b"issued \xff\n")
    mesh.add_pod("n", "p")
    assert heddle("local", "logs", "p").err == "heddle: p has written nothing yet\n"
    assert heddle("local", "logs", "ca").out_bytes == b"issued \xff\n"


def test_control_plane_parts_are_stopped_and_started(mesh: CommandServer) -> None:
    assert heddle("local", "control-plane", "start", "ca", "discovery").code == 0
    assert mesh.components.states() == {"ca": "running", "webhook": "stopped", "discovery": "running"}
    assert heddle("local", "control-plane", "kill", "ca").code == 0
    assert mesh.components.states()["ca"] == "stopped"


def test_down_returns_when_the_mesh_has_ended(mesh: CommandServer, tmp_path: Path) -> None:
    held, ended = threading.Event(), threading.Event()

    def hold() -> None:
        with (mesh.state / up.LOCK).open("wb") as lock:
            up.fcntl.flock(lock, up.fcntl.LOCK_EX)
            held.set()
            ended.wait(60)

    threading.Thread(target=hold, daemon=True).start()
    assert held.wait(60)
    mesh.on_down = ended.set
    assert heddle("local", "down").code == 0
    assert mesh.downs == 1


class Finished:
    def __init__(self, code: int) -> None:
        self.ended: Future[int] = Future()
        self.ended.set_result(code)

    def kill(self, number: int) -> None:
        pass


def answer_exec(mesh: CommandServer, code: int, out: bytes = b"", err: bytes = b"") -> list[tuple[str, ...]]:
    """Commands in pods print `out` and `err` and end with `code`; what they were is added to the list."""
    asked: list[tuple[str, ...]] = []

    def run(
        namespace: str, pod: str, container: str, argv: Sequence[str], stdio: tuple[int, int, int]
    ) -> exec_socket.Execution:
        asked.append((namespace, pod, container, *argv))
        if container == "none":
            raise NotFound("no such container")
        os.write(stdio[1], out)
        os.write(stdio[2], err)
        return Finished(code)

    exec_socket.serve_in_thread(mesh.state / "exec.sock", run)
    return asked


def test_exec_passes_words_and_exit_code(mesh: CommandServer) -> None:
    mesh.add_pod("n", "p")
    asked = answer_exec(mesh, 7)
    assert heddle("local", "exec", "p", "-c", "app", "--", "ls", "-n", "--all").code == 7
    assert asked == [("n", "p", "app", "ls", "-n", "--all")]
    assert heddle("local", "exec", "p", "-c", "none", "--", "ls").err == "heddle: no such container\n"


CLUSTERS = {"configs": [{"cluster": {"name": "b", "type": "EDS", "transport_socket": {}}}, {"cluster": {"name": "a"}}]}
LISTENER = {
    "name": "0.0.0.0_80",
    "address": {"socket_address": {"address": "0.0.0.0", "port_value": 80}},
    "bind_to_port": False,
    "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager"}]}],
}
ROUTE = {
    "name": "80",
    "virtual_hosts": [
        {
            "name": "web",
            "routes": [
                {"match": {"prefix": "/", "headers": [{}]}, "route": {"cluster": "a"}},
                {
                    "match": {"safe_regex": {"regex": ".*"}},
                    "route": {"weighted_clusters": {"clusters": [{"name": "a", "weight": 90}, {"name": "b"}]}},
                },
                {"match": {"path": "/x"}, "redirect": {}},
                {"match": {}, "direct_response": {"status": 404}},
            ],
        }
    ],
}
HOSTS = {
    "cluster_statuses": [
        {
            "name": "a",
            "host_statuses": [
                {
                    "address": {"socket_address": {"address": "10.0.0.1", "port_value": 80}},
                    "health_status": {"eds_health_status": "HEALTHY"},
                },
                {"address": {"pipe": {}}, "health_status": {"failed_outlier_check": True}},
            ],
        },
        {"name": "empty"},
    ]
}


@pytest.mark.parametrize(
    ("what", "dump", "rows"),
    [
        ("clusters", CLUSTERS, ["a STATIC ROUND_ROBIN no", "b EDS ROUND_ROBIN yes"]),
        (
            "listeners",
            {"configs": [{"active_state": {"listener": LISTENER}}, {"error_state": {}}]},
            ["0.0.0.0_80 0.0.0.0 80 no 1 http_connection_manager"],
        ),
        (
            "routes",
            {"configs": [{"route_config": ROUTE}]},
            [
                "80 web prefix / and 1 more a",
                "80 web regex .* a (90), b (0)",
                "80 web path /x redirect",
                "80 web answers 404",
            ],
        ),
        ("endpoints", HOSTS, ["a 10.0.0.1:80 HEALTHY", "a - failed_outlier_check"]),
        ("routes", {}, []),
    ],
)
def test_config_of_a_pod(mesh: CommandServer, what: str, dump: object, rows: list[str]) -> None:
    mesh.add_pod("n", "p")
    asked = answer_exec(mesh, 0, json.dumps(dump).encode())
    done = heddle("config", "p", what)
    assert done.code == 0, done.err
    assert [" ".join(line.split()) for line in done.out.splitlines()[1:]] == rows
    assert asked[0][:3] == ("n", "p", "istio-proxy")
    assert isinstance(json.loads(heddle("config", "p", what, "-o", "json").out), list)


def test_config_when_envoy_does_not_answer(mesh: CommandServer) -> None:
    mesh.add_pod("n", "p")
    answer_exec(mesh, 1, err=b"connection refused\n")
    assert heddle("config", "p", "routes").err == "heddle: heddle-agent in n/p failed: connection refused\n"
    answer_exec(mesh, 0, b"<html>")
    assert heddle("config", "p", "routes").err == "heddle: the Envoy of p did not answer: <html>\n"


def test_load_counts_answers_and_failures() -> None:
    with EchoApp("web") as app:
        counts = Load("127.0.0.1", app.port, "/", lambda body: str(body["app"]), requests=200).start().wait()
        assert counts.answers == {"web": 200}
        assert counts.total == 200
        assert 0 < counts.quantile(0.5) <= counts.quantile(0.99)
        odd = Load("127.0.0.1", app.port, "/", lambda body: str(body["none"]), requests=10).start().wait()
        assert (odd.answers.total(), odd.failures.total()) == (0, 10)
    gone = Load("127.0.0.1", app.port, "/", str, connections=2, requests=4).start().wait()
    assert gone.failures.total() == 4
    assert gone.quantile(0.5) == 0.0
