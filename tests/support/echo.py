"""A small HTTP/1.1 application that answers with what it saw."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


class EchoApp:
    """Listens on `address` for the length of a `with` block. Answers JSON: its name, path, headers
    (lower case), how often this `x-id` asked, and the address that the connection came from.

    `x-fail: N` makes the first N requests of that `x-id` fail with 503. `x-sleep: S` delays the answer.
    """

    def __init__(self, name: str, address: str = "127.0.0.1", port: int = 0) -> None:
        seen: dict[str, int] = {}
        woken = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet: two would wait 40 ms for a delayed acknowledgement

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                woken.wait(float(self.headers.get("x-sleep", 0)))
                asked = self.headers.get("x-id", "")
                seen[asked] = seen.get(asked, 0) + 1
                failed = seen[asked] <= int(self.headers.get("x-fail", 0))
                headers = {key.lower(): value for key, value in self.headers.items()}
                answer = {"app": name, "path": self.path, "headers": headers}
                answer |= {"times": seen[asked], "client": self.client_address[0]}
                body = json.dumps(answer).encode()
                self.send_response(503 if failed else 200)
                self.send_header("content-length", str(len(body)))
                self.send_header("x-inner", "secret")
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._woken = woken
        self._server = ThreadingHTTPServer((address, port), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> EchoApp:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._woken.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(60)
