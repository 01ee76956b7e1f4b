"""The ca's service account with one set of rights and no others, at a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kube.client import Client
from mesh.rbac import access
from tests.cluster.api_server import ApiServer


@contextmanager
def service_account(api: ApiServer, component: str, directory: Path) -> Iterator[Client]:
    """In a namespace of its own; `component` as in mesh.rbac. Roles are removed again."""
    with api.namespace() as namespace:
        api.client.post(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "heddle-ca"}})
        made = []
        try:
            for each in access(component):
                body = json.loads(json.dumps(each).replace('"istio-system"', f'"{namespace}"'))
                path = f"/apis/rbac.authorization.k8s.io/v1/{each['kind'].lower()}s"
                api.client.post(path, body)
                made.append(f"{path}/{each['metadata']['name']}")
            yield api.as_service_account(namespace, "heddle-ca", directory)
        finally:
            for path in made:
                api.client.delete(path)
