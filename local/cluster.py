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

from local.endpoints import DNS_ADDRESS, endpoint_slices, with_cluster_ip
from local.store import Raw, Store, key_of
from local.workloads import Action, Create, Remove, SetStatus, reconcile
from mesh.errors import HeddleError, NotFound
from mesh.objects import Key

ROOT_CERTIFICATE_MAP = "istio-ca-root-cert"
RETRY_SECONDS = 1.0
LONGEST_NAP = 0.1  # a pod of the manifests may be wanted without a change of the store
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
        self._pods: dict[Key, Raw] = {}
        self._made: dict[Key, Raw] = {}
        self._refused: dict[Key, Raw] = {}
        self._served: list[Raw] = []
        self._looked = False
        self._troubles: dict[str, str] = {}
        self.problems: dict[str, str] = {}
        """What could not be done at the last look, by the object it is about."""

    def start(self) -> None:
        threading.Thread(target=self._run, name="controllers", daemon=True).start()

    def stop(self) -> None:
        self._stopping = True

    def keep_pod(self, pod: Raw) -> None:
        """Have this pod run, whatever it takes; a pod of that name that was kept differently before is replaced."""
        self._pods[key_of(pod)] = pod
        self._wake.set()

    def release_pod(self, key: Key) -> None:
        """No longer have that pod run."""
        self._pods.pop(key, None)
        self._wake.set()

    def _run(self) -> None:
        volumes = -1
        while not self._stopping:
            self._wake.clear()
            seen = self._store.version
            troubled = self.look()
            volumes = self._refresh_volumes(volumes)
            self._sleep(seen, troubled)

    def _sleep(self, seen: int, troubled: bool) -> None:
        """Until the store changes or a pod is wanted; until it is time to try again, when something went wrong."""
        until = time.monotonic() + RETRY_SECONDS
        while not self._wake.is_set() and not self._stopping and (left := until - time.monotonic()) > 0:
            if troubled:
                self._wake.wait(left)
            elif self._store.wait_newer(seen, min(left, LONGEST_NAP)) > seen:
                return

    def look(self) -> bool:
        """Do what is missing now; whether something failed and must be tried again."""
        self._troubles = {}
        for step in (self._namespaces, self._services, self._own_pods, self._workloads, self._slices):
            self._attempt("the controllers", step)
        self.problems = self._troubles
        self._looked = True
        return bool(self.problems)

    def settled(self) -> bool:
        """Whether everything that is wanted has been made; how it runs is another matter."""
        return self._looked and not self.problems and self._pods.keys() == self._made.keys()

    def pending(self) -> list[Key]:
        """Pods of the manifests that are not yet as they are wanted: to be made, replaced or ended. Without those that
        cannot be made, which are problems."""
        wanted, made, refused = dict(self._pods), dict(self._made), self._refused
        differ = [key for key in {*wanted, *made} if wanted.get(key) != made.get(key)]
        return sorted(key for key in differ if key not in refused or refused[key] != wanted.get(key))

    def _attempt(self, about: str, step: Callable[[], None]) -> None:
        """A step that fails is kept as a problem of `about`, and keeps nothing else from being done."""
        try:
            step()
        except HeddleError as error:
            self._troubles[about] = str(error)
        except Exception as error:  # a bug met on one object must not end the controllers
            log.exception("controllers failed, will look again", about=about)
            self._troubles[about] = f"the engine failed at it: {type(error).__name__}: {error}"

    def _own_pods(self) -> None:
        """The pods of the manifests: made when they are missing, ended when they are wanted no more or otherwise."""
        wanted = dict(self._pods)
        for key, made in list(self._made.items()):
            if wanted.get(key) != made:
                self.remove_pod(key)
                del self._made[key]
        refused = {}
        for key, pod in wanted.items():
            found = self._store.get("Pod", key)
            if key not in self._made and found is not None and key not in self._leaving:
                owner = (found["metadata"].get("ownerReferences") or [{"kind": "something", "name": "else"}])[0]
                says = f"{owner['kind']} {owner['name']} has a pod of that name (rename one of them)"
                self._troubles[f"Pod {key}"] = says
                refused[key] = pod
            elif key not in self._made and found is None:
                self._attempt(f"Pod {key}", lambda pod=pod: self.create_pod(pod))  # type: ignore[misc]
                if self._store.get("Pod", key) is not None:
                    self._made[key] = pod
                else:
                    refused[key] = pod
        self._refused = refused

    def _workloads(self) -> None:
        for action in self._workload_actions():
            self._attempt(_about(action), lambda action=action: self._carry_out(action))  # type: ignore[misc]

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
        """Admit, store and run a pod. HeddleError, and no pod, when it is refused, or its service account is missing.

        A pod that was admitted and cannot run is stored as Failed, with the reason.
        """
        key, given = key_of(pod), pod["spec"]
        account = given.get("serviceAccountName") or given.get("serviceAccount") or "default"
        if account != "default" and self._store.get("ServiceAccount", Key(key.namespace, account)) is None:
            raise NotFound(
                f"there is no ServiceAccount {key.namespace}/{account}",
                field="spec.serviceAccountName",
                hint=f"add to the manifests: apiVersion: v1, kind: ServiceAccount, metadata: {{name: {account}, "
                f"namespace: {key.namespace}}}",
            )
        spec = {"restartPolicy": "Always", "nodeName": "local", **given, "serviceAccountName": account}
        admitted = self._admit({**pod, "spec": spec})
        stored = self._store.put({**admitted, "status": {"phase": "Pending"}})
        try:
            self._runner.run(stored)
        except Exception as error:
            status = {"phase": "Failed", "reason": "CannotRun", "message": str(error)}
            self._store.update("Pod", key, lambda raw: {**raw, "status": status})
            raise

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
        """What every namespace has, and nothing of that where the namespace has gone."""
        certificate = self._root_certificate()
        names = {namespace["metadata"]["name"] for namespace in self._store.items("Namespace")}
        for kind, own in (("ServiceAccount", "default"), ("ConfigMap", ROOT_CERTIFICATE_MAP)):
            for key in map(key_of, self._store.items(kind)):
                if key.name == own and key.namespace not in names:
                    self._store.delete(kind, key)
        for name in sorted(names):
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

    def _services(self) -> None:
        """An address for each service that has none. Of two that ask for the same one, the older has it."""
        services = sorted(self._store.items("Service"), key=_age)
        taken = {DNS_ADDRESS: Key("kube-system", "kube-dns")}
        for service in services:
            if (address := service["spec"].get("clusterIP")) not in (None, "", "None"):
                taken.setdefault(address, key_of(service))
        served = []
        for service in services:
            try:
                complete = with_cluster_ip(service, taken)
            except HeddleError as error:
                self._troubles[f"Service {key_of(service)}"] = str(error)
                continue
            if complete is not service:
                complete = self._store.put(complete)
                taken[complete["spec"]["clusterIP"]] = key_of(complete)
            served.append(complete)
        self._served = served

    def _slices(self) -> None:
        wanted = {key_of(raw): raw for raw in endpoint_slices(self._served, self._store.items("Pod"))}
        for raw in self._store.items("EndpointSlice"):
            managed = raw["metadata"].get("labels", {}).get("endpointslice.kubernetes.io/managed-by") == "heddle"
            if managed and key_of(raw) not in wanted:
                self._store.delete("EndpointSlice", key_of(raw))
        for raw in wanted.values():
            self._store.put(raw)
        self._set_services(self._served, self._store.items("EndpointSlice"))

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


def _about(action: Action) -> str:
    """The object that an action is for. A pod that is to be made is its owner's: its own name is another each time."""
    match action:
        case Create(raw) if raw["kind"] == "Pod":
            owner = raw["metadata"]["ownerReferences"][0]
            return f"{owner['kind']} {raw['metadata']['namespace']}/{owner['name']}"
        case Create(raw):
            return f"{raw['kind']} {key_of(raw)}"
        case Remove(kind, key) | SetStatus(kind, key, _):
            return f"{kind} {key}"


def _age(service: Raw) -> tuple[int, str, Key]:
    """Sorts services: those that have been given their address, then the oldest first."""
    given = "clusterIPs" in service["spec"]
    return (0 if given else 1, str(service["metadata"]["creationTimestamp"]), key_of(service))
