"""The trust domain's state in a Secret: each document a key of its data, its version the Secret's resourceVersion.

The API server makes create and replace atomic: a name exists once (409 for the second), and an update that carries a
resourceVersion which is no longer current is refused (409).
Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from ca.store import Documents, Stored
from kube.client import Client, Refused
from kube.source import Watched
from mesh.errors import Conflict, HeddleError, MissingPrerequisite, NotFound, Unavailable

TYPE = "heddle.dev/ca-root"
_LABELS = {"app.kubernetes.io/name": "heddle-ca", "app.kubernetes.io/managed-by": "heddle"}


class SecretStore:
    """Needs the rights to `get` and `update` the Secret `name`, and to `create` secrets in `namespace`."""

    def __init__(self, client: Client, namespace: str, name: str) -> None:
        self._client = client
        self.namespace, self._secret = namespace, name
        self._collection = f"/api/v1/namespaces/{namespace}/secrets"
        self._path = f"{self._collection}/{name}"

    @property
    def name(self) -> str:
        return f"Secret {self.namespace}/{self._secret}"

    def read(self) -> Stored | None:
        try:
            return self._stored(self._client.get(self._path))
        except NotFound:
            return None
        except HeddleError as error:
            raise self._explained(error, "get") from None

    def create(self, documents: Documents) -> Stored:
        try:
            return self._stored(self._client.post(self._collection, self._body(documents)))
        except Refused as error:
            if error.status != 409:
                raise self._explained(error, "create") from None
        except NotFound:
            raise MissingPrerequisite(f"there is no namespace {self.namespace} for {self.name}") from None
        stored = self.read()
        if stored is None:
            raise Unavailable(f"{self.name} was removed while it was being read")
        return stored

    def replace(self, documents: Documents, version: str) -> Stored:
        try:
            return self._stored(self._client.put(self._path, self._body(documents, version)))
        except Refused as error:
            if error.status == 409:
                raise Conflict(f"{self.name} was changed by somebody else meanwhile", hint="read it again") from None
            raise self._explained(error, "update") from None
        except NotFound:
            raise Conflict(f"{self.name} has been removed meanwhile") from None

    def watched(self) -> Watched:
        """What to watch to hear of a change. Needs the right to `list` and `watch` the Secret."""
        return Watched("Secret", self._collection, {"fieldSelector": f"metadata.name={self._secret}"})

    def _body(self, documents: Documents, version: str = "") -> dict[str, Any]:
        metadata: dict[str, Any] = {"namespace": self.namespace, "name": self._secret, "labels": _LABELS}
        if version:
            metadata["resourceVersion"] = version
        data = {name: base64.b64encode(text.encode()).decode() for name, text in documents.items()}
        return {"apiVersion": "v1", "kind": "Secret", "type": TYPE, "metadata": metadata, "data": data}

    def _stored(self, secret: Mapping[str, Any]) -> Stored:
        try:
            data = secret.get("data") or {}
            documents = {name: base64.b64decode(value, validate=True).decode() for name, value in data.items()}
        except (binascii.Error, UnicodeDecodeError) as error:
            raise MissingPrerequisite(f"{self.name} is damaged: {error}") from None
        return Stored(documents, secret["metadata"]["resourceVersion"])

    def _explained(self, error: HeddleError, verb: str) -> HeddleError:
        if isinstance(error, Refused) and error.status in (401, 403):
            return MissingPrerequisite(
                f"the ca may not {verb} {self.name}: {error.message}",
                hint=f"its service account needs a Role in {self.namespace} that allows it",
            )
        return error
