"""What the injection webhook can do on one core: `python tests/bench/bench_inject.py [--seconds N]`.

1. The parts of one injection, in this process, and jsonpatch's own comparison beside ours.
2. `POST /inject` over HTTPS: `python -m webhook` pinned to one core, one gthread worker, an ordinary pod;
   eight kept-alive connections from a client on the other core, every AdmissionReview with a uid of its own.
"""

from __future__ import annotations

import argparse
import base64
import os
import selectors
import socket
import ssl
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import jsonpatch
import orjson

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.webhook.harness import REVIEWS, ApiServer, WebhookProcess, namespace, review_of
from webhook.config import InjectionConfig
from webhook.inject import advice, inject
from webhook.patch import check_patch, make_patch
from webhook.review import review
from webhook.shape import check_pod

CONNECTIONS = 8
SERVER_CORE, CLIENT_CORE = "0", "1"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5.0)
    seconds = parser.parse_args().seconds
    parts(min(seconds, 0.5))
    over_https(seconds)


def microseconds(work: Callable[[], object], seconds: float) -> float:
    """CPU time of one call, in this thread."""
    work()
    done, started = 0, time.thread_time()
    while (spent := time.thread_time() - started) < seconds:
        for _ in range(20):
            work()
        done += 20
    return spent / done * 1e6


def parts(seconds: float) -> None:
    config = InjectionConfig()
    raw = orjson.dumps(REVIEWS)
    after = inject(REVIEWS, config)
    patch = make_patch(REVIEWS, after)
    theirs = jsonpatch.make_patch(REVIEWS, after).patch
    body = orjson.dumps(review_of(REVIEWS))
    print(f"one injection, {len(raw)} bytes of pod, microseconds of CPU")
    for name, work in (
        ("shape", lambda: check_pod(REVIEWS, "Pod")),
        ("inject", lambda: inject(REVIEWS, config)),
        ("advice", lambda: advice(REVIEWS, config)),
        ("patch, built from the two pods", lambda: make_patch(REVIEWS, after)),
        ("  beside it: jsonpatch.make_patch", lambda: jsonpatch.make_patch(REVIEWS, after)),
        ("patch, applied by jsonpatch and compared", lambda: check_patch(patch, orjson.loads(raw), after)),
        (
            "all: bytes to bytes",
            lambda: review(body, "application/json", lambda _: {"istio-injection": "enabled"}, config),
        ),
    ):
        print(f"  {name:44} {microseconds(work, seconds):8.1f}")
    print(f"  size of the patch: {len(orjson.dumps(patch))} bytes, of jsonpatch's: {len(orjson.dumps(theirs))}")


def over_https(seconds: float) -> None:
    os.sched_setaffinity(0, {int(CLIENT_CORE)})
    api = ApiServer([namespace("default", istio_injection="enabled")])
    webhook = WebhookProcess(api.url, before=("taskset", "-c", SERVER_CORE)).ready()
    try:
        connections = [webhook.connect() for _ in range(CONNECTIONS)]
        drive(connections, 1.0)
        started, before = cpu_of(webhook.process.pid), idle_of(SERVER_CORE)
        rate, taken = drive(connections, seconds)
        used, spare = cpu_of(webhook.process.pid) - started, idle_of(SERVER_CORE) - before
        cpu = used / len(taken)
        taken.sort()
        p50, p99 = (taken[int(len(taken) * q)] * 1e3 for q in (0.5, 0.99))
        print(f"\nPOST /inject over HTTPS, {CONNECTIONS} connections, {len(taken)} requests, all injected")
        print(f"  one gthread worker on one core   {rate:7.0f}/s   p50 {p50:5.2f} ms   p99 {p99:5.2f} ms   "
              f"CPU {cpu * 1e3:.2f} ms each   (to reach: 1,000/s, p99 15 ms)")  # fmt: skip
        print(f"  of that core: {used / seconds:.0%} the webhook, {spare / seconds:.0%} idle, the rest other programs")
        print("  istiod, measured on these cores      226/s a core (453/s on both), p99 67 ms, CPU 4.0 ms each")
    finally:
        webhook.close()
        api.close()


def drive(connections: list[ssl.SSLSocket], seconds: float) -> tuple[float, list[float]]:
    """Requests per second, and each one's seconds. One request is on its way on each connection at any time."""
    template = orjson.dumps(review_of(REVIEWS, uid="UID"))
    selector = selectors.DefaultSelector()
    sent: dict[socket.socket, tuple[float, str]] = {}
    taken: list[float] = []

    def send(connection: ssl.SSLSocket) -> None:
        uid = str(uuid.uuid4())
        body = template.replace(b"UID", uid.encode(), 1)
        head = (
            "POST /inject?timeout=10s HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        sent[connection] = (time.perf_counter(), uid)
        connection.sendall(head.encode() + body)

    began = time.perf_counter()
    for connection in connections:
        selector.register(connection, selectors.EVENT_READ)
        send(connection)
    while time.perf_counter() - began < seconds:
        for key, _ in selector.select(1.0):
            connection = key.fileobj
            assert isinstance(connection, ssl.SSLSocket)
            answer = read(connection)
            started, uid = sent[connection]
            taken.append(time.perf_counter() - started)
            if len(taken) % 100 == 0:
                check(answer, uid)
            send(connection)
    spent = time.perf_counter() - began
    for connection in connections:
        read(connection)
    return len(taken) / spent, taken


def read(connection: ssl.SSLSocket) -> bytes:
    data = connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), data[:300]
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    while len(body) < length:
        body += connection.recv(65536)
    return body


def check(body: bytes, uid: str) -> None:
    response = orjson.loads(body)["response"]
    assert response["uid"] == uid
    patched = jsonpatch.apply_patch(REVIEWS, orjson.loads(base64.b64decode(response["patch"])))
    assert [c["name"] for c in patched["spec"]["initContainers"]] == ["istio-init", "istio-proxy"]


def cpu_of(leader: int) -> float:
    """Seconds of CPU that the process group of `leader` has used."""
    ticks = 0
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def idle_of(core: str) -> float:
    """Seconds that the core has had nothing to do."""
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    return int(line.split()[4]) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
