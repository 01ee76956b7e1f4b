"""`heddle rotate` over the engine's real socket: what it sends, says, asks, and how it ends.

The ca behind the socket is made up here; tests/ca has the real one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.rotation.watch import SILENCE_SECONDS, follow
from mesh.errors import Unavailable
from tests.cli.run import heddle
from tests.local.command_server import CommandServer

CASES = Path(__file__).parent / "cases" / "rotation"
PATH = "ca/v1/rotation"


def state(name: str, **change: Any) -> dict[str, Any]:
    return {**yaml.safe_load((CASES / f"{name}.in.yaml").read_text()), **change}


def answer(mesh: CommandServer, body: object, status: int = 200) -> None:
    mesh.operator.answers[PATH] = (status, body)


def test_start_says_what_it_does_and_asks_first(mesh: CommandServer) -> None:
    answer(mesh, state("idle"))
    done = heddle("rotate", "start", "--window", "10m")
    assert done.code == 1
    assert "every certificate is renewed" in done.err
    assert "-y" in done.err
    assert mesh.operator.sent == []
    assert heddle("rotate", "start", "--window", "10m", "-y").code == 0
    assert mesh.operator.sent == [{"do": "start", "windowSeconds": 600}]


def test_start_twice_does_nothing_the_second_time(mesh: CommandServer) -> None:
    answer(mesh, state("renew"))
    done = heddle("rotate", "start", "-y")
    assert done.code == 0
    assert "under way already" in done.err
    assert "phase 3 of 6" in done.out
    assert mesh.operator.sent == []


def test_start_while_one_goes_back_is_refused(mesh: CommandServer) -> None:
    answer(mesh, state("back-retire"))
    done = heddle("rotate", "start", "-y")
    assert done.code == 1
    assert "being rolled back" in done.err
    assert mesh.operator.sent == []


def test_dry_run_changes_nothing(mesh: CommandServer) -> None:
    answer(mesh, state("idle"))
    assert heddle("rotate", "start", "--dry-run", "-o", "json").code == 0
    assert mesh.operator.sent == [{"do": "start", "dryRun": True}]
    answer(mesh, state("renew"))
    assert "nothing would be started" in heddle("rotate", "start", "--dry-run").err
    assert len(mesh.operator.sent) == 1


def test_a_dry_run_that_would_wait_ends_with_3(mesh: CommandServer) -> None:
    answer(mesh, state("dry-run"))
    done = heddle("rotate", "start", "--dry-run")
    assert done.code == 3
    assert "n/b: it has taken bundle 1 only" in done.out


def just_ended(direction: str) -> dict[str, Any]:
    at = datetime.now(UTC).isoformat()
    return state("completed", history=[{"phase": "idle", "direction": direction, "at": at}])


def test_none_is_started_right_after_another_unless_again(mesh: CommandServer) -> None:
    answer(mesh, just_ended("forward"))
    done = heddle("rotate", "start", "-y", "--watch")
    assert done.code == 0
    assert "nothing is started" in done.err
    assert mesh.operator.sent == []
    heddle("rotate", "start", "-y", "--again")
    answer(mesh, just_ended("back"))
    heddle("rotate", "start", "-y")
    assert len(mesh.operator.sent) == 2


@pytest.mark.parametrize(
    ("words", "direction", "code"),
    [
        (["start", "-y"], "forward", 0),
        (["start", "-y"], "back", 1),
        (["rollback", "-y"], "back", 0),
        (["rollback", "-y"], "forward", 1),
    ],
)
def test_how_it_ends_decides_the_exit_code(mesh: CommandServer, words: list[str], direction: str, code: int) -> None:
    going = state("renew" if words[0] == "start" else "back-renew")
    mesh.operator.in_turn[PATH] = [(200, going), (200, going), (200, just_ended(direction))]
    done = heddle("rotate", *words, "--watch")
    assert done.code == code, done.err
    assert ("rolled back" if direction == "back" else "complete") in done.err


def test_exclude_says_first_what_breaks(mesh: CommandServer) -> None:
    answer(mesh, state("distribute-missing", warnings=["bookinfo/ratings-v1-1: it will be refused"]))
    done = heddle("rotate", "exclude", "bookinfo/ratings-v1-1", "n/other")
    assert done.code == 1
    assert "bookinfo/ratings-v1-1: it will be refused\n" in done.err
    asked = {"do": "exclude", "pods": ["bookinfo/ratings-v1-1", "n/other"]}
    assert mesh.operator.sent == [{**asked, "dryRun": True}]
    assert heddle("rotate", "status", "--exclude", "bookinfo/ratings-v1-1", "-y").code == 0
    assert mesh.operator.sent[-1] == {"do": "exclude", "pods": ["bookinfo/ratings-v1-1"]}


def test_a_pod_that_is_excluded_already_is_left_at_that(mesh: CommandServer) -> None:
    answer(mesh, state("distribute-missing"))
    assert heddle("rotate", "exclude", "old/vm-1").code == 0
    assert mesh.operator.sent == []


def test_include_pause_resume_and_finish_are_sent(mesh: CommandServer) -> None:
    answer(mesh, state("renew"))
    for words in (["include", "n/a"], ["pause"], ["resume"], ["finish", "-y"], ["rollback", "-y"]):
        assert heddle("rotate", *words).code == 0
    assert [sent["do"] for sent in mesh.operator.sent] == ["include", "pause", "resume", "finish", "rollback"]
    assert mesh.operator.sent[0]["pods"] == ["n/a"]


def test_rollback_twice_does_nothing_the_second_time(mesh: CommandServer) -> None:
    answer(mesh, state("back-retire"))
    assert heddle("rotate", "rollback").code == 0
    assert mesh.operator.sent == []


def test_what_the_ca_refuses_is_said_in_its_words(mesh: CommandServer) -> None:
    said = {"code": "conflict", "message": "no rotation is under way", "hint": "start one"}
    answer(mesh, {"error": said}, 409)
    assert heddle("rotate", "pause").err == "heddle: no rotation is under way (start one)\n"
    assert heddle("rotate", "pause").code == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["start", "--window", "soon"], "is not a duration"),
        (["exclude", "web-1"], "NAMESPACE/NAME"),
        (["status", "--exclude", "a/b/c"], "NAMESPACE/NAME"),
        (["exclude"], "Missing argument"),
    ],
)
def test_wrong_usage(mesh: CommandServer, words: list[str], said: str) -> None:
    answer(mesh, state("renew"))
    done = heddle("rotate", *words)
    assert done.code == 2
    assert said in done.err


def test_formats(mesh: CommandServer) -> None:
    answer(mesh, state("renew"))
    in_json, in_yaml = heddle("rotate", "status", "-o", "json"), heddle("rotate", "status", "-o", "yaml")
    assert json.loads(in_json.out) == yaml.safe_load(in_yaml.out) == state("renew")


def test_waiting_in_vain_ends_with_3(mesh: CommandServer) -> None:
    answer(mesh, state("distribute-missing"))
    done = heddle("rotate", "status", "--wait", "0")
    assert done.code == 3
    assert "distribute, 12/40 acknowledged" in done.out
    assert heddle("rotate", "start", "--wait", "0s").code == 3
    in_json = heddle("rotate", "status", "--wait", "0", "-o", "json")
    assert in_json.code == 3
    assert json.loads(in_json.out)["phase"] == "distribute"


def test_waiting_for_nothing_ends_at_once(mesh: CommandServer) -> None:
    answer(mesh, state("idle"))
    assert heddle("rotate", "status", "--watch").code == 0


class Story:
    """Answers of a ca, one after the other; the last is repeated. Time passes by sleeping only."""

    def __init__(self, *answers: Mapping[str, Any] | Exception) -> None:
        self._answers = iter(answers)
        self.now = 0.0
        self.said: list[str] = []

    def read(self) -> Mapping[str, Any]:
        found = next(self._answers)
        if isinstance(found, Exception):
            raise found
        return found

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def follow(self, **more: Any) -> Mapping[str, Any]:
        return follow(
            self.read, say=lambda text: self.said.append(text[9:]), monotonic=lambda: self.now, sleep=self.sleep, **more
        )


def test_following_tells_each_change_once_and_survives_a_restart_of_the_ca() -> None:
    away = Unavailable("the ca does not answer")
    story = Story(state("distribute-missing"), state("distribute-missing"), away, away, state("renew"), state("idle"))
    assert story.follow()["phase"] == "idle"
    assert [line.split(",")[0].split(":")[0] for line in story.said] == [
        "distribute",
        "the ca does not answer",
        "renew",
        "idle",
    ]


def test_a_ca_that_stays_away_is_an_error() -> None:
    def silence() -> Iterator[Exception]:
        while True:
            yield Unavailable("gone")

    story = Story(state("renew"), *(next(silence()) for _ in range(1000)))
    with pytest.raises(Unavailable):
        story.follow()
    assert story.now == pytest.approx(SILENCE_SECONDS, abs=2)


def test_bars_are_drawn_over_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    Story(state("renew"), state("idle")).follow(terminal=True)
    drawn = capsys.readouterr().out
    lines = drawn.partition("\x1b[")[0].count("\n")
    assert f"\x1b[{lines}F\x1b[J" in drawn
