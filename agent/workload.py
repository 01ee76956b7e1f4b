"""What metrics call this pod: from its labels, which the downward API writes into a file."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from agent.settings import Settings
from mesh.workloads import Workload, workload_of

log = logging.getLogger("agent.workload")


def own_workload(settings: Settings) -> Workload:
    """Without the file, of a pod without labels."""
    try:
        text = Path(settings.labels_file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        log.warning("metrics do not know this pod's labels: %s", error)
        text = ""
    return workload_of(settings.workload_name, settings.pod_namespace, read_labels(text))


def read_labels(text: str) -> dict[str, str]:
    """The labels in lines `key="value"`; what is no such line is left out.

    Source: https://kubernetes.io/docs/tasks/inject-data-application/downward-api-volume-expose-pod-information/
    """
    labels: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, quoted = line.partition("=")
        try:
            value = json.loads(quoted) if equals else None
        except ValueError:
            continue
        if isinstance(value, str):
            labels[key] = value
    return labels
