"""One pod in a line, and how long a change took."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest

from local.changes import KEPT, Changes
from local.overview import pod_line
from mesh.errors import Unavailable

Raw = dict[str, Any]
READY = [{"type": "Ready", "status": "True"}]


def pod(**status: object) -> Raw:
    spec = {
        "initContainers": [{"name": "istio-init"}, {"name": "istio-proxy", "restartPolicy": "Always"}],
        "containers": [{"name": "app"}],
    }
    meta = {"namespace": "n", "name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": meta, "spec": spec, "status": {"phase": "Running", **status}}


def state(name: str, *, ready: bool = True, restarts: int = 0, waiting: Raw | None = None) -> Raw:
    return {
        "name": name,
        "ready": ready,
        "restartCount": restarts,
        "state": {"waiting": waiting} if waiting else {"running": {}},
    }


def test_a_ready_pod_counts_its_sidecar_and_not_its_init_container() -> None:
    inits = [state("istio-init", ready=True), state("istio-proxy", restarts=1)]
    line = pod_line(pod(initContainerStatuses=inits, containerStatuses=[state("app", restarts=2)], conditions=READY))
    assert line == {
        "namespace": "n",
        "name": "p",
        "ready": "2/2",
        "status": "Running",
        "restarts": 3,
        "ip": "",
        "created": "2026-01-01T00:00:00Z",
        "message": "",
        "settled": True,
    }


def test_why_it_cannot_go_on() -> None:
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 10s"}
    line = pod_line(pod(containerStatuses=[state("app", ready=False, waiting=waiting)]))
    assert (line["status"], line["message"]) == ("CrashLoopBackOff", "container app: back-off 10s")
    assert not line["settled"]


@pytest.mark.parametrize("reason", ["PodInitializing", "ContainerCreating"])
def test_what_only_takes_its_time_is_no_trouble(reason: str) -> None:
    line = pod_line(pod(phase="Pending", containerStatuses=[state("app", ready=False, waiting={"reason": reason})]))
    assert (line["status"], line["message"]) == ("Pending", "")


def test_a_pod_that_could_not_run_one_that_ended_and_one_that_leaves() -> None:
    failed = pod_line(pod(phase="Failed", reason="CannotRun", message="no image"))
    assert (failed["status"], failed["message"], failed["settled"]) == ("CannotRun", "no image", False)
    assert pod_line(pod(phase="Succeeded"))["settled"] is True
    leaving = pod(conditions=READY)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z"
    assert pod_line(leaving)["status"] == "Terminating"


def test_a_pod_without_a_status_is_pending() -> None:
    raw = pod()
    del raw["status"]
    assert pod_line(raw)["status"] == "Pending"


class Operator:
    def __init__(self, code: int = 200, body: bytes = b"", error: Exception | None = None) -> None:
        self.asked: list[str] = []
        self._answer, self._error = (code, body), error

    def get(self, service: str, path: str) -> tuple[int, bytes]:
        self.asked.append(f"{service}{path}")
        if self._error:
            raise self._error
        return self._answer


def follow(operator: Operator, files: list[Path]) -> tuple[Changes, str]:
    said: list[str] = []
    came = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        came.set()

    changes = Changes(operator, say)  # type: ignore[arg-type]
    changes.note({"VirtualService": 7, "Deployment": 9}, files)
    assert came.wait(60)
    return changes, said[0]


def test_an_applied_change_has_its_time_and_number_of_proxies(tmp_path: Path) -> None:
    file = tmp_path / "routing.yaml"
    file.write_text("")
    operator = Operator(body=orjson.dumps({"ready": True, "proxies": [1, 2, 3]}))
    changes, said = follow(operator, [file, tmp_path / "gone.yaml"])
    assert operator.asked == ["discovery/v1/status?observed=7&kind=VirtualService&wait=30"]
    assert said.startswith("change of routing.yaml, gone.yaml: applied by all 3 proxies, ")
    assert 0 <= changes.newest[-1]["seconds"] < 60
    assert changes.newest[-1]["proxies"] == 3


def test_a_change_with_problems_says_where_they_are_named(tmp_path: Path) -> None:
    operator = Operator(body=orjson.dumps({"ready": True, "proxies": [1], "problems": [{}, {}]}))
    _, said = follow(operator, [tmp_path / "a.yaml"])
    assert said.endswith("; problems in the mesh: 2, which `heddle status` names")


def test_a_change_without_a_file_is_a_deletion(tmp_path: Path) -> None:
    _, said = follow(Operator(body=b'{"ready": true, "proxies": []}'), [])
    assert said.startswith("change of what is written nowhere any more: applied by all 0 proxies")


def test_the_time_counts_from_the_write_not_from_a_copied_modification_time(tmp_path: Path) -> None:
    file = tmp_path / "routing.yaml"
    file.write_text("")
    os.utime(file, (1, 1))
    changes, _ = follow(Operator(body=b'{"ready": true, "proxies": []}'), [file])
    assert changes.newest[-1]["seconds"] < 60


def test_a_change_is_found_when_others_have_followed() -> None:
    changes = Changes(Operator(error=Unavailable("down")), lambda _: None)  # type: ignore[arg-type]
    for number in range(KEPT + 1):
        changes.note({}, [Path(f"{number}.yaml")])
    assert [(change["number"], change["files"]) for change in changes.newest] == [
        (number + 1, [f"{number}.yaml"]) for number in range(1, KEPT + 1)
    ]


@pytest.mark.parametrize(
    "operator",
    [
        Operator(body=b'{"ready": false, "proxies": []}'),
        Operator(code=503, body=b"<html>"),
        Operator(body=b"no json"),
        Operator(body=b"[]"),
    ],
)
def test_a_change_that_is_not_applied_says_where_to_look(operator: Operator, tmp_path: Path) -> None:
    changes, said = follow(operator, [tmp_path / "a.yaml"])
    assert said == "change of a.yaml: not applied by every proxy; `heddle status` says why"
    assert changes.newest[-1]["seconds"] is None


def test_without_discovery_the_change_says_so(tmp_path: Path) -> None:
    _, said = follow(Operator(error=Unavailable("the discovery does not answer")), [tmp_path / "a.yaml"])
    assert said == "change of a.yaml: the discovery does not answer"
