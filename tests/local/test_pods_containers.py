"""Inside a container: who it is, what it may do, what it sees, and that nothing of the machine can be written."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from tests.local.scene import Scene, in_sandbox, script, state_of

pytestmark = pytest.mark.root

SLEEP = "trap 'exit 0' TERM; while :; do sleep 0.05; done"
FOR_EVER = "sleep 1000 & trap 'kill $!; exit 0' TERM; wait"


def fields(text: str) -> dict[str, list[str]]:
    """/proc/self/status as a table."""
    return {name: rest.split() for name, _, rest in (line.partition(":") for line in text.splitlines())}


@in_sandbox
def test_user_groups_capabilities_and_no_new_privs_are_real(scene: Scene) -> None:
    strict = {
        "runAsUser": 1337,
        "runAsGroup": 1338,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    add = {"runAsUser": 0, "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}}
    scene.run(
        "a",
        script(FOR_EVER, "strict", securityContext=strict),
        script(FOR_EVER, "net", securityContext=add),
        script(FOR_EVER, "usual"),
        securityContext={"supplementalGroups": [2000], "fsGroup": 3000},
    )
    scene.until_ready("a")
    own = fields(scene.shell("a", "cat /proc/1/status", "strict")[1])
    assert own["Uid"] == ["1337"] * 4
    assert own["Gid"] == ["1338"] * 4
    assert own["Groups"] == ["2000", "3000"]
    assert {own[name][0] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert own["NoNewPrivs"] == ["1"]
    net = fields(scene.shell("a", "cat /proc/1/status", "net")[1])
    assert int(net["CapEff"][0], 16) == int(net["CapBnd"][0], 16) == 1 << 12 | 1 << 13
    usual = fields(scene.shell("a", "cat /proc/1/status", "usual")[1])
    assert usual["CapEff"] == ["00000000a80425fb"]  # containerd's and Docker's default set
    assert usual["NoNewPrivs"] == ["0"]
    # And what follows from it: rules may be written by one, not by the other two.
    assert scene.shell("a", "iptables -t nat -S", "net")[0] == 0
    assert scene.shell("a", "iptables -t nat -S", "strict")[0] != 0
    assert scene.shell("a", "iptables -t nat -S", "usual")[0] != 0


@in_sandbox
def test_the_program_is_process_1_and_sees_only_its_own(scene: Scene) -> None:
    scene.run("a", script(FOR_EVER, "one"), script(FOR_EVER, "two"))
    scene.until_ready("a")
    _, output = scene.shell("a", "tr '\\0' ' ' < /proc/1/cmdline; echo; ls /proc | grep -c '^[0-9]'", "one")
    command, count = output.splitlines()
    assert command.startswith("sh -c sleep 1000")
    assert int(count) <= 5  # it, its sleep, and the shell that asks with ls and grep


@in_sandbox
def test_the_machine_is_visible_and_cannot_be_written(scene: Scene) -> None:
    mark = f"heddle-mark-{os.getpid()}-{id(scene)}"
    places = ["/etc", "/usr", "/usr/local", "/var", "/opt", "/tmp", "/root", "/home", "/run", str(scene.state)]
    writes = "; ".join(f"(touch {place}/{mark}) 2>/dev/null" for place in places)
    scene.run("a", script(f"{writes}; (echo 1 > /proc/sys/kernel/hostname) 2>/dev/null; {FOR_EVER}"))
    scene.until_ready("a")
    assert scene.shell("a", f"test -e /etc/{mark} && test -e /tmp/{mark}")[0] == 0  # it wrote, in its own layer
    assert [place for place in places if os.path.exists(f"{place}/{mark}")] == []
    assert scene.shell("a", "touch /sys/x || touch /proc/sys/kernel/x")[0] != 0
    assert scene.shell("a", f"ls -A {scene.state}/logs")[0] != 0  # the engine's own state is not shown


@in_sandbox
def test_python_runs_as_another_user_wherever_it_is_installed(scene: Scene) -> None:
    say = {"name": "main", "image": "python", "args": ["import sys, mesh.errors; print(sys.prefix)"]}
    user = {"runAsUser": 1337}
    scene.run("a", say | {"securityContext": user}, restartPolicy="Never")
    scene.until("a", lambda status: status["phase"] == "Succeeded")
    assert scene.log("a") == f"{sys.prefix}\n"


@in_sandbox
def test_a_read_only_root_leaves_volumes_and_shm_writable(scene: Scene) -> None:
    scene.run(
        "a",
        script(
            FOR_EVER,
            securityContext={"readOnlyRootFilesystem": True, "runAsUser": 1337},
            volumeMounts=[{"name": "data", "mountPath": "/var/lib/istio/data"}],
        ),
        volumes=[{"name": "data", "emptyDir": {}}],
    )
    scene.until_ready("a")
    assert scene.shell("a", "touch /var/lib/istio/data/x /dev/shm/x")[0] == 0
    for place in ("/x", "/tmp/x", "/run/x", "/etc/x", "/var/lib/x"):
        code, output = scene.shell("a", f"touch {place}")
        assert code != 0
        assert "Read-only" in output


@in_sandbox
def test_run_as_non_root_is_enforced(scene: Scene) -> None:
    scene.run("a", script(FOR_EVER, securityContext={"runAsNonRoot": True}))
    status = scene.until("a", lambda status: "waiting" in status["containerStatuses"][0]["state"]
                         and bool(status["containerStatuses"][0]["state"]["waiting"].get("message")))  # fmt: skip
    waiting = state_of(status, "main")["state"]["waiting"]
    assert waiting["reason"] == "CreateContainerConfigError"
    assert "runAsNonRoot" in waiting["message"]


@in_sandbox
def test_an_image_without_a_mapping_names_pod_image_and_lines_to_add(scene: Scene) -> None:
    scene.run("a", {"name": "main", "image": "example.com/shop/app:1"})
    status = scene.until("a", lambda status: state_of(status, "main")["state"].get("waiting", {}).get("message"))
    waiting = state_of(status, "main")["state"]["waiting"]
    assert waiting["reason"] == "ImageNotMapped"
    for part in ("shop/a", "main", "example.com/shop/app:1", f"{scene.state}/images.yaml", "example.com/shop/app:*"):
        assert part in waiting["message"]


@in_sandbox
def test_environment_from_fields_config_and_services(scene: Scene) -> None:
    scene.objects["ConfigMap", "shop", "settings"] = {"data": {"COLOUR": "green", "LEVEL": "3"}}
    scene.objects["Secret", "shop", "keys"] = {"data": {"key": "c2VjcmV0"}}
    scene.run("b", script(FOR_EVER))
    scene.until_ready("b")
    scene.serve({"shop-b": ("10.96.0.50", ["b"])})
    env = [
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "key"}}},
        {"name": "BOTH", "value": "$(POD)-$(KEY)-$$(KEY)-$(NONE)"},
    ]
    scene.run("a", script(FOR_EVER, env=env, envFrom=[{"configMapRef": {"name": "settings"}}]))
    status = scene.until_ready("a")
    _, output = scene.shell("a", "env")
    found = dict(line.partition("=")[::2] for line in output.splitlines())
    assert found["POD"] == found["HOSTNAME"] == found["APP"] == "a"
    assert found["IP"] == status["podIP"]
    assert found["BOTH"] == "a-secret-$(KEY)-$(NONE)"
    assert (found["COLOUR"], found["LEVEL"]) == ("green", "3")
    assert (found["SHOP_B_SERVICE_HOST"], found["SHOP_B_SERVICE_PORT"]) == ("10.96.0.50", "80")


@in_sandbox
def test_exec_gives_exit_codes_runs_as_the_user_and_can_be_killed(scene: Scene) -> None:
    scene.run("a", script(FOR_EVER, securityContext={"runAsUser": 1337}))
    scene.until_ready("a")
    assert scene.shell("a", "id -u; exit 7") == (7, "1337\n")
    with open("/dev/null", "r+b") as null:
        number = null.fileno()
        running = scene.kubelet.exec("shop", "a", ["sleep", "1000"], stdin=number, stdout=number, stderr=number)
        running.kill(signal.SIGKILL)
        assert running.ended.result(timeout=60) == 128 + signal.SIGKILL


@in_sandbox
def test_dev_stdout_can_be_opened_by_another_user(scene: Scene) -> None:
    scene.run(
        "a",
        script("echo one > /dev/stdout; echo two > /dev/stderr", securityContext={"runAsUser": 1337}),
        restartPolicy="Never",
    )
    scene.until("a", lambda status: status["phase"] == "Succeeded")
    assert scene.log("a") == "one\ntwo\n"
