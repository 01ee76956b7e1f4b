"""Prometheus' annotations of a pod, pointed at the agent, which serves the app's metrics with Envoy's. Pure.

Source: Istio's "Integrations: Prometheus", option metrics merging. As in Prometheus' own discovery, any character that
a label may not have stands for an underscore: `prometheus.io/port` and `prometheus-io/port` are the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

METRICS_PATH = "/stats/prometheus"
_WORDS = {f"prometheus_io_{word}": word for word in ("scrape", "port", "path", "scheme")}
_NOT_IN_LABELS = re.compile(r"[^a-zA-Z0-9_]")
_NO = ("false", "0", "f")


class Scrape(NamedTuple):
    """The pod's annotations with Prometheus sent to the agent; `app` tells the agent what to add, empty for nothing."""

    annotations: dict[str, str]
    app: str


def merged(annotations: Mapping[str, str], agent_port: int, *, merge: bool) -> Scrape:
    """A pod that says `prometheus.io/scrape: "false"`, or whose metrics cannot or must not be merged, is left."""
    names = {name: word for name in annotations if (word := _word(name))}
    asked = {word: annotations[name].strip() for name, word in names.items()}
    port = asked.get("port", "80")
    if not merge or asked.get("scrape", "").lower() in _NO or not is_port(port) or int(port) == agent_port:
        return Scrape(dict(annotations), "")
    kept = {name: text for name, text in annotations.items() if name not in names}
    kept |= {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(agent_port),
        "prometheus.io/path": METRICS_PATH,
    }
    return Scrape(kept, json.dumps(asked, separators=(",", ":"), sort_keys=True) if asked else "")


def unreadable_port(annotations: Mapping[str, str]) -> str:
    """The annotation with a port that is none, and its value; empty when all is well."""
    for name, text in annotations.items():
        if _word(name) == "port" and not is_port(text.strip()):
            return f"annotation {name}: {text!r} is not a port; the app's metrics are not added to the proxy's"
    return ""


def is_port(text: str) -> bool:
    """Whether Prometheus could scrape this port."""
    return text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536


def _word(name: str) -> str:
    return _WORDS.get(_NOT_IN_LABELS.sub("_", name), "") if name.startswith("prometheus") else ""
