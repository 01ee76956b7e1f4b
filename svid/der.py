"""Reading DER that another parser has let through (ITU-T X.690): tags of one octet, definite lengths."""

from __future__ import annotations

from collections.abc import Iterator


def first(der: bytes) -> tuple[int, bytes]:
    """Tag and content of the first element; ValueError or IndexError when there is none."""
    for element in elements(der):
        return element
    raise ValueError("nothing there")


def elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element; ValueError or IndexError when one does not end within `der`."""
    at = 0
    while at < len(der):
        tag, size, at = der[at], der[at + 1], at + 2
        if size & 0x80:
            octets = size & 0x7F
            size, at = int.from_bytes(der[at : at + octets], "big"), at + octets
        content, at = der[at : at + size], at + size
        if len(content) != size:
            raise ValueError("it ends too early")
        yield tag, content
