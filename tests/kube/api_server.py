"""A small HTTP server that speaks the API server's list and watch.

It is a real server on a real socket, so that what is tested is what goes over the wire: pages, chunked watch
streams, bookmarks, 410 in its two forms, connections that break. It is not a Kubernetes API server: those are tested
against in tests/cluster.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


def thing(name: str, version: int, **extra: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default", "resourceVersion": str(version)}, **extra}


class ApiServer:
    """State that tests set, and a log of what was asked. Each watch takes its events from `events`: an event, a `dict`
    to send; `"end"` to end the stream; `"break"` to drop the connection in the middle of a chunk."""

    def __init__(self) -> None:
        self.address = ""
        self.items: list[dict[str, Any]] = []
        self.version = 1
        self.page = 0
        self.answers: list[tuple[int, dict[str, Any]]] = []
        self.events: queue.Queue[Any] = queue.Queue()
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.written: list[tuple[str, str, str, Any]] = []
        self.watching = threading.Semaphore(0)

    @contextmanager
    def running(self) -> Iterator[str]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            self.address = f"http://127.0.0.1:{server.server_address[1]}"
            yield self.address
        finally:
            self.events.put("end")
            server.shutdown()
            server.server_close()
            thread.join()

    def lists(self) -> list[dict[str, str]]:
        return [query for _, query in self.asked if "watch" not in query]

    def watches(self) -> list[dict[str, str]]:
        return [query for _, query in self.asked if "watch" in query]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        state = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                state.asked.append((parts.path, query))
                if state.answers:
                    self.answer(*state.answers.pop(0))
                elif "watch" in query:
                    self.stream()
                else:
                    self.answer(200, self.page(query))

            def do_PATCH(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                state.written.append((self.command, self.path, self.headers["Content-Type"], json.loads(raw)))
                self.answer(200, json.loads(raw))

            do_POST = do_PATCH

            def page(self, query: dict[str, str]) -> dict[str, Any]:
                start = int(query.get("continue", "0"))
                end = start + state.page if state.page else len(state.items)
                meta = {"resourceVersion": str(state.version)}
                if end < len(state.items):
                    meta["continue"] = str(end)
                return {"metadata": meta, "items": state.items[start:end]}

            def answer(self, status: int, body: dict[str, Any]) -> None:
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def stream(self) -> None:
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                state.watching.release()
                while True:
                    event = state.events.get()
                    if event == "end":
                        self.wfile.write(b"0\r\n\r\n")
                        return
                    if event == "break":
                        self.wfile.write(b"ff\r\n{")
                        self.close_connection = True
                        return
                    raw = event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n"
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
                    self.wfile.flush()

        return Handler
