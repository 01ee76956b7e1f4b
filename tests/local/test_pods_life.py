"""Order of starting and stopping, restarts, probes, hooks, and what the status says meanwhile."""

from __future__ import annotations

import pytest

from tests.local.scene import SERVER, Scene, in_sandbox, is_ready, script, server, state_of

pytestmark = pytest.mark.root

FOR_EVER = "sleep 1000 & trap 'kill $!; exit 0' TERM; wait"
SHARED = {"volumes": [{"name": "shared", "emptyDir": {}}]}
MOUNT = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}


def note(word: str, then: str = "", name: str = "main", **more: object) -> dict[str, object]:
    """A container that writes a word to the common file and goes on with `then`."""
    return script(f"echo {word} >> /shared/order; {then}", name, **MOUNT, **more)


@in_sandbox
def test_init_containers_run_in_order_then_sidecars_then_the_rest(scene: Scene) -> None:
    slow = {"exec": {"command": ["test", "-e", "/shared/side-is-up"]}, "periodSeconds": 1}
    last = "trap 'echo side-down >> /shared/order; exit 0' TERM"
    side = note("side", f"{last}; sleep 0.3; touch /shared/side-is-up; while :; do sleep 0.02; done", "side",
                restartPolicy="Always", startupProbe=slow)  # fmt: skip
    scene.run(
        "a",
        note("main", "test -e /shared/side-is-up && echo side-was-up >> /shared/order; " + FOR_EVER),
        initContainers=[note("first", "sleep 0.1", "first"), side, note("second", name="second")],
        **SHARED,
    )
    scene.until_ready("a")
    _, order = scene.shell("a", "cat /shared/order")
    assert order.split()[:4] == ["first", "side", "second", "main"]
    assert "side-was-up" in order
    reasons = [state_of(status, "main")["state"].get("waiting", {}).get("reason") for status in scene.history["a"]]
    assert reasons[0] == "PodInitializing"


@in_sandbox
def test_a_job_completes_and_its_sidecars_are_stopped_last_started_first(scene: Scene) -> None:
    def side(name: str) -> dict[str, object]:
        stop = f"trap 'echo {name}-down >> /shared/order; cat /shared/order; exit 0' TERM"
        return note(name, f"{stop}; while :; do sleep 0.02; done", name, restartPolicy="Always")

    scene.run("job", note("work"), initContainers=[side("one"), side("two")], restartPolicy="Never", **SHARED)
    status = scene.until("job", lambda status: status["phase"] == "Succeeded")
    assert scene.log("job", "one").split() == ["one", "two", "work", "two-down", "one-down"]
    assert state_of(status, "main")["state"]["terminated"]["exitCode"] == 0
    assert not is_ready(status)


@in_sandbox
def test_a_job_that_fails_says_with_what(scene: Scene) -> None:
    scene.run("job", script("echo on the way; echo because > /dev/termination-log; exit 3"), restartPolicy="Never")
    ended = state_of(scene.until("job", lambda status: status["phase"] == "Failed"), "main")["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "because\n")
    scene.run(
        "silent", script("echo last words; kill -9 $$ ; exec sh -c 'kill -SEGV 1; exit 9'"), restartPolicy="Never"
    )
    ended = state_of(scene.until("silent", lambda status: status["phase"] == "Failed"), "main")["state"]["terminated"]
    assert "last words" in ended["message"]


@in_sandbox
def test_a_container_that_keeps_failing_backs_off_and_is_started_again(scene: Scene) -> None:
    scene.run("a", script("echo try; exit 1"))

    def backs_off(status: dict[str, object]) -> bool:
        return state_of(status, "main")["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"

    status = scene.until("a", backs_off)
    assert state_of(status, "main")["lastState"]["terminated"]["exitCode"] == 1
    assert state_of(status, "main")["state"]["waiting"]["message"].endswith("ended with code 1 and said last: try")
    assert status["phase"] == "Running"
    scene.until("a", lambda status: state_of(status, "main")["restartCount"] >= 2)
    assert scene.log("a", previous=True) == "try\n"


@in_sandbox
def test_a_program_that_does_not_exist_is_an_error_with_its_name(scene: Scene) -> None:
    scene.run("a", {"name": "main", "image": "sh", "command": ["no-such-program"]}, restartPolicy="Never")
    ended = state_of(scene.until("a", lambda status: status["phase"] == "Failed"), "main")["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert "no-such-program" in ended["message"]


@in_sandbox
def test_readiness_comes_and_goes_with_the_probe(scene: Scene) -> None:
    probe = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1, "failureThreshold": 1}
    scene.run("a", script(FOR_EVER, readinessProbe=probe))
    status = scene.until("a", lambda status: "running" in state_of(status, "main")["state"])
    assert not is_ready(status)
    scene.shell("a", "touch /tmp/ready")
    scene.until("a", is_ready)
    scene.shell("a", "rm /tmp/ready")
    status = scene.until("a", lambda status: not is_ready(status))
    assert state_of(status, "main")["restartCount"] == 0


@in_sandbox
def test_a_failing_liveness_probe_restarts_the_container(scene: Scene) -> None:
    alive = {"tcpSocket": {"port": "web"}, "periodSeconds": 1, "failureThreshold": 1, "initialDelaySeconds": 1}
    scene.run("a", script(FOR_EVER, livenessProbe=alive, ports=[{"name": "web", "containerPort": 9}]), server())
    status = scene.until("a", lambda status: state_of(status, "main")["restartCount"] >= 1)
    assert state_of(status, "main")["lastState"]["terminated"]["exitCode"] == 0  # it ended when asked to
    assert state_of(status, "server")["restartCount"] == 0


@in_sandbox
def test_a_startup_probe_holds_the_others_back_and_kills_what_never_starts(scene: Scene) -> None:
    never = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    scene.run("a", script(FOR_EVER, startupProbe=never, livenessProbe={"exec": {"command": ["true"]}}))
    status = scene.until("a", lambda status: state_of(status, "main")["restartCount"] >= 1)
    assert not any(is_ready(status) for status in scene.history["a"])
    assert not state_of(status, "main")["started"]


@in_sandbox
def test_hooks_run_and_a_deaf_program_is_killed_at_the_end_of_its_grace(scene: Scene) -> None:
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo hello > /proc/1/fd/1"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo goodbye > /proc/1/fd/1"]}},
    }
    deaf = "trap '' TERM; while :; do sleep 0.05; done"
    scene.run("a", script(deaf, lifecycle=hooks), terminationGracePeriodSeconds=3)
    scene.until_ready("a")
    path = scene.kubelet.log_path("shop", "a")
    scene.kubelet.stop("shop", "a").result(timeout=60)
    assert path.read_text() == "hello\ngoodbye\n"
    ended = state_of(scene.statuses["a"], "main")["state"]["terminated"]
    assert (ended["exitCode"], ended["signal"]) == (137, 9)


@in_sandbox
def test_sidecars_are_stopped_after_the_rest_when_the_pod_goes(scene: Scene) -> None:
    side = "trap 'echo side; exit 0' TERM; while :; do sleep 0.02; done"
    main = "trap 'sleep 0.2; touch /shared/main-is-down; exit 0' TERM; while :; do sleep 0.02; done"
    sees = "trap 'test -e /shared/main-is-down && echo main was down; exit 0' TERM; while :; do sleep 0.02; done"
    scene.run(
        "a",
        script(main, **MOUNT),
        initContainers=[
            script(sees, "watch", restartPolicy="Always", **MOUNT),
            script(side, "s", restartPolicy="Always"),
        ],
        **SHARED,
    )
    scene.until_ready("a")
    path = scene.kubelet.log_path("shop", "a", "watch")
    scene.kubelet.stop("shop", "a").result(timeout=60)
    assert path.read_text() == "main was down\n"


@in_sandbox
def test_a_job_past_its_deadline_fails(scene: Scene) -> None:
    scene.run("job", script(FOR_EVER), restartPolicy="Never", activeDeadlineSeconds=1)
    status = scene.until("job", lambda status: status["phase"] == "Failed")
    assert status["reason"] == "DeadlineExceeded"


@in_sandbox
def test_a_pod_can_be_run_again_under_its_name(scene: Scene) -> None:
    scene.run("a", {"name": "server", "image": "python", "args": [SERVER]})
    scene.until_ready("a")
    scene.kubelet.stop("shop", "a").result(timeout=60)
    assert scene.kubelet.pods() == []
    scene.run("a", server())
    scene.until_ready("a")
