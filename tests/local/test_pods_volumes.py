"""Volumes in running pods: contents, owners, updates, and what cannot be had."""

from __future__ import annotations

import os
import re
import sys
import time

import pytest

from tests.local.scene import Scene, in_sandbox, script, state_of

pytestmark = pytest.mark.root

FOR_EVER = "sleep 1000 & trap 'kill $!; exit 0' TERM; wait"
USER = {"runAsUser": 1337, "runAsGroup": 1337}


def until(scene: Scene, name: str, command: str, wanted: str) -> None:
    """Ask the container until it answers so."""
    deadline = time.monotonic() + 120
    while (output := scene.shell(name, command)[1]) != wanted:
        assert time.monotonic() < deadline, output
        time.sleep(0.05)


@in_sandbox
def test_a_token_is_for_the_pods_user_alone_and_is_replaced_before_it_expires(scene: Scene) -> None:
    source = {"serviceAccountToken": {"path": "istio-token", "audience": "istio-ca", "expirationSeconds": 1}}
    scene.run(
        "a",
        script(FOR_EVER, volumeMounts=[{"name": "token", "mountPath": "/var/run/secrets/tokens"}]),
        securityContext=USER,
        volumes=[{"name": "token", "projected": {"sources": [source]}}],
    )
    scene.until_ready("a")
    path = "/var/run/secrets/tokens/istio-token"
    _, first = scene.shell("a", f"cat {path}")
    assert re.fullmatch(r"token \d+ for istio-ca", first)
    assert scene.shell("a", f"stat -Lc '%u %a' {path}")[1] == "1337 600\n"
    until(scene, "a", f"test \"$(cat {path})\" != '{first}' && echo another", "another\n")
    assert scene.tokens[0] == ("a", "istio-ca", 1)
    assert not os.path.exists(path)


@in_sandbox
def test_changed_configuration_reaches_running_pods(scene: Scene) -> None:
    scene.objects["ConfigMap", "shop", "settings"] = {"data": {"a": "one", "gone": "x"}}
    volumes = [
        {"name": "config", "configMap": {"name": "settings", "defaultMode": 0o440}},
        {"name": "info", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "maybe", "secret": {"secretName": "later", "optional": True}},
    ]
    mounts = [{"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in volumes]
    scene.run("a", script(FOR_EVER, volumeMounts=mounts), securityContext=USER | {"fsGroup": 3000}, volumes=volumes)
    scene.until_ready("a")
    assert scene.shell("a", "cat /config/a /info/labels; stat -Lc ' %g %a' /config/a; ls /maybe")[1] == (
        'oneapp="a" 3000 440\n'
    )
    scene.objects["ConfigMap", "shop", "settings"] = {"data": {"a": "two", "b/": "no"} | {"b": "new"}}
    del scene.objects["ConfigMap", "shop", "settings"]["data"]["b/"]
    scene.objects["Secret", "shop", "later"] = {"data": {"key": "dmFsdWU="}}
    scene.kubelet.refresh_volumes()
    until(scene, "a", "cat /config/* /maybe/*", "twonewvalue")
    assert scene.shell("a", "touch /config/x")[0] != 0
    changed = scene.pod("a", script(FOR_EVER, volumeMounts=mounts), volumes=volumes)
    changed["metadata"]["labels"] = {"app": "other"}
    scene.kubelet.update(changed)
    until(scene, "a", "cat /info/labels", 'app="other"')


@in_sandbox
def test_a_missing_config_map_is_named_and_waited_for(scene: Scene) -> None:
    scene.run(
        "a",
        script(FOR_EVER, volumeMounts=[{"name": "config", "mountPath": "/config"}]),
        volumes=[{"name": "config", "configMap": {"name": "settings"}}],
    )
    status = scene.until("a", lambda status: state_of(status, "main")["state"].get("waiting", {}).get("message"))
    message = state_of(status, "main")["state"]["waiting"]["message"]
    assert "shop/a" in message
    assert "'config'" in message
    assert "shop/settings does not exist" in message
    scene.objects["ConfigMap", "shop", "settings"] = {"data": {"a": "one"}}
    scene.kubelet.refresh_volumes()
    scene.until_ready("a")


@in_sandbox
def test_empty_dirs_are_shared_by_the_pods_containers_and_follow_fs_group(scene: Scene) -> None:
    mount = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    below = {"volumeMounts": [{"name": "data", "mountPath": "/part", "subPath": "one/two"}]}
    scene.run(
        "a",
        script(f"touch /data/mine; {FOR_EVER}", "one", **mount, securityContext=USER),
        script(FOR_EVER, "two", **mount, securityContext={"runAsUser": 2000}),
        script(f"touch /part/here; {FOR_EVER}", "three", **below, securityContext={"runAsUser": 2000}),
        securityContext={"fsGroup": 3000},
        volumes=[{"name": "data", "emptyDir": {"medium": "Memory"}}],
    )
    scene.until_ready("a")
    until(scene, "a", "stat -c '%u %g' /data/mine; ls /data/one/two", "1337 3000\nhere\n")
    assert scene.shell("a", "touch /data/yours", "two")[0] == 0


@in_sandbox
def test_a_volume_above_the_environment_does_not_hide_the_interpreter(scene: Scene) -> None:
    above = os.path.dirname(sys.prefix)
    scene.run(
        "a",
        script(FOR_EVER, volumeMounts=[{"name": "data", "mountPath": above}]),
        volumes=[{"name": "data", "emptyDir": {}}],
    )
    scene.until_ready("a")
    assert scene.shell("a", f"{sys.executable} -c 'print(1)'") == (0, "1\n")
    assert scene.shell("a", f"touch {above}/mine && rm {sys.executable}")[0] != 0
    assert scene.shell("a", f"test -f {above}/mine && test -f {sys.executable}")[0] == 0


@in_sandbox
def test_host_paths_are_read_only_whatever_the_pod_says(scene: Scene) -> None:
    folder = scene.state / "given"
    folder.mkdir(mode=0o777)
    (folder / "file").write_text("from the machine\n")
    scene.run(
        "a",
        script(FOR_EVER, volumeMounts=[{"name": "host", "mountPath": "/host"}]),
        volumes=[{"name": "host", "hostPath": {"path": str(folder), "type": "Directory"}}],
    )
    scene.until_ready("a")
    assert scene.shell("a", "cat /host/file")[1] == "from the machine\n"
    assert scene.shell("a", "touch /host/x")[0] != 0
    assert [entry.name for entry in folder.iterdir()] == ["file"]


@in_sandbox
def test_a_volume_of_another_kind_is_an_error_with_a_way_out(scene: Scene) -> None:
    scene.run("a", script(FOR_EVER), volumes=[{"name": "disk", "persistentVolumeClaim": {"claimName": "x"}}])
    status = scene.until("a", lambda status: state_of(status, "main")["state"].get("waiting", {}).get("message"))
    message = state_of(status, "main")["state"]["waiting"]["message"]
    for part in ("shop/a", "'disk'", "persistentVolumeClaim", "emptyDir"):
        assert part in message
