"""The real webhook process beside a real API server, as its own service account with the rights of `mesh.rbac`.

Each has a revision of its own, so that several can be at one API server. The configuration is that of `manifests/`,
with the address changed to this machine's loopback.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from install.names import with_revision
from kube.client import Refused
from mesh import admission
from mesh.errors import NotFound
from mesh.rbac import access
from tests.agent.control_plane import eventually
from tests.cluster.api_server import ApiServer
from tests.support.waiting import wait_for
from tests.webhook.harness import ROOT, WebhookProcess

CONTROL = "istio-system"
HOST = "localhost"
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
VALIDATORS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
MANIFEST = ROOT / "manifests" / "base" / "webhook" / "sidecar-injector.yaml"
_PATHS = {
    "ServiceAccount": f"/api/v1/namespaces/{CONTROL}/serviceaccounts",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "Role": f"/apis/rbac.authorization.k8s.io/v1/namespaces/{CONTROL}/roles",
    "RoleBinding": f"/apis/rbac.authorization.k8s.io/v1/namespaces/{CONTROL}/rolebindings",
}
Raw = dict[str, Any]


@dataclass
class Place:
    """Where webhooks of one revision run: their rights, their configuration, and its name."""

    api: ApiServer
    revision: str
    kubeconfig: Path

    @property
    def configuration(self) -> str:
        return f"heddle-sidecar-injector-{self.revision}"

    def start(self, **how: Any) -> WebhookProcess:
        """Another webhook of this revision."""
        more = ("--revision", self.revision, *how.pop("more", ()))
        env = {"KUBECONFIG": str(self.kubeconfig), **how.pop("env", {})}
        return WebhookProcess("", more=more, env=env, name=HOST, **how)

    def register(self, port: int, failure_policy: str = "Fail", **changes: Any) -> None:
        """The configuration of the manifests, without a caBundle, for a webhook at `port`."""
        raw = configuration(self.revision, self.configuration, port, failure_policy)
        self.api.client.post(CONFIGURATIONS, raw | changes)

    @property
    def validator(self) -> str:
        """The name of its ValidatingWebhookConfiguration."""
        return f"{admission.NAME}-{self.revision}"

    def register_validator(self, port: int) -> None:
        """That of the manifests, as this revision has it, for a webhook at `port`."""
        raw = with_revision(copy.deepcopy(admission.configuration()), self.revision)
        for entry in raw["webhooks"]:
            entry["clientConfig"] = {"url": f"https://{HOST}:{port}/validate"}
        self.api.client.post(VALIDATORS, raw)

    def policies(self) -> dict[str, str]:
        """failurePolicy of each entry of the validator."""
        found = self.api.client.get(f"{VALIDATORS}/{self.validator}")
        return {entry["name"]: entry["failurePolicy"] for entry in found["webhooks"]}

    def trusted(self) -> bool:
        """Whether every entry has a caBundle."""
        found = self.api.client.get(f"{CONFIGURATIONS}/{self.configuration}")
        return all(entry["clientConfig"].get("caBundle") for entry in found["webhooks"])


def configuration(revision: str, name: str, port: int, failure_policy: str = "Fail", value: str = "") -> Raw:
    """`value`: the value of istio.io/rev whose pods are sent; otherwise the revision itself."""
    raw: Raw = copy.deepcopy(yaml.safe_load(MANIFEST.read_text()))
    raw["metadata"] = {"name": name, "labels": {**raw["metadata"]["labels"], "istio.io/rev": revision}}
    for entry in raw["webhooks"]:
        entry["clientConfig"] = {"url": f"https://{HOST}:{port}/inject"}
        entry["failurePolicy"] = failure_policy
        for selector in ("namespaceSelector", "objectSelector"):
            for wanted in entry[selector]["matchExpressions"]:
                if wanted["key"] == "istio.io/rev" and "values" in wanted:
                    wanted["values"] = [value or revision]
    return raw


@contextmanager
def place(api: ApiServer, directory: Path) -> Iterator[Place]:
    """Rights and settings of a revision; gone at the end, with its configuration."""
    revision = f"t{secrets.token_hex(3)}"
    with suppress(Refused):  # it is there already
        api.client.post("/api/v1/namespaces", {"metadata": {"name": CONTROL}})
    made: list[str] = [f"{CONFIGURATIONS}/heddle-sidecar-injector-{revision}"]
    made.append(f"{VALIDATORS}/{admission.NAME}-{revision}")
    try:
        for raw in access("webhook"):
            named = with_revision(raw, revision)
            api.client.post(_PATHS[named["kind"]], named)
            made.append(f"{_PATHS[named['kind']]}/{named['metadata']['name']}")
        account = f"heddle-webhook-{revision}"
        api.as_service_account(CONTROL, account, directory)
        yield Place(api, revision, directory / f"{CONTROL}.{account}.kubeconfig")
    finally:
        for path in made:
            with suppress(NotFound):
                api.client.delete(path)


@contextmanager
def serving(api: ApiServer, directory: Path, more: Sequence[str] = ()) -> Iterator[tuple[Place, WebhookProcess]]:
    """A webhook that is ready, registered and trusted."""
    with place(api, directory) as made:
        process = made.start(more=more)
        try:
            made.register(process.port)
            process.ready()
            wait_for(made.trusted)
            yield made, process
        finally:
            process.close()


def settings(api: ApiServer, name: str, data: Mapping[str, str]) -> None:
    """Make a ConfigMap of the control plane, or change it."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": CONTROL}, "data": data}
    api.client.apply(f"/api/v1/namespaces/{CONTROL}/configmaps/{name}", body)


@contextmanager
def ready_namespace(api: ApiServer, labels: Mapping[str, str] | None = None) -> Iterator[str]:
    """A namespace in which pods can be created: its default service account is there."""
    with api.namespace(labels) as name:
        eventually(lambda: api.client.get(f"/api/v1/namespaces/{name}/serviceaccounts/default"), timeout=60)
        yield name


def pods(api: ApiServer, namespace: str, selector: str = "") -> list[Raw]:
    query = {"labelSelector": selector} if selector else {}
    found: list[Raw] = api.client.get(f"/api/v1/namespaces/{namespace}/pods", query)["items"]
    return found


def names(pod: Raw, place_: str = "initContainers") -> list[str]:
    return [container["name"] for container in pod["spec"].get(place_) or ()]
