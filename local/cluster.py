"""What a cluster's controllers do for every namespace, service and workload: the shell round workloads and endpoints.

One thread looks at the store after each change, does what is missing, and looks again until nothing is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Protocol

import structlog

from local.endpoints import endpoint_slices, with_cluster_ip
from local.store import Raw, Store, key_of
from local.workloads import Action, Create, Remove, SetStatus, reconcile
from mesh.errors import HeddleError
from mesh.objects import Key

ROOT_CERTIFICATE_MAP = "istio-ca-root-cert"
RETRY_SECONDS = 1.0
log = structlog.get_logger("heddle.local")


class PodRunner(Protocol):
    """What runs pods (local.kubelet.Kubelet)."""

    def run(self, pod: Raw) -> None: ...
    def stop(self, namespace: str, name: str) -> Future[None]: ...
    def refresh_volumes(self) -> None: ...


class Controllers:
    """`admit` is the API server's admission of a pod, `set_services` kube-proxy, `suffix` random letters for names."""

    def __init__(
        self,
        store: Store,
        *,
        admit: Callable[[Raw], Raw],
        runner: PodRunner,
        set_services: Callable[[Iterable[Raw], Iterable[Raw]], None],
        root_certificate: Callable[[], str],
        suffix: Callable[[], str],
        now: Callable[[], str],
    ) -> None:
        self._store, self._admit, self._runner, self._set_services = store, admit, runner, set_services
        self._root_certificate, self._suffix, self._now = root_certificate, suffix, now
        self._wake = threading.Event()
        self._stopping = False
        self._leaving: set[Key] = set()
        self.problems: dict[str, str] = {}
        """What could not be done at the last look, by the object it is about."""

    def start(self) -> None:
        threading.Thread(target=self._run, name="controllers", daemon=True).start()

    def stop(self) -> None:
        self._stopping = True

    def _run(self) -> None:
        seen, volumes = 0, -1
        while not self._stopping:
            try:
                again = self._look()
                volumes = self._refresh_volumes(volumes)
            except Exception:  # a bug met on one object must not end the controllers
                log.exception("controllers failed, will look again")
                again = True
            if again:
                time.sleep(RETRY_SECONDS)
            else:
                seen = self._store.wait_newer(seen, RETRY_SECONDS)

    def _look(self) -> bool:
        """Do what is missing now; whether something failed and must be tried again."""
        self.problems = {}
        self._namespaces()
        self._addresses()
        actions = self._workload_actions()
        for action in actions:
            self._carry_out(action)
        self._slices()
        self._set_services(self._store.items("Service"), self._store.items("EndpointSlice"))
        return bool(self.problems)

    def _workload_actions(self) -> list[Action]:
        items = self._store.items
        return reconcile(items("Deployment"), items("ReplicaSet"), items("Job"), items("Pod"), self._suffix)

    def _carry_out(self, action: Action) -> None:
        match action:
            case Create(raw) if raw["kind"] == "Pod":
                self.create_pod(raw)
            case Create(raw):
                self._store.put(raw)
            case Remove("Pod", key):
                self.remove_pod(key)
            case Remove(kind, key):
                self._store.delete(kind, key)
            case SetStatus(kind, key, status):
                self._store.update(kind, key, lambda raw: {**raw, "status": status})

    def create_pod(self, pod: Raw) -> None:
        """Admit, store and run a pod; what the webhook refuses is kept in `problems` and tried again."""
        meta, spec = pod["metadata"], pod["spec"]
        spec = {"restartPolicy": "Always", "serviceAccountName": "default", "nodeName": "local", **spec}
        try:
            admitted = self._admit({**pod, "metadata": meta, "spec": spec})
        except HeddleError as error:
            self.problems[f"Pod {key_of(pod)}"] = str(error)
            return
        stored = self._store.put({**admitted, "status": {"phase": "Pending"}})
        try:
            self._runner.run(stored)
        except HeddleError as error:
            self.problems[f"Pod {key_of(pod)}"] = str(error)
            status = {"phase": "Failed", "reason": "CannotRun", "message": str(error)}
            self._store.update("Pod", key_of(pod), lambda raw: {**raw, "status": status})

    def remove_pod(self, key: Key) -> None:
        """Mark the pod as leaving (its endpoints go first), end it with its grace period, then forget it."""
        if key in self._leaving:
            return
        self._leaving.add(key)
        leaving = {"deletionTimestamp": self._now()}
        self._store.update("Pod", key, lambda raw: {**raw, "metadata": {**raw["metadata"], **leaving}})
        threading.Thread(target=self._end_pod, args=(key,), name=f"end-{key}", daemon=True).start()

    def _end_pod(self, key: Key) -> None:
        try:
            self._runner.stop(key.namespace, key.name).result()
        except HeddleError as error:
            log.warning("pod did not end properly", pod=str(key), error=str(error))
        finally:
            self._store.delete("Pod", key)
            self._leaving.discard(key)

    def _namespaces(self) -> None:
        certificate = self._root_certificate()
        for namespace in self._store.items("Namespace"):
            name = namespace["metadata"]["name"]
            account = Key(name, "default")
            if self._store.get("ServiceAccount", account) is None:
                meta = {"namespace": name, "name": "default"}
                self._store.put({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
            self._store.put(
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {
                        "namespace": name,
                        "name": ROOT_CERTIFICATE_MAP,
                        "labels": {"istio.io/config": "true"},
                    },
                    "data": {"root-cert.pem": certificate},
                }
            )

    def _addresses(self) -> None:
        services = self._store.items("Service")
        taken = {ip: key_of(s) for s in services if (ip := s["spec"].get("clusterIP")) not in (None, "None")}
        for service in services:
            try:
                complete = with_cluster_ip(service, taken)
            except HeddleError as error:
                self.problems[f"Service {key_of(service)}"] = str(error)
                continue
            if complete is not service:
                stored = self._store.put(complete)
                taken[stored["spec"]["clusterIP"]] = key_of(stored)

    def _slices(self) -> None:
        wanted = {key_of(raw): raw for raw in endpoint_slices(self._store.items("Service"), self._store.items("Pod"))}
        for raw in self._store.items("EndpointSlice"):
            managed = raw["metadata"].get("labels", {}).get("endpointslice.kubernetes.io/managed-by") == "heddle"
            if managed and key_of(raw) not in wanted:
                self._store.delete("EndpointSlice", key_of(raw))
        for raw in wanted.values():
            self._store.put(raw)

    def _refresh_volumes(self, seen: int) -> int:
        """Tell running pods when a ConfigMap or Secret changed."""
        newest = max(
            (
                int(raw["metadata"]["resourceVersion"])
                for kind in ("ConfigMap", "Secret")
                for raw in self._store.items(kind)
            ),
            default=0,
        )
        if newest != seen:
            self._runner.refresh_volumes()
        return newest
