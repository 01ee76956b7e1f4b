"""An HTTP/1.1 app that answers with what it saw, as JSON, under its pod's name. Arguments: ports.

`?sleep=S` delays the answer, `?fail=N&id=X` fails the first N requests of X with 503, and `/health` is 503 while
/tmp/sick exists. `?to=URL` asks URL before it answers, with the headers of its own request's trace, and tells as
`next` what that said. With BROKEN in the environment everything else is 503. After SIGTERM it goes on for LINGER
seconds. With CERTIFICATES, a directory with tls.crt and tls.key, it speaks HTTPS.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

SEEN: dict[str, int] = {}
B3 = ("x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled")
OF_A_TRACE = ("x-request-id", "traceparent", "tracestate", *B3)


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        query = dict(parse_qsl(urlsplit(self.path).query))
        time.sleep(float(query.get("sleep", 0)))
        SEEN[query.get("id", "")] = times = SEEN.get(query.get("id", ""), 0) + 1
        sick = self.path == "/health" and Path("/tmp/sick").exists()
        body = {
            "pod": os.environ["HOSTNAME"],
            "version": os.environ.get("VERSION", ""),
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "port": self.server.server_address[1],
            "times": times,
        }
        if "to" in query:
            body["next"] = self.pass_on(query["to"])
        payload = json.dumps(body).encode()
        broken = "BROKEN" in os.environ and self.path != "/health"
        self.send_response(503 if sick or broken or times <= int(query.get("fail", 0)) else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def pass_on(self, url: str) -> object:
        headers = {name: self.headers[name] for name in OF_A_TRACE if name in self.headers}
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return json.load(answer)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    servers = [ThreadingHTTPServer(("", int(port)), Echo) for port in sys.argv[1:]]
    for server in servers:
        if folder := os.environ.get("CERTIFICATES"):
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(f"{folder}/tls.crt", f"{folder}/tls.key")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    time.sleep(float(os.environ.get("LINGER", "0")))


main()
