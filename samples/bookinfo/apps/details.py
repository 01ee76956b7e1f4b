"""Bookinfo's details service: what the book is."""

from __future__ import annotations

from collections.abc import Mapping

from service import hop, serve

BOOK = {
    "title": "The Comedy of Errors",
    "author": "William Shakespeare",
    "year": 1595,
    "type": "paperback",
    "pages": 200,
    "language": "English",
}


def details(path: str, headers: Mapping[str, str]) -> tuple[int, object]:
    if not path.startswith("/details/"):
        return 404, {"error": f"nothing at {path}; try /details/0"}
    return 200, {"id": path.removeprefix("/details/"), **BOOK, "hops": [hop(headers)]}


serve(details)
