"""A workload of another trust domain: orders as JSON lines on standard input, an answer as a JSON line for each.

`{"serve": body, "port", "chain", "key"}`: an HTTPS endpoint that answers every GET with `body`, until the process ends.
`{"call": [host, port], "chain", "key", "roots"}`: `GET /` over mutual TLS as mesh clients speak it (TLS 1.3, ALPN). The
answer: `{"status", "body"}` or `{"error"}`. Chains, keys and roots are PEM.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECONDS = 15


def context(order: dict[str, Any], protocol: int) -> ssl.SSLContext:
    made = ssl.SSLContext(protocol)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(order["chain"] + order["key"])
        file.flush()
        made.load_cert_chain(file.name)
    return made


def serve(order: dict[str, Any]) -> dict[str, Any]:
    class Endpoint(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = order["serve"].encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None: ...

    server = ThreadingHTTPServer(("", order["port"]), Endpoint)
    server.socket = context(order, ssl.PROTOCOL_TLS_SERVER).wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return {"pid": os.getpid()}


def call(order: dict[str, Any]) -> dict[str, Any]:
    tls = context(order, ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    tls.load_verify_locations(cadata=order["roots"])
    tls.set_alpn_protocols(["istio-http/1.1", "istio", "http/1.1"])
    connection = http.client.HTTPSConnection(*order["call"], timeout=SECONDS, context=tls)
    try:
        connection.request("GET", "/", headers={"Host": "echo.mesh"})
        answer = connection.getresponse()
        return {"status": answer.status, "body": json.loads(answer.read())}
    except (OSError, http.client.HTTPException, ValueError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        connection.close()


for line in sys.stdin:
    wanted = json.loads(line)
    sys.stdout.write(json.dumps(serve(wanted) if "serve" in wanted else call(wanted)) + "\n")
    sys.stdout.flush()
