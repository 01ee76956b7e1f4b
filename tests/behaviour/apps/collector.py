"""A collector of spans: OTLP by gRPC on 4317, Zipkin's JSON and OTLP by HTTP on 9411, into the file SPANS."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.support.collector import main

main(4317, 9411, Path(os.environ["SPANS"]))
