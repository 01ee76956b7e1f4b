"""Differences for people, and for programs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cli.explaining.view import origin_json, origin_text
from discovery.compare.model import Change, Difference
from mesh.objects import Key

MOST_NAMES = 3


def text(found: Sequence[Difference], proxies: Sequence[Key], notices: Iterable[str] = ()) -> str:
    """One block for each set of proxies. `proxies`: all that there are."""
    lines = [f"note: {notice}" for notice in notices]
    for difference in found:
        lines += ["", *_block(difference, proxies)] if lines else _block(difference, proxies)
    if not found:
        return "\n".join([*lines, f"no proxy of {len(proxies)} would be configured otherwise"])
    touched = {key for difference in found for key in difference.proxies}
    return "\n".join([*lines, "", f"{len(touched)} of {len(proxies)} proxies would be configured otherwise"])


def as_json(found: Sequence[Difference], proxies: Sequence[Key], notices: Iterable[str] = ()) -> dict[str, Any]:
    """The same, in full."""
    return {
        "differs": bool(found),
        "proxies": len(proxies),
        "differences": [
            {
                "proxies": [str(key) for key in difference.proxies],
                "changes": [_change_json(change) for change in difference.changes],
            }
            for difference in found
        ],
        "notices": list(notices),
    }


def _block(difference: Difference, proxies: Sequence[Key]) -> list[str]:
    who = _who(difference.proxies, proxies)
    changes = [_change(change) for change in difference.changes]
    return [f"{who}: {changes[0]}"] if len(changes) == 1 else [f"{who}:", *(f"  {change}" for change in changes)]


def _who(touched: Sequence[Key], proxies: Sequence[Key]) -> str:
    if len(touched) == 1:
        return f"1 proxy ({touched[0]})"
    count = f"{len(touched)} proxies"
    if len(touched) == len(proxies):
        return f"all {count}"
    namespaces = {key.namespace for key in touched}
    if len(namespaces) == 1 and len(touched) == sum(key.namespace in namespaces for key in proxies):
        return f"{count} (all of namespace {next(iter(namespaces))})"
    names = ", ".join(map(str, touched[:MOST_NAMES]))
    more = f" and {len(touched) - MOST_NAMES} more" if len(touched) > MOST_NAMES else ""
    return f"{count} ({names}{more})"


def _change(change: Change) -> str:
    words = " ".join(word for word in (change.part, change.name, change.what) if word)
    by = ", ".join(origin_text(origin) for origin in change.origins)
    because = f"  ({by})" if by else ""
    if change.before and change.after:
        return f"{words} {change.before} -> {change.after}{because}"
    sign, value = ("+", change.after) if change.after else ("-", change.before)
    detail = f": {value}" if value not in ("is there", "") else ""
    return f"{sign} {words}{detail}{because}"


def _change_json(change: Change) -> dict[str, Any]:
    return {
        "part": change.part,
        "name": change.name,
        "what": change.what,
        "before": change.before,
        "after": change.after,
        "origins": [origin_json(origin) for origin in change.origins],
    }
