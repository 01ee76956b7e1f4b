"""A Prometheus of its own for a moment: `scraper.py '{"config": {...}, "queries": {name: PromQL}}'`.

`config` is Prometheus' own. A first line says `scraped` as soon as every target was; the second is JSON: `answers`, by
query, as soon as each has one that is a number, or what there is after a while; `rules`, the health of each rule, with
the error of one that has one; `firing`, the alerts that do.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ADDRESS = "127.0.0.1:9390"
SECONDS = 90.0


def config_of(targets: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Addresses and paths, asked each second."""
    jobs = [
        {"job_name": address, "metrics_path": path, "static_configs": [{"targets": [address]}]}
        for address, path in targets
    ]
    return {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}


def main() -> None:
    order = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "prometheus.yml").write_text(json.dumps(order["config"]))
        command = ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data"]
        with (Path(directory) / "log").open("wb") as log:
            process = subprocess.Popen([*command, f"--web.listen-address={ADDRESS}"], stdout=log, stderr=log)
        try:
            until(up, bool)
            print("scraped", flush=True)
            answers = answers_to(order["queries"])
            rules = until(lambda: read("rules", "groups"), judged)
            print(json.dumps({"answers": answers, **verdicts(rules)}))
        finally:
            process.kill()
            process.wait()


def until(look: Any, enough: Any) -> Any:
    """What `look` sees when it is `enough`, or when the time is over."""
    end = time.monotonic() + SECONDS
    while True:
        found = look()
        if enough(found) or time.monotonic() > end:
            return found
        time.sleep(0.3)


def up() -> bool:
    targets = read("targets?state=active", "activeTargets")
    return bool(targets) and all(target["health"] != "unknown" for target in targets)


def answers_to(queries: dict[str, str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {name: [] for name in queries}

    def further() -> dict[str, list[Any]]:
        for name, query in queries.items():
            found[name] = found[name] or answer(query)
        return found

    answers: dict[str, list[Any]] = until(further, lambda answers: all(answers.values()))
    return answers


def judged(groups: list[Any]) -> bool:
    return all(rule["health"] != "unknown" for group in groups for rule in group["rules"])


def verdicts(groups: list[Any]) -> dict[str, Any]:
    rules = [rule for group in groups for rule in group["rules"]]
    health = {rule["name"]: rule.get("lastError") or rule["health"] for rule in rules}
    return {"rules": health, "firing": [rule["name"] for rule in rules if rule.get("state") == "firing"]}


def answer(query: str) -> list[Any]:
    """Series with a value: a quantile of nothing is NaN."""
    found = read(f"query?{urllib.parse.urlencode({'query': query})}", "result")
    return [each for each in found if each["value"][1] != "NaN"]


def read(path: str, field: str) -> list[Any]:
    try:
        with urllib.request.urlopen(f"http://{ADDRESS}/api/v1/{path}", timeout=60) as response:
            found: list[Any] = json.load(response)["data"][field]
            return found
    except (OSError, urllib.error.URLError):
        return []


if __name__ == "__main__":
    main()
