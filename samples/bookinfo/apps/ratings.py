"""Bookinfo's ratings service: how many stars each reviewer gave."""

from __future__ import annotations

from collections.abc import Mapping

from service import hop, serve


def ratings(path: str, headers: Mapping[str, str]) -> tuple[int, object]:
    if not path.startswith("/ratings/"):
        return 404, {"error": f"nothing at {path}; try /ratings/0"}
    return 200, {
        "id": path.removeprefix("/ratings/"),
        "ratings": {"Reviewer1": 5, "Reviewer2": 4},
        "hops": [hop(headers)],
    }


serve(ratings)
