"""Mutations of DER that stay DER for the most part: a byte flipped at random rarely gets past a length."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

MOST_DEPTH = 12
_CONSTRUCTED = 0x20
_LEAVES = (
    bytes.fromhex("06082a8648ce3d030107"),  # P-256
    bytes.fromhex("06052b81040022"),  # P-384
    bytes.fromhex("06052b8104000a"),  # secp256k1
    bytes.fromhex("06092a864886f70d010101"),  # rsaEncryption
    bytes.fromhex("06092a864886f70d010905"),  # an attribute that is none of ours
    bytes.fromhex("06092a864886f70d01090e"),  # extensionRequest
    bytes.fromhex("0500"),
    bytes.fromhex("0101ff"),
    bytes.fromhex("020100"),
    bytes.fromhex("0303000400"),
)


@dataclass
class Element:
    """One element: its tag, and either its content or what is in it."""

    tag: int
    content: bytes = b""
    children: list[Element] = field(default_factory=list)

    def encoded(self) -> bytes:
        body = b"".join(child.encoded() for child in self.children) if self.children else self.content
        return bytes((self.tag,)) + length(len(body)) + body

    def all(self) -> list[Element]:
        """Itself and everything below."""
        return [self, *(below for child in self.children for below in child.all())]


def length(size: int) -> bytes:
    """The length octets of X.690, in their shortest form."""
    if size < 0x80:
        return bytes((size,))
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((0x80 | len(octets),)) + octets


def sequence(*elements: bytes) -> bytes:
    """A SEQUENCE of encoded elements."""
    body = b"".join(elements)
    return b"\x30" + length(len(body)) + body


def parsed(der: bytes, depth: int = 0) -> list[Element]:
    """The elements in `der`; what is none becomes the content of a last one."""
    found = []
    while len(der) >= 2:
        tag, size, head = der[0], der[1], 2
        if size & 0x80:
            count = size & 0x7F
            size, head = int.from_bytes(der[2 : 2 + count], "big"), 2 + count
        content = der[head : head + size]
        if len(content) != size:
            break
        element = Element(tag, content)
        if tag & _CONSTRUCTED and depth < MOST_DEPTH:
            element.children = parsed(content, depth + 1)
            if b"".join(child.encoded() for child in element.children) != content:
                element.children = []
        found.append(element)
        der = der[head + size :]
    return found


def mutated(der: bytes, source: random.Random) -> bytes:
    """`der` with one change: an element removed, doubled, replaced, moved, retagged, or its content changed."""
    tops = parsed(der)
    if not tops:
        return der
    everything = [element for top in tops for element in top.all()]
    element, other = source.choice(everything), source.choice(everything)
    match source.randrange(8):
        case 0:
            element.tag = source.randrange(256)
        case 1 if element.children:
            element.children.pop(source.randrange(len(element.children)))
        case 2 if element.children:
            element.children.append(Element(*_shallow(source.choice(element.children))))
        case 3:
            element.children, element.content, element.tag = [], other.content, other.tag
        case 4:
            leaf = source.choice(_LEAVES)
            element.tag, element.content, element.children = leaf[0], leaf[2:], []
        case 5 if element.children:
            source.shuffle(element.children)
        case 6:
            element.children, element.content = [], element.content[: source.randrange(len(element.content) + 1)]
        case _:
            changed = bytearray(element.content or b"\0")
            changed[source.randrange(len(changed))] ^= 1 << source.randrange(8)
            element.children, element.content = [], bytes(changed) * source.choice((1, 1, 1, 2))
    return b"".join(top.encoded() for top in tops) + (source.randbytes(2) if source.random() < 0.02 else b"")


def _shallow(element: Element) -> tuple[int, bytes, list[Element]]:
    return element.tag, element.content, list(element.children)
