"""Bookinfo's reviews service. Version v1 shows no stars, v2 black ones and v3 red ones, which it gets from ratings.

Environment: SERVICE_VERSION (v1, v2, v3), RATINGS_HOSTNAME (ratings), RATINGS_SERVICE_PORT (9080).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from service import fetch, hop, me, serve

VERSION = os.environ.get("SERVICE_VERSION", "v1")
COLOUR = {"v2": "black", "v3": "red"}.get(VERSION)
RATINGS = f"http://{os.environ.get('RATINGS_HOSTNAME', 'ratings')}:{os.environ.get('RATINGS_SERVICE_PORT', '9080')}"
TEXTS = {
    "Reviewer1": "An extremely entertaining play by Shakespeare.",
    "Reviewer2": "Absolutely fun and entertaining.",
}


def reviews(path: str, headers: Mapping[str, str]) -> tuple[int, object]:
    if not path.startswith("/reviews/"):
        return 404, {"error": f"nothing at {path}; try /reviews/0"}
    book = path.removeprefix("/reviews/")
    entries: list[dict[str, object]] = [{"reviewer": name, "text": text} for name, text in TEXTS.items()]
    hops: list[object] = [hop(headers)]
    if COLOUR:
        status, answer = fetch(f"{RATINGS}/ratings/{book}", headers)
        stars = answer.get("ratings")
        for entry in entries:
            if isinstance(stars, dict):
                entry["rating"] = {"stars": stars.get(entry["reviewer"]), "color": COLOUR}
            else:
                entry["rating"] = {"error": f"ratings are not available ({status})"}
        further = answer.get("hops")
        hops += further if isinstance(further, list) else []
    return 200, {"id": book, "version": VERSION, "podname": me(), "reviews": entries, "hops": hops}


serve(reviews)
