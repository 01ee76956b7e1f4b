"""Istio's metrics as dashboards know them, from what Envoy says of them (mesh/reported.py)."""

from __future__ import annotations

import re
from collections.abc import Callable

from mesh.reported import FIELD, GRPC_STATUS, PREFIX, REPORTER, SERVICE, SERVICE_LABELS, TAG, WITHOUT
from mesh.workloads import LABELS, SEPARATOR, Workload

UNKNOWN = "unknown"

_SIDES = ("source", "destination")
_BEGIN, _TYPE = PREFIX.encode(), f"# TYPE {PREFIX}".encode()
_SERIES = re.compile(rb'envoy_(\w+)\{%s="((?:[^"\\]|\\.)*)"(.*)\} (.*)\n' % TAG.encode())
"""Name, packed labels, the rest of the labels (a bucket's bound), value."""
_MOST_KNOWN = 256


class IstioMetrics:
    """Rewrites lines of Envoy's exposition; `own` is the proxy's own workload.

    Envoy calls the metrics `envoy_istio_...`, and gives their labels packed. Series that differ in labels only that the
    mesh does without (`-=`) become one, the sum, which is given when their metric ends.
    """

    def __init__(self, own: Workload) -> None:
        self._own = own
        self._known: dict[bytes, tuple[bytes, bool]] = {}

    def rewriter(self) -> Callable[[bytes], bytes]:
        """For the lines of one exposition, the last of them `b""`."""
        sums: dict[bytes, float] = {}

        def rewrite(line: bytes) -> bytes:
            if line.startswith(_BEGIN):
                found = _SERIES.fullmatch(line)
                if found is None:
                    return line
                name, packed, more, value = found.groups()
                labels, summed = self._labels(packed)
                series = b"%s{%s%s} " % (name, labels, more)
                if summed:
                    sums[series] = sums.get(series, 0.0) + float(value)
                    return b""
                return series + value + b"\n"
            if line.startswith(b"#") or not line:
                whole = b"".join(series + b"%.17g\n" % value for series, value in sums.items())
                sums.clear()
                line = line.replace(_TYPE, b"# TYPE istio_")
                return whole + line
            return line

        return rewrite

    def _labels(self, packed: bytes) -> tuple[bytes, bool]:
        """The labels of a series as text, and whether there may be others with the same ones."""
        known = self._known.get(packed)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = self._known[packed] = _unpacked(packed.decode(errors="replace"), self._own)
        return known


def _unpacked(packed: str, own: Workload) -> tuple[bytes, bool]:
    fields = dict(field.partition("=")[::2] for field in packed.split(FIELD))
    without = fields.pop(WITHOUT, "")
    here, there = _SIDES if fields.get(REPORTER) == _SIDES[0] else _SIDES[::-1]
    labels = {REPORTER: fields.pop(REPORTER, "")}
    for side, workload in ((here, own.packed), (there, fields.pop(there, ""))):
        parts = workload.split(SEPARATOR)
        if len(parts) != len(LABELS):  # nobody said, or not what a sidecar says
            parts = [""] * len(LABELS)
        labels |= {f"{side}_{label}": part or UNKNOWN for label, part in zip(LABELS, parts, strict=True)}
    service = fields.pop(SERVICE, "").split(SEPARATOR)
    if len(service) != len(SERVICE_LABELS):
        service = [""] * len(SERVICE_LABELS)
    labels |= {label: part or UNKNOWN for label, part in zip(SERVICE_LABELS, service, strict=True)}
    labels["request_protocol"] = "grpc" if fields.get(GRPC_STATUS) else "http"
    for name, value in fields.items():
        labels[name] = value or (UNKNOWN if name.endswith("_principal") else "")
    for name in without.split(","):
        labels.pop(name, None)
    return ",".join(f'{name}="{value}"' for name, value in labels.items()).encode(), bool(without)
