"""A client: requests given as JSON lines on standard input, answers as JSON lines on standard output.

A request: `{"url", "method"?, "headers"?, "times"?}`; its answer: `{"status", "body", "seconds"}` or `{"error"}`, `times` of them.
Or `{"tcp": [host, port], "send"}`: connects, reads a line, sends, reads a line.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
import time
from typing import Any
from urllib.parse import urlsplit


def ask(order: dict[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    try:
        if "tcp" in order:
            with socket.create_connection(tuple(order["tcp"]), 5) as connection:
                stream = connection.makefile("rw")
                greeting = stream.readline().strip()
                stream.write(order["send"] + "\n")
                stream.flush()
                return {"greeting": greeting, "body": stream.readline().strip()}
        url = urlsplit(order["url"])
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=15)
        path = url.path + (f"?{url.query}" if url.query else "")
        connection.request(order.get("method", "GET"), path, headers=order.get("headers", {}))
        answer = connection.getresponse()
        text = answer.read().decode()
        headers = {name.lower(): value for name, value in answer.getheaders()}
    except (OSError, http.client.HTTPException) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    try:
        body = json.loads(text)
    except ValueError:
        body = text
    return {"status": answer.status, "body": body, "headers": headers, "seconds": time.monotonic() - began}


for line in sys.stdin:
    request = json.loads(line)
    for _ in range(request.get("times", 1)):
        sys.stdout.write(json.dumps(ask(request)) + "\n")
    sys.stdout.flush()
