"""The control plane's own objects, programs, readiness and tokens, without starting it."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import control_plane
from local.control_plane import ACCOUNTS, Part, keep_tokens, token_file, wait_until_ready
from local.manifests import control_plane_objects
from local.shapes import KINDS, problems
from mesh.errors import Unavailable
from mesh.objects import Key


def test_its_objects_are_what_an_api_server_would_take() -> None:
    for raw in control_plane.objects():
        assert raw["kind"] in KINDS
        assert problems(raw["kind"], raw) == []


def test_manifests_may_change_none_of_them() -> None:
    reserved = control_plane_objects(control_plane.objects())
    assert ("Namespace", Key("", "istio-system")) in reserved
    assert {("ServiceAccount", Key("istio-system", account)) for account in ACCOUNTS} <= reserved
    assert {("Service", Key("istio-system", f"heddle-{name}")) for name in ("ca", "webhook", "discovery")} <= reserved


def test_the_programs_in_the_order_in_which_they_need_each_other(tmp_path: Path) -> None:
    found = control_plane.processes(tmp_path, "http://127.0.0.1:6443", "example.org", "900s")
    assert [component.name for component in found] == ["ca", "webhook", "discovery"]
    ca, *others = found
    assert ca.argv[ca.argv.index("--leaf-ttl") + 1] == "900s"
    assert ca.argv[ca.argv.index("--max-ttl") + 1] == "900s"  # pods ask for the mesh's own setting, 24 h
    for component in found:
        assert component.argv[component.argv.index("--trust-domain") + 1] == "example.org"
        assert (component.env["POD_NAMESPACE"], component.env["POD_NAME"]) == ("istio-system", ""), "also run in a pod"
    for component in others:
        assert component.argv[component.argv.index("--token-file") + 1].endswith(f"tokens/heddle-{component.name}")


class Health:
    """`/readyz` of one part, with the codes that a test wants, in order; the last one for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.codes = [200]
        health = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code = health.codes.pop(0) if len(health.codes) > 1 else health.codes[0]
                if code == 0:
                    return  # hangs up without an answer
                self.send_response(code)
                self.end_headers()
                self.wfile.write(b"namespaces are not read yet")

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        monkeypatch.setattr(control_plane, "NODE_ADDRESS", "127.0.0.1")
        self.part = Part("discovery", 1, int(self.server.server_address[1]), 1)


@pytest.fixture
def health(monkeypatch: pytest.MonkeyPatch) -> Iterator[Health]:
    running = Health(monkeypatch)
    yield running
    running.server.shutdown()
    running.server.server_close()


def test_it_is_waited_for_until_it_is_ready(health: Health, tmp_path: Path) -> None:
    health.codes = [503, 0, 503, 200]
    wait_until_ready(health.part, tmp_path / "log", lambda: True)
    assert health.codes == [200]


def test_one_that_does_not_become_ready_shows_why_and_the_end_of_its_log(
    health: Health, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_plane, "READY_SECONDS", 0.3)
    health.codes = [503]
    (tmp_path / "log").write_text("".join(f"line {number}\n" for number in range(100)))
    with pytest.raises(Unavailable) as got:
        wait_until_ready(health.part, tmp_path / "log", lambda: True)
    assert "the discovery did not become ready: namespaces are not read yet" in str(got.value)
    assert "line 99" in str(got.value)
    assert "line 84" not in str(got.value)


def test_who_is_told_to_end_waits_for_nothing(health: Health, tmp_path: Path) -> None:
    health.codes = [503]
    wait_until_ready(health.part, tmp_path / "log", lambda: False)


def test_tokens_are_their_owners_alone_and_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_plane, "TOKEN_SECONDS", 0.03)
    stop, renewed = threading.Event(), threading.Semaphore(0)
    made: list[str] = []

    def make(account: str) -> str:
        made.append(account)
        if len(made) == len(ACCOUNTS) + 1:
            raise OSError("no space left on device")
        renewed.release()
        return f"{account} {len(made)}"

    keep_tokens(tmp_path, make, stop)
    for account in ACCOUNTS:
        assert token_file(tmp_path, account).stat().st_mode & 0o777 == 0o600
    for _ in range(len(ACCOUNTS) * 3):
        assert renewed.acquire(timeout=60)
    stop.set()
    assert (tmp_path / "tokens").stat().st_mode & 0o777 == 0o700
    assert {file.name for file in (tmp_path / "tokens").iterdir() if file.suffix != ".new"} == set(ACCOUNTS)
