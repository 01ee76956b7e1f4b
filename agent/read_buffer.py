"""Where every connection's bytes arrive. One buffer for all of them: what is read is parsed before the next read.

asyncio's other protocols get a new object of up to 256 KB for each read, which costs more than what is done with it.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod

_BUFFER = memoryview(bytearray(128 << 10))  # holds a whole poll of Envoy's


class Receiver(asyncio.BufferedProtocol):
    """A protocol that is given views of the buffer, which it must copy what it keeps from."""

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio's question where to read to."""
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio's word that something is there."""
        self.received(_BUFFER[:nbytes])

    @abstractmethod
    def received(self, data: memoryview) -> None:
        """Called with what arrived."""
