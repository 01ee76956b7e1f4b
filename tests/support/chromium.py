"""A real browser for tests of pages: headless Chromium, driven by the DevTools protocol over two pipes.

https://chromedevtools.github.io/devtools-protocol/; messages are JSON, each ended by a zero byte. No port is opened,
and names other than 127.0.0.1 resolve to nothing: whatever a page asks for stays on this machine, and is seen here.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECONDS = 60.0
_OPTIONS = (
    "--headless",
    "--no-sandbox",  # which Chromium has none of for root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-breakpad",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--window-size=1400,900",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
)
# Chromium reads from descriptor 3 and writes to 4, which others may have here.
_LAUNCH = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
os.dup2(ends[0], 3), os.dup2(ends[1], 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""


class Chromium:
    """One browser with one page. `events` are all that it told of the page, oldest first."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._told = threading.Condition()
        self._ended = False
        self._session = ""
        self.events: list[dict[str, Any]] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def open(self, url: str, script_before: str = "") -> None:
        """Load `url`; `script_before` is run in the page before any of its own."""
        if not self._session:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Network", "Runtime", "Log"):
                self.call(f"{domain}.enable")
        if script_before:
            self.call("Page.addScriptToEvaluateOnNewDocument", source=script_before)
        before = len(self.parameters("Page.loadEventFired"))
        self.call("Page.navigate", url=url)
        with self._told:  # until then a page has no context, or that of the one before, to evaluate anything in
            assert self._told.wait_for(lambda: len(self._named("Page.loadEventFired")) > before, SECONDS), url

    def value(self, expression: str) -> Any:
        """What the expression, or the promise that it is, has in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until the expression is true in the page."""
        held = threading.Event()
        for _ in range(int(SECONDS / 0.05)):
            if self.value(f"Boolean({condition})"):
                return
            held.wait(0.05)
        raise AssertionError(f"never true in the page: {condition}")

    def parameters(self, event: str) -> list[dict[str, Any]]:
        """Of all events of that name so far."""
        with self._told:
            return self._named(event)

    def _named(self, event: str) -> list[dict[str, Any]]:
        return [each["params"] for each in self.events if each["method"] == event]

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The protocol's method, on the page once there is one."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        with self._told:
            assert self._told.wait_for(lambda: number in self._answers or self._ended, SECONDS), f"{method}: no answer"
            assert number in self._answers, f"{method}: the browser has ended"
            answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer}"
        result: dict[str, Any] = answer["result"]
        return result

    def _listen(self) -> None:
        rest = b""
        while chunk := os.read(self._from, 1 << 16):
            *messages, rest = (rest + chunk).split(b"\0")
            with self._told:
                for message in map(json.loads, messages):
                    if "id" in message:
                        self._answers[message["id"]] = message
                    else:
                        self.events.append(message)
                self._told.notify_all()
        with self._told:
            self._ended = True
            self._told.notify_all()
        os.close(self._from)


@contextmanager
def chromium(program: str, folder: Path) -> Iterator[Chromium]:
    """A browser with its profile and log below `folder`."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    argv = [sys.executable, "-c", _LAUNCH, str(theirs_in), str(theirs_out), program, *_OPTIONS]
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [*argv, f"--user-data-dir={folder / 'profile'}"],
            pass_fds=(theirs_in, theirs_out),
            env={**os.environ, "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Chromium(ours_out, ours_in)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # all of its processes: they are of the group of the first
        process.wait()
        os.close(ours_out)
