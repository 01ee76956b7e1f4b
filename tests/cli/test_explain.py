"""`heddle explain` on manifests: the command's words in, text, JSON, exit code and errors out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.commands.explain import command
from mesh.errors import HeddleError

BOOKINFO = str(Path(__file__).resolve().parents[2] / "samples" / "bookinfo" / "manifests")


def run(*words: str, files: str = BOOKINFO) -> Result:
    return CliRunner().invoke(command, ["-f", files, *words])


def answer(*words: str) -> Any:
    return json.loads(run(*words, "-o", "json").stdout)


def error(*words: str, files: str = BOOKINFO) -> str:
    found = run(*words, files=files).exception
    assert isinstance(found, HeddleError), found
    return str(found)


def test_text_names_each_element_and_what_decides_it() -> None:
    done = run("productpage", "reviews:9080/reviews/1", "-H", "end-user: jason")
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines() if line]
    assert lines[0][:4] == ["GET", "reviews:9080/reviews/1", "from", "bookinfo/productpage-v1-0"]
    route = next(line for line in lines if line[0] == "route")
    assert route[-3:] == ["[VirtualService", "bookinfo/reviews", "spec.http[0]]"]
    served = next(line for line in lines if line[0] == "100")
    assert served == ["100", "%", "served", "by", "bookinfo/reviews-v2-0", "over", "mutual", "TLS"]
    assert "[PeerAuthentication bookinfo/default spec.mtls.mode]" in done.stdout


def test_json_holds_the_same() -> None:
    told = answer("bookinfo/productpage", "http://reviews:9080/reviews/1")
    assert told["client"] == "bookinfo/productpage-v1-0"
    assert told["request"]["authority"] == "reviews:9080"
    assert [step["part"] for step in told["steps"]] == ["name", "listener", "virtual host", "route"]
    assert told["passedOver"][0]["origins"][0]["field"] == "spec.http[0]"
    (branch,) = told["branches"]
    assert (branch["share"], branch["outcome"]["result"], branch["subset"]) == (1.0, "served", "v1")
    assert branch["transport"] == "mutual TLS"


def test_what_is_refused_ends_with_3() -> None:
    done = run("productpage", "review")
    assert done.exit_code == 3
    assert "did you mean reviews.bookinfo.svc.cluster.local?" in done.stdout


def test_pods_that_are_treated_alike_need_not_be_told_apart() -> None:
    told = answer("reviews", "ratings")
    assert told["client"] == "bookinfo/reviews-v1-0"
    assert told["alike"] == ["bookinfo/reviews-v2-0", "bookinfo/reviews-v3-0"]
    assert told["request"]["port"] == 9080  # its only one


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        pytest.param(("reviewz", "ratings"), ("FROM", "no pod reviewz", "bookinfo/reviews-v1-0"), id="unknown pod"),
        pytest.param(("", "ratings"), ("FROM", "could be", "not all treated alike"), id="several pods"),
        pytest.param(("reviews", "ratings:http"), ("TO", "'http' is not a port number"), id="port"),
        pytest.param(("reviews", "ftp://ratings"), ("TO", "ftp is no scheme"), id="scheme"),
        pytest.param(("reviews", "ra tings"), ("TO", "is no HOST[:PORT][/PATH]"), id="host"),
        pytest.param(("reviews", "ratings", "-H", "x"), ("--header", "'name: value'"), id="header"),
        pytest.param(("reviews", "ratings", "-X", "get"), ("--request", "'get' is no HTTP method"), id="method"),
    ],
)
def test_words_that_mean_nothing_are_named(words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    said = error(*words)
    assert all(part in said for part in parts), said


def test_manifests_with_errors_are_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("kind: Service\nmetadata: {name: x\n")
    (tmp_path / "wrong.yaml").write_text(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\nspec:\n  hosts: 7\n"
    )
    said = error("a", "b", files=str(tmp_path))
    assert "broken.yaml:3" in said or "broken.yaml:2" in said
    assert "wrong.yaml:5: VirtualService default/x: spec.hosts" in said
