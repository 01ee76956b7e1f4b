"""Where each workload is drawn: callers left, called ones right of them. Pure, and the same for the same graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

MOST_ROWS = 14
"""Of a column; what has more goes into several."""

Place = tuple[int, int]
"""Column and row."""


def places(names: Iterable[str], edges: Iterable[tuple[str, str]]) -> dict[str, Place]:
    """The place of each name, no two the same; names without an edge come last. Edges of unknown names are left out."""
    known = sorted(set(names))
    callees: dict[str, list[str]] = {name: [] for name in known}
    callers: dict[str, list[str]] = {name: [] for name in known}
    for source, destination in sorted(set(edges)):
        if source in callees and destination in callees and source != destination:
            callees[source].append(destination)
            callers[destination].append(source)
    joined = [name for name in known if callees[name] or callers[name]]
    layers = _layers(joined, callees, callers)
    layers.append([name for name in known if not callees[name] and not callers[name]])
    return _in_columns(layers, callers)


def _layers(
    names: Sequence[str], callees: Mapping[str, Sequence[str]], callers: Mapping[str, Sequence[str]]
) -> list[list[str]]:
    """By the fewest steps from one whom nobody calls; in a ring without such, from its first name."""
    layers: list[list[str]] = []
    left = set(names)
    entry = [name for name in names if not callers[name]]
    while left:
        layer = entry or [min(left)]
        left.difference_update(layer)
        depth = 0
        while layer:
            if depth == len(layers):
                layers.append([])
            layers[depth] += layer
            layer = sorted({name for each in layer for name in callees[each]} & left)
            left.difference_update(layer)
            depth += 1
        entry = []
    return layers


def _in_columns(layers: Sequence[Sequence[str]], callers: Mapping[str, Sequence[str]]) -> dict[str, Place]:
    """Each layer's names beside those who call them, which crosses few lines."""
    found: dict[str, Place] = {}
    column = 0
    for layer in layers:
        ordered = sorted(layer, key=lambda name: (_middle([found[c][1] for c in callers[name] if c in found]), name))
        for at, name in enumerate(ordered):
            found[name] = (column + at // MOST_ROWS, at % MOST_ROWS)
        column += -(-len(ordered) // MOST_ROWS)
    return found


def _middle(rows: Sequence[int]) -> float:
    return sum(rows) / len(rows) if rows else 0.0
