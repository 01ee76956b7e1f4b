"""The dashboard's page in a real browser, drawn from 200 made-up workloads behind the real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cli.live.collector import Collector
from cli.live.server import Server
from tests.cli.live.synthetic import Synthetic
from tests.support.chromium import Chromium
from tests.support.chromium import chromium as browser_of

WORKLOADS, EDGES = 200, 320
MARKUP = "<img src=x onerror=document.body.dataset.broken=1>"


@contextmanager
def served(source: Synthetic) -> Iterator[Server]:
    collector = Collector(source, answer_seconds=20.0)
    collector.refresh()
    collector.follow(0.5)
    with Server(0, collector.newest) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    collector.stop()


@pytest.fixture
def page(chromium: str, tmp_path: Path) -> Iterator[Chromium]:
    with browser_of(chromium, tmp_path) as browser:
        yield browser


def count(page: Chromium, selector: str) -> int:
    return int(page.value(f"document.querySelectorAll({selector!r}).length"))


def cell(page: Chromium, table: str, column: int) -> str:
    """Of the table's first line."""
    return str(page.value(f"document.querySelector('#{table} tbody').rows[0].cells[{column}].textContent"))


def drawn(page: Chromium, times: int) -> None:
    """Wait for so many more refreshes."""
    before = page.value("Number(document.body.dataset.drawn || 0)")
    page.until(f"Number(document.body.dataset.drawn || 0) >= {before + times}")


PLACES = "watched.map((each) => each.getAttribute('transform') + each.getAttribute('d'))"
WATCH = """
window.watched = [...document.querySelectorAll('main *, header *')];
window.places = PLACES;
window.moved = [];
new MutationObserver((records) => records.forEach((record) => [...record.addedNodes, ...record.removedNodes]
  .filter((node) => node.nodeType === Node.ELEMENT_NODE).forEach((node) => moved.push(node.outerHTML.slice(0, 200)))))
  .observe(document.body, { childList: true, subtree: true });
""".replace("PLACES", PLACES)


def test_a_mesh_of_200_workloads_is_drawn_and_refreshed_in_place(page: Chromium) -> None:
    source = Synthetic(WORKLOADS)
    with served(source) as server:
        page.open(server.url)
        page.until("document.querySelectorAll('#edges path.busy').length === " + str(EDGES))
        assert count(page, "#workloads > g") == WORKLOADS
        places = page.value("[...document.querySelectorAll('#workloads > g')].map(g => g.getAttribute('transform'))")
        assert len(set(places)) == WORKLOADS
        assert count(page, "#labels use.mutual[href='#mutual']") == count(page, "#traffic tbody tr") == EDGES
        assert cell(page, "traffic", 0) == "shop/svc-000"
        assert count(page, "#certificates tbody tr") == WORKLOADS
        assert cell(page, "certificates", 0) == "shop/svc-199-0"
        assert page.value("document.querySelectorAll('#phases progress')[2].value") == 0.5
        assert cell(page, "changes", 1) == str(WORKLOADS)
        assert "200 of 200 proxies are current" in page.value("document.querySelector('#summary').textContent")

        told = page.value("document.querySelector('#summary').textContent")
        page.value(WATCH)
        drawn(page, 2)
        assert page.value("document.querySelector('#summary').textContent") != told  # it has gone on
        assert page.value("moved") == []
        assert page.value("watched.every((each) => each.isConnected)")
        assert page.value(f"JSON.stringify({PLACES}) === JSON.stringify(places)")

        asked = {each["request"]["url"] for each in page.parameters("Network.requestWillBeSent")}
        files = ("", "dashboard.css", "dashboard.js", "icon.svg", "v1/picture")
        assert asked <= {server.url + file for file in files}
        assert asked >= {server.url + file for file in files if file != "icon.svg"}  # a browser's own choice
        assert page.parameters("Runtime.exceptionThrown") == []
        assert [each for each in page.parameters("Log.entryAdded") if each["entry"]["level"] == "error"] == []


class Troubled(Synthetic):
    """Its discovery tells of a problem that looks like markup."""

    def status(self) -> Mapping[str, Any]:
        found = dict(super().status())
        found["problems"] = [{"object": MARKUP, "field": "", "message": "wrong", "hint": ""}]
        return found


def test_troubles_are_shown_and_what_is_gone_goes(page: Chromium) -> None:
    source = Troubled(10)
    source.silent = {"svc-001"}
    with served(source) as server:
        page.open(server.url)
        page.until("document.querySelectorAll('#edges path.busy').length > 0")
        assert count(page, "#workloads > g") == 10
        problems = page.value("[...document.querySelectorAll('#problems li')].map(each => each.textContent)")
        assert f"{MARKUP}: wrong" in problems
        assert "shop/svc-001-0: heddle-agent in shop/svc-001-0 failed: no connection" in problems
        assert count(page, "#problems li *") == 0
        assert page.value("document.body.dataset.broken") is None
        assert "svc-001" in page.value("document.querySelector('#workloads g.silent').textContent")
        page.value("window.kept = document.querySelector('#workloads > g')")
        source.count = 5
        page.until("document.querySelectorAll('#workloads > g').length === 5")
        assert page.value("kept.isConnected")
        page.call(
            "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )
        page.until("document.querySelector('#problems').textContent.includes('what is shown is old')")
        assert count(page, "#workloads > g") == 5
