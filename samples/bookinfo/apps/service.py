"""The HTTP that the four bookinfo programs share: a JSON server, and a client that passes tracing headers on."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# A mesh can only join the spans of one request when the program carries these from what it got to what it sends.
PASSED_ON = ("x-request-id", "traceparent", "tracestate", "b3", "end-user", "user-agent", "authorization")
TIMEOUT_SECONDS = 10.0
# After SIGTERM: how long new connections are still answered, for callers who have not heard yet, and how long at most
# requests that have begun may take.
LINGER_SECONDS, FINISH_SECONDS = 1.0, 10.0

# It gets the path and the headers (lower-case names), and answers a status and a JSON value or HTML text.
Handler = Callable[[str, Mapping[str, str]], tuple[int, object]]


def me() -> str:
    """The name of this program's pod."""
    return os.environ.get("HOSTNAME") or os.uname().nodename


def hop(headers: Mapping[str, str]) -> dict[str, str]:
    """This stop of the request: the pod, and the peers of its connection as the sidecar wrote them down.

    `peers` is Envoy's x-forwarded-client-cert: `By` is who this side proved to be, `URI` who the caller proved to be.
    """
    peers = headers.get("x-forwarded-client-cert", "").rpartition(",")[2]
    return {"pod": me(), "peers": peers}


def fetch(url: str, headers: Mapping[str, str]) -> tuple[int, dict[str, object]]:
    """GET a JSON object; an answer that is not 200 comes back as its status and an empty object."""
    passed = {name: headers[name] for name in PASSED_ON if name in headers}
    request = urllib.request.Request(url, headers=passed)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, {}
    except (OSError, ValueError):
        return 503, {}


class Ending:
    """The end of a server that leaves no request without its answer."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._under_way = 0
        self.begun = False

    def __enter__(self) -> None:
        """A request begins."""
        with self._change:
            self._under_way += 1

    def __exit__(self, *_: object) -> None:
        with self._change:
            self._under_way -= 1
            self._change.notify_all()

    def end(self, server: ThreadingHTTPServer) -> None:
        """Close connections after their next answer, take no new ones after a moment, wait for what is under way."""
        self.begun = True
        time.sleep(LINGER_SECONDS)
        server.shutdown()
        with self._change:
            self._change.wait_for(lambda: not self._under_way, FINISH_SECONDS)


def serve(handler: Handler) -> None:
    """Answer GET requests on the port given as the first argument (9080) until SIGTERM."""
    ending = Ending()

    class Requests(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: two would wait for the client's delayed acknowledgement
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            with ending:
                self.answer()

        def answer(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, body = (200, {"status": "healthy"}) if self.path == "/health" else handler(self.path, headers)
            html = isinstance(body, str)
            payload = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8" if html else "application/json")
            self.send_header("Content-Length", str(len(payload)))
            if ending.begun:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(payload)
            self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            sys.stdout.write(f"{self.address_string()} {format % args}\n")
            sys.stdout.flush()

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9080
    server = Server(("", port), Requests)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # for the threads to come, too
    threading.Thread(target=server.serve_forever, daemon=True).start()
    signal.sigwait({signal.SIGTERM})
    ending.end(server)
