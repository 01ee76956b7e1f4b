"""A mesh on a cluster, asked through its API server with the user's own rights (docs/adr/0155-status-by-exec.md).

Each ready replica of discovery is asked in its own pod, and their answers are made one: a proxy is connected to one of
them, and to the others it is missing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import orjson

from ca.ask import REFUSED as CA_REFUSED
from cli.control_namespace import control_namespace
from cli.mesh_access import answered
from kube.client import Client, Refused
from kube.exec import Ran, run
from kube.source import list_path
from mesh.errors import HeddleError, MissingPrerequisite, Unavailable
from mesh.objects import SIDECAR_STATUS_ANNOTATION, Key

COMPONENTS = ("ca", "discovery", "webhook")
DISCOVERY_CONTAINER = "discovery"
CA_CONTAINER = "ca"
RIGHTS = "it takes the verb list on pods, and get and create on pods/exec"
ASK = ("python", "-m", "discovery.ask", "/v1/status")
SECONDS = 30.0
BETWEEN_SECONDS = 0.5
AT_ONCE = 8

Json = Mapping[str, Any]


class ClusterMesh:
    """One mesh on one cluster. Every method raises a HeddleError that names the way out."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @cached_property
    def home(self) -> str:
        """The control plane's namespace."""
        return control_namespace(self._client)

    def status(self, wait_seconds: float = 0) -> dict[str, Any]:
        """All replicas' status as one; asked again until it is ready or `wait_seconds` have passed."""
        ends = time.monotonic() + wait_seconds
        while not (status := self._status())["ready"] and time.monotonic() < ends:
            time.sleep(min(BETWEEN_SECONDS, max(0.0, ends - time.monotonic())))
        return status

    def pods(self, namespace: str = "") -> list[Key]:
        """The pods that have a sidecar, of one namespace or of all."""
        return [_key(raw) for raw in self._list(namespace) if _has_sidecar(raw)]

    def run(self, pod: Key, container: str, argv: Sequence[str]) -> str:
        """The standard output of a command in the pod; Unavailable with its words when it fails."""
        ran = run(self._client, pod, container, argv, SECONDS)
        if ran.code:
            raise Unavailable(f"{argv[0]} in {pod} failed: {_said(ran)}")
        return ran.out.decode(errors="replace")

    def ca_pods(self) -> list[Key]:
        """The replicas of the ca that are ready; Unavailable when none is."""
        pods = self._list(self.home, "app=heddle-ca,app.kubernetes.io/part-of=heddle")
        ready = [_key(raw) for raw in pods if not _ends(raw) and _ready(raw)]
        if not ready:
            hint = "`heddle doctor` says more"
            raise Unavailable(f"no replica of the ca is ready on {self._client.address}", hint=hint)
        return ready

    def ask_ca(self, replica: Key, method: str, path: str, body: object = None) -> Any:
        """The JSON answer of this replica, asked in its own pod; an error that it answers is raised as Answered."""
        argv = ["python", "-m", "ca.ask", method, path, *([] if body is None else [orjson.dumps(body).decode()])]
        ran = run(self._client, replica, CA_CONTAINER, argv, SECONDS)
        if ran.code not in (0, CA_REFUSED):
            raise Unavailable(f"the ca in {replica} cannot be asked: {_said(ran)}")
        try:
            answer = orjson.loads(ran.out)
        except ValueError:
            raise Unavailable(f"the ca in {replica} answered no JSON: {ran.out[:200]!r}") from None
        if ran.code == CA_REFUSED:
            raise answered(answer["status"], answer)
        return answer

    def _status(self) -> dict[str, Any]:
        pods = [raw for raw in self._list(self.home, "app.kubernetes.io/part-of=heddle") if not _ends(raw)]
        replicas = [_key(raw) for raw in pods if _app(raw) == "heddle-discovery" and _ready(raw)]
        if not pods:
            raise MissingPrerequisite(
                f"no control plane runs in {self.home} of the cluster at {self._client.address}",
                hint="install it with `heddle install`, or name another cluster (--kubeconfig) or namespace (-i)",
            )
        if not replicas:
            hint = "`heddle doctor` says more"
            failure = Unavailable(f"no replica of discovery is ready on {self._client.address}", hint=hint)
            return united({}, {"discovery": failure}) | {"components": components(pods)}
        answers: dict[str, Json] = {}
        failures: dict[str, HeddleError] = {}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for replica, answer in zip(replicas, pool.map(self._ask, replicas), strict=True):
                if isinstance(answer, HeddleError):
                    failures[replica.name] = answer
                else:
                    answers[replica.name] = answer
        return united(answers, failures) | {"components": components(pods)}

    def _ask(self, replica: Key) -> Json | HeddleError:
        try:
            ran = run(
                self._client, replica, DISCOVERY_CONTAINER, ["python", "-m", "discovery.ask", "/v1/status"], SECONDS
            )
            if ran.code:
                return Unavailable(_said(ran))
            answer: Json = orjson.loads(ran.out)
            return answer
        except HeddleError as error:
            return error
        except ValueError:
            return Unavailable("its answer is no JSON")

    def _list(self, namespace: str, labels: str = "") -> list[dict[str, Any]]:
        query = {"labelSelector": labels} if labels else None
        try:
            pages = self._client.list(list_path("", "v1", "pods", namespace), query)
            return [raw for page in pages for raw in page.items]
        except Refused as error:
            if error.status != 403:
                raise
            where = f"of namespace {namespace}" if namespace else "of all namespaces"
            hint = f"{RIGHTS} there" if namespace else "name a namespace with -n"
            raise Refused(403, f"you may not list the pods {where}", hint=hint) from None


def united(answers: Mapping[str, Json], failures: Mapping[str, HeddleError]) -> dict[str, Any]:
    """One status from the replicas' (by name), in the form of each, with `replica` in each proxy.

    A proxy counts where it is connected, else where it was seen last. Ready: no replica fails to answer, and every
    proxy has applied what is current.
    """
    best: dict[tuple[str, str, str], dict[str, Any]] = {}
    for replica, answer in answers.items():
        for proxy in answer["proxies"]:
            key = (proxy["namespace"], proxy["pod"], proxy["kind"])
            told = {**proxy, "replica": replica if proxy["connected"] or proxy["lastSeen"] else ""}
            if key not in best or _standing(told) > _standing(best[key]):
                best[key] = told
    proxies = [best[key] for key in sorted(best)]
    problems = [_problem(replica, error) for replica, error in sorted(failures.items())]
    problems += _distinct(problem for answer in answers.values() for problem in answer["problems"])
    return {
        "ready": bool(answers) and not failures and all(proxy["upToDate"] for proxy in proxies),
        "observed": min((answer["observed"] for answer in answers.values()), default=0),
        "proxies": proxies,
        "problems": problems,
    }


def _standing(proxy: Json) -> tuple[bool, str]:
    return proxy["connected"], proxy["lastSeen"]


def _problem(replica: str, error: HeddleError) -> dict[str, Any]:
    return {"object": replica, "field": "", "message": error.message, "hint": error.hint or ""}


def _distinct(problems: Iterable[Json]) -> list[dict[str, Any]]:
    """Each problem once: all replicas see the same objects."""
    found = {orjson.dumps(problem, option=orjson.OPT_SORT_KEYS): dict(problem) for problem in problems}
    return list(found.values())


def components(pods: Iterable[Json]) -> dict[str, str]:
    """Of ca, discovery and webhook: `running`, or what is left of it."""
    by_app: dict[str, list[bool]] = {f"heddle-{name}": [] for name in COMPONENTS}
    for raw in pods:
        if (app := _app(raw)) in by_app:
            by_app[app].append(_ready(raw))
    return {app.removeprefix("heddle-"): _standing_of(ready) for app, ready in by_app.items()}


def _standing_of(ready: Sequence[bool]) -> str:
    if not ready:
        return "gone: it has no pod"
    return "running" if all(ready) else f"in part there: {sum(ready)} of {len(ready)} pods are ready"


def _key(raw: Json) -> Key:
    return Key(raw["metadata"]["namespace"], raw["metadata"]["name"])


def _app(raw: Json) -> str:
    return str((raw["metadata"].get("labels") or {}).get("app", ""))


def _ends(raw: Json) -> bool:
    return bool(raw["metadata"].get("deletionTimestamp")) or raw["status"].get("phase") in ("Succeeded", "Failed")


def _ready(raw: Json) -> bool:
    conditions = raw["status"].get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _has_sidecar(raw: Json) -> bool:
    return SIDECAR_STATUS_ANNOTATION in (raw["metadata"].get("annotations") or {})


def _said(ran: Ran) -> str:
    return (ran.err or ran.out.decode(errors="replace")).strip()[-500:] or f"it ended with {ran.code}"
