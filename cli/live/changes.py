"""When the mesh took over what was changed: from the moments at which proxies say that they did. Pure.

A proxy tells of each type of resource since when it runs what it runs. Moments that are close together are one change;
earlier ones are remembered here, since proxies tell of the last one only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cli.output import moment

SAME_CHANGE_SECONDS = 1.0
MOST = 8
"""Changes that are remembered."""

Taken = tuple[float, str, str]
"""When (seconds since 1970), the proxy's `namespace/pod`, and the type of resource."""


@dataclass(frozen=True, slots=True)
class Change:
    """`seconds` from the first proxy that took it over to the last one."""

    at: float
    seconds: float
    proxies: int
    types: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "at": self.at,
            "seconds": round(self.seconds, 3),
            "proxies": self.proxies,
            "types": list(self.types),
        }


def taken(proxies: Iterable[Mapping[str, Any]]) -> frozenset[Taken]:
    """What the proxies of discovery's status say."""
    return frozenset(
        (then.timestamp(), f"{proxy['namespace']}/{proxy['pod']}", kind)
        for proxy in proxies
        for kind, state in proxy["types"].items()
        if (then := _moment(state.get("since") or "")) is not None
    )


def changes(moments: Iterable[Taken]) -> list[Change]:
    """The last ones, the newest first."""
    groups: list[list[Taken]] = []
    for each in sorted(moments):
        if groups and each[0] - groups[-1][-1][0] <= SAME_CHANGE_SECONDS:
            groups[-1].append(each)
        else:
            groups.append([each])
    return [_change(group) for group in reversed(groups[-MOST:])]


def remembered(moments: Iterable[Taken]) -> frozenset[Taken]:
    """Those of them that `changes` shows."""
    moments = list(moments)
    shown = changes(moments)
    return frozenset(each for each in moments if shown and each[0] >= shown[-1].at)


def _change(group: Sequence[Taken]) -> Change:
    return Change(
        at=group[0][0],
        seconds=group[-1][0] - group[0][0],
        proxies=len({proxy for _, proxy, _ in group}),
        types=tuple(sorted({kind for _, _, kind in group})),
    )


def _moment(text: str) -> datetime | None:
    try:
        return moment(text)
    except ValueError:
        return None
