"""Both fuzz targets for a minute each, side by side, with what processor time nobody else wants.

For an hour: `python -m tests.fuzz.csr -max_total_time=3600 -max_len=8192 CORPUS`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from local.linux import die_with_parent

ROOT = Path(__file__).parents[2]
TARGETS = ("csr", "bearer")
SECONDS = 60
AT_MOST = 600  # to start and to end, too, by processor time that nobody else wants

pytestmark = pytest.mark.timeout(SECONDS + AT_MOST)


def _at_leisure() -> None:
    die_with_parent()
    os.nice(19)


def test_nothing_is_found(fuzzer: None, tmp_path: Path) -> None:
    started = {}
    for target in TARGETS:
        command = [sys.executable, "-m", f"tests.fuzz.{target}", f"-max_total_time={SECONDS}", "-max_len=8192"]
        command += ["-timeout=120", f"-artifact_prefix={tmp_path}/{target}-", str(tmp_path / f"corpus-{target}")]
        with (tmp_path / f"{target}.log").open("wb") as log:
            started[target] = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, preexec_fn=_at_leisure)
    codes = {target: process.wait(AT_MOST) for target, process in started.items()}
    for target, code in codes.items():
        log_text = (tmp_path / f"{target}.log").read_text(errors="replace")
        assert code == 0, f"{target}: {log_text[-4000:]}\nThe input is kept in {tmp_path}"
        done = re.search(r"Done (\d+) runs", log_text)
        assert done is not None, log_text[-1000:]
        assert int(done[1]) > 100
