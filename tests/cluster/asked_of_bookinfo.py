"""What the commands that only look say of bookinfo as it runs on a cluster, beside what its proxies do."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local.linux import die_with_parent
from tests.cluster.cluster import Cluster
from tests.cluster.installing import heddle
from tests.cluster.rollouts import APP
from tests.support.waiting import wait_for

HEDDLE = str(Path(sys.executable).with_name("heddle"))
REQUESTS: tuple[dict[str, Any], ...] = (
    {"to": "reviews:9080/reviews/0"},
    {"to": "reviews:9080/reviews/0", "headers": {"end-user": "jason"}},
    {"to": "details.bookinfo.svc.cluster.local:9080/details/0"},
    {"to": "details:9080/details/0", "headers": {"host": "nobody.example"}},
    {"to": "details:9081/details/0"},
)
"""Of a pod of the mesh: by route, by header, with a full name, to a host and to a port that the mesh does not know."""
_ASK = """
import json, sys, urllib.request, urllib.error
answers = []
for order in json.loads(sys.argv[1]):
    request = urllib.request.Request("http://" + order["to"], headers=order.get("headers", {}))
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            answers.append({"status": answer.status, "pod": json.load(answer).get("podname", "")})
    except urllib.error.HTTPError as error:
        answers.append({"status": error.code})
    except OSError as error:
        answers.append({"error": str(error)})
print(json.dumps(answers))
"""


def answers_as_explained(cluster: Cluster, pod: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each of `REQUESTS` as it was answered, and as it is explained; the two agree."""
    said = cluster.execute(APP, pod, "python3", "-c", _ASK, json.dumps(REQUESTS), container="productpage")
    found = []
    for request, answer in zip(REQUESTS, json.loads(said), strict=True):
        (branch,) = explained(cluster, f"{APP}/{pod}", request["to"], **request.get("headers", {}))["branches"]
        assert agree(branch, answer), f"{request}\nanswered {answer}\nexplained as {branch}"
        found.append((answer, branch))
    return found


def explained(cluster: Cluster, source: str, target: str, **headers: str) -> dict[str, Any]:
    authority = headers.pop("host", "")
    more = [f"--host={authority}"] if authority else []
    more += [f"--header={name}: {value}" for name, value in headers.items()]
    done = heddle(cluster, "explain", source, target, *more, "-o", "json")
    assert done.code in (0, 3), done.err
    told: dict[str, Any] = json.loads(done.out)
    return told


def agree(branch: dict[str, Any], answer: dict[str, Any]) -> bool:
    """Whether what came back is what the one branch of an explanation says."""
    outcome = branch["outcome"]
    if outcome["result"] == "served":
        by = answer.get("pod", "")
        return answer.get("status") == 200 and (not by or f"{APP}/{by}" in branch["workloads"])
    return answer.get("status") == outcome["status"] if outcome["status"] else "error" in answer


def told(cluster: Cluster, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of a command."""
    done = heddle(cluster, *words, "-o", "json")
    assert done.out, done.err
    assert "Traceback" not in done.err
    return done.code, json.loads(done.out)


@contextmanager
def dashboard(cluster: Cluster) -> Iterator[str]:
    """The address of a `heddle dashboard` that runs."""
    command = [HEDDLE, "dashboard", "--port=0", f"--kubeconfig={cluster.kubeconfig}"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[0]
    finally:
        process.terminate()
        process.communicate(timeout=60)


def picture_with(url: str, source: str, destination: str) -> dict[str, Any]:
    """The edge between the two, once the page's picture has its rate."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        with urllib.request.urlopen(f"{url.rstrip('/')}/v1/picture", timeout=60) as answer:
            edges = json.load(answer).get("edges", ())
        ends = (f"{APP}/{source}", f"{APP}/{destination}")
        found[:] = [each for each in edges if (each["source"], each["destination"]) == ends]
        return bool(found and found[0]["requestsPerSecond"])

    wait_for(there)
    return found[0]
