"""Before the sandbox: what is checked, and how the state directory and the host's ports are claimed."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from local import up
from local.up import Order
from mesh.errors import Conflict, HeddleError, InvalidInput


@pytest.fixture
def order(tmp_path: Path) -> Order:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "a.yaml").write_text("")
    return Order(tmp_path / "state", (tmp_path / "manifests",), None, 0, 0, "24h")


def refusal(order: Order) -> str:
    with pytest.raises(HeddleError) as got:
        up.check(order)
    return str(got.value)


def test_files_are_checked_before_the_machine(order: Order, tmp_path: Path) -> None:
    assert "there is no file or directory" in refusal(replace(order, manifests=(tmp_path / "none",)))
    (tmp_path / "empty").mkdir()
    assert "no manifest in" in refusal(replace(order, manifests=(tmp_path / "empty",)))
    for text in ("images: 5", "- x", "a: [", "images: [{match: 5}]"):
        (tmp_path / "images.yaml").write_text(text)
        assert str(tmp_path / "images.yaml") in refusal(replace(order, images=tmp_path / "images.yaml"))
    assert "cannot read the images file" in refusal(replace(order, images=tmp_path / "none.yaml"))


@pytest.mark.parametrize("text", ["", "soon", "24", "1s", "8d", "400h", "-5m", "99999999d"])
def test_a_life_that_the_ca_would_refuse_is_refused_at_once(order: Order, text: str) -> None:
    assert refusal(replace(order, certificate_ttl=text)).startswith("--certificate-ttl: ")


@pytest.mark.parametrize(("text", "seconds"), [("24h", 86400), ("90s", 90), ("1h30m", 5400), ("7d", 604800)])
def test_lives(text: str, seconds: int) -> None:
    assert up.certificate_seconds(text) == seconds


def test_a_path_too_long_for_sockets_is_said_to_be(order: Order, tmp_path: Path) -> None:
    fits = tmp_path / ("x" * (95 - len(str(tmp_path)) - 1))
    up.check_state(fits)
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(FileNotFoundError):
        probe.connect(str(fits / "engine.sock"))
    said = refusal(replace(order, state=fits.with_name(fits.name + "x")))
    assert "is 1 bytes too long for the sockets in it (choose one of at most 95 bytes)" in said


def test_somebodys_directory_is_not_emptied(order: Order) -> None:
    order.state.mkdir()
    (order.state / "thesis.tex").write_text("precious")
    assert "is not empty and not a mesh's, and it would be emptied" in refusal(order)
    order.state.joinpath("thesis.tex").rename(order.state.parent / "thesis.tex")
    up.check_state(order.state)


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InvalidInput, match=r"HEDDLE_STATE: .* cannot be used: "),
        up._claimed(tmp_path / "file" / "state"),
    ):
        pass


def test_what_a_killed_run_left_is_removed_and_nothing_is_left(order: Order) -> None:
    order.state.mkdir()
    (order.state / up.LOCK).write_text("")
    (order.state / "ca").mkdir()
    (order.state / "ca" / "root").write_text("old")
    (order.state / "link").symlink_to(order.manifests[0])
    up.check_state(order.state)
    with up._claimed(order.state):
        assert [entry.name for entry in order.state.iterdir()] == [up.LOCK]
        assert order.state.stat().st_mode & 0o777 == 0o700
        (order.state / "logs").mkdir()
        (order.state / "logs" / "engine.log").write_text("what happened")
    assert not order.state.exists()
    assert up.last_log(order.state).read_text() == "what happened"
    assert (order.manifests[0] / "a.yaml").exists()


def test_two_at_once_are_refused_and_lose_nothing(order: Order) -> None:
    with up._claimed(order.state):
        (order.state / "ca").mkdir()
        assert up.is_running(order.state)
        assert "a mesh is already running in" in refusal(order)
        with pytest.raises(Conflict, match="heddle local down"), up._claimed(order.state):
            pass
        assert (order.state / "ca").is_dir()
    assert not up.is_running(order.state)


def _claim(state: Path, results: multiprocessing.Queue[bool], done: multiprocessing.Event) -> None:  # type: ignore[valid-type]
    try:
        with up._claimed(state):
            results.put(True)
            done.wait(60)
    except Conflict:
        results.put(False)


def test_of_many_that_start_at_once_one_wins(order: Order) -> None:
    context = multiprocessing.get_context("fork")
    results, done = context.Queue(), context.Event()
    racers = [context.Process(target=_claim, args=(order.state, results, done)) for _ in range(6)]
    for racer in racers:
        racer.start()
    assert sorted(results.get(timeout=60) for _ in racers) == [False] * 5 + [True]
    done.set()
    for racer in racers:
        racer.join(20)
    assert not order.state.exists()


def test_a_claim_ends_with_its_process_however_that_ends(order: Order) -> None:
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with up._claimed(order.state):
            os.write(tell, b".")
            threading.Event().wait(60)
        os._exit(0)
    os.read(told, 1)
    assert up.is_running(order.state)
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert not up.is_running(order.state)
    up.check_state(order.state)
    with up._claimed(order.state):
        pass


def test_asking_whether_a_mesh_runs_keeps_none_from_starting(order: Order) -> None:
    with up._claimed(order.state):
        pass
    order.state.mkdir()
    (order.state / up.LOCK).write_text("")
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            up.is_running(order.state)

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(20):
        with up._claimed(order.state):
            pass
    stop.set()
    asking.join(10)


def test_ports_are_opened_named_and_closed(order: Order) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with (
            pytest.raises(Conflict, match=f"port {taken} .* --https-port 0"),
            up._listening(replace(order, https_port=taken)),
        ):
            pass
    with up._listening(replace(order, http_port=taken)) as listeners:
        described = up._engine_order(order, listeners)
        assert described["published"] == [{"hostPort": taken, "servicePort": 80, "fd": listeners[0][1].fileno()}]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", taken))
