"""A client: requests given as JSON lines on standard input, answers as JSON lines on standard output, in order.

A request: `{"url", "method"?, "headers"?, "times"?, "parallel"?}`, where `times` are in all and `parallel` at once. Its
answer: `{"status", "body", "headers"}` or `{"error"}`, `times` of them.
Or `{"tcp": [host, port], "send", "first"?}`: connects, reads a line, sends (`first`: before it reads), reads a line.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

SECONDS = 15


def ask(order: dict[str, Any]) -> dict[str, Any]:
    try:
        return lines(order) if "tcp" in order else request(order)
    except (OSError, http.client.HTTPException) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def lines(order: dict[str, Any]) -> dict[str, Any]:
    with socket.create_connection(tuple(order["tcp"]), SECONDS) as connection, connection.makefile("rw") as stream:
        greeting = "" if order.get("first") else stream.readline().strip()
        stream.write(order["send"] + "\n")
        stream.flush()
        return {"greeting": greeting or stream.readline().strip(), "body": stream.readline().strip()}


def request(order: dict[str, Any]) -> dict[str, Any]:
    url = urlsplit(order["url"])
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=SECONDS)
    try:
        path = url.path + (f"?{url.query}" if url.query else "")
        connection.request(order.get("method", "GET"), path, headers=order.get("headers", {}))
        answer = connection.getresponse()
        text = answer.read().decode()
        headers = {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()
    try:
        body = json.loads(text)
    except ValueError:
        body = text
    return {"status": answer.status, "body": body, "headers": headers}


for line in sys.stdin:
    wanted = json.loads(line)
    orders = [wanted] * wanted.get("times", 1)
    with ThreadPoolExecutor(wanted.get("parallel", 1)) as pool:
        for answer in pool.map(ask, orders):
            sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
