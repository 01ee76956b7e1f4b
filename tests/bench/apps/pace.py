"""Requests at a steady rate over kept-alive connections, whether or not answers are late (an open loop).

Arguments: host, port, requests a second, seconds, connections. Prints JSON: latencies in microseconds, failures.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time


class Connection(asyncio.Protocol):
    """One request at a time; `finished` is set by its answer."""

    def __init__(self) -> None:
        self.finished: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.finished is not None and not self.finished.done() and data.startswith(b"HTTP/1.1 200"):
            self.finished.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self.finished is not None and not self.finished.done():
            self.finished.set_exception(error or ConnectionError("closed"))


async def main() -> None:
    host, port, rate, seconds, count = (
        sys.argv[1],
        int(sys.argv[2]),
        float(sys.argv[3]),
        float(sys.argv[4]),
        int(sys.argv[5]),
    )
    loop = asyncio.get_running_loop()
    idle: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(count):
        _, connection = await loop.create_connection(Connection, host, port)
        idle.put_nowait(connection)
    request = f"GET / HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()
    latencies: list[int] = []
    failures = 0

    async def one(due: float) -> None:
        nonlocal failures
        connection = await idle.get()
        connection.finished = loop.create_future()
        assert connection.transport is not None
        connection.transport.write(request)
        try:
            await asyncio.wait_for(connection.finished, 5)
        except (OSError, TimeoutError):
            failures += 1
            return
        latencies.append(round((time.perf_counter() - due) * 1e6))
        idle.put_nowait(connection)

    tasks = []
    began = time.perf_counter()
    for number in range(int(rate * seconds)):
        due = began + number / rate
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(one(time.perf_counter())))
    await asyncio.gather(*tasks)
    print(json.dumps({"latencies": latencies, "failures": failures}))


asyncio.run(main())
