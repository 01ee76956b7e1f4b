"""Bookinfo's front page: asks details and reviews, and shows both.

`/productpage` is for people, `/api/v1/products/0` the same as JSON with the hops that the request took.
Environment: DETAILS_HOSTNAME, DETAILS_SERVICE_PORT, REVIEWS_HOSTNAME, REVIEWS_SERVICE_PORT (details, reviews; 9080).
"""

from __future__ import annotations

import html
import os
from collections.abc import Mapping

from service import fetch, hop, serve


def address(service: str) -> str:
    name = service.upper()
    return f"http://{os.environ.get(f'{name}_HOSTNAME', service)}:{os.environ.get(f'{name}_SERVICE_PORT', '9080')}"


def product(headers: Mapping[str, str]) -> tuple[int, dict[str, object]]:
    details_status, details = fetch(f"{address('details')}/details/0", headers)
    reviews_status, reviews = fetch(f"{address('reviews')}/reviews/0", headers)
    hops = [hop(headers), *_hops(details), *_hops(reviews)]
    worst = max(details_status, reviews_status)
    return worst, {"details": details, "reviews": reviews, "hops": hops}


def _hops(answer: Mapping[str, object]) -> list[object]:
    hops = answer.get("hops")
    return hops if isinstance(hops, list) else []


def page(content: Mapping[str, object]) -> str:
    details, reviews = content["details"], content["reviews"]
    assert isinstance(details, dict)
    assert isinstance(reviews, dict)
    rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(str(v))}</td></tr>" for k, v in details.items())
    quotes = "".join(_quote(entry) for entry in reviews.get("reviews", ())) or "<p>Reviews are not available now.</p>"
    title = html.escape(str(details.get("title", "Details are not available now.")))
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><h1>{title}</h1>"
        f"<table>{rows}</table><h2>Reviews ({html.escape(str(reviews.get('version', 'none')))})</h2>{quotes}</html>"
    )


def _quote(entry: Mapping[str, object]) -> str:
    rating = entry.get("rating")
    stars = ""
    if isinstance(rating, dict):
        count = int(rating.get("stars") or 0)
        stars = f" <span style='color:{rating.get('color', 'black')}'>{'★' * count}{'☆' * (5 - count)}</span>"
    text, reviewer = html.escape(str(entry["text"])), html.escape(str(entry["reviewer"]))
    return f"<blockquote>{text} <b>{reviewer}</b>{stars}</blockquote>"


def productpage(path: str, headers: Mapping[str, str]) -> tuple[int, object]:
    path = path.partition("?")[0]
    if path == "/":
        return 200, "<!doctype html><p>Bookinfo. See <a href=/productpage>the product page</a>."
    status, content = product(headers) if path in ("/productpage", "/api/v1/products/0") else (404, {})
    if status == 404 and not content:
        return 404, {"error": f"nothing at {path}; try /productpage"}
    return (200, page(content)) if path == "/productpage" else (status, content)


serve(productpage)
