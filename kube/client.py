"""The Kubernetes API as raw JSON: get, list by pages, watch, write.

The `kubernetes` package finds the server, its certificates and the credentials, and keeps them fresh; its generated
models are not used, because turning a large list into them costs many times what parsing it does.
Source for pages, watches, bookmarks, 410 Gone and server-side apply:
https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import urllib3
from kubernetes import config as kubernetes_config
from kubernetes.client import ApiClient, ApiException, Configuration

from mesh.errors import Gone, HeddleError, MissingPrerequisite, NotFound, Unavailable

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 30.0
PAGE = 500
LONGEST_LINE = 32 << 20
FIELD_MANAGER = "heddle"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches"""

Json = Mapping[str, Any]

# The package has no annotations for these.
_load_incluster: Callable[..., None] = kubernetes_config.load_incluster_config
_load_kubeconfig: Callable[..., None] = kubernetes_config.load_kube_config


class Refused(HeddleError):
    """The API server answered, and the answer is no. `status` is its HTTP status."""

    def __init__(self, status: int, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = "kubernetes"


@dataclass(frozen=True, slots=True)
class Page:
    """Some objects of a list, and the version at which the whole list was taken."""

    items: list[dict[str, Any]]
    resource_version: str


class Client:
    """Requests to one API server. Safe to use from many threads or greenlets."""

    def __init__(self, api: ApiClient, address: str) -> None:
        self._api = api
        self.address = address

    @property
    def configuration(self) -> Configuration:
        """The server, its certificates and the credentials; for connections that are no requests (exec.py)."""
        configuration: Configuration = self._api.configuration
        return configuration

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        return self.call("GET", path, query=query)

    def post(self, path: str, body: Json, *, timeout: float = READ_TIMEOUT) -> Any:
        return self.call("POST", path, body=body, timeout=timeout)

    def put(self, path: str, body: Json) -> Any:
        """Replaces the object. One that carries a resourceVersion which is no longer current is Refused with 409."""
        return self.call("PUT", path, body=body)

    def merge(self, path: str, body: Json) -> Any:
        """JSON merge patch (RFC 7386): the fields in `body` alone change. Also with a resourceVersion, as `put`."""
        return self.call("PATCH", path, body=body, content_type="application/merge-patch+json")

    def apply(self, path: str, body: Json, *, force: bool = True, dry_run: bool = False) -> Any:
        """Server-side apply as field manager `heddle`: creates the object, or makes the fields in `body` so.

        Fields that it made so before and that `body` lacks now are removed. Unknown fields are Refused. Without
        `force`, a field that somebody else set to another value is Refused with 409. `dry_run` changes nothing.
        """
        query = {"fieldManager": FIELD_MANAGER, "force": str(force).lower(), "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        return self.call("PATCH", path, query=query, body=body, content_type="application/apply-patch+yaml")

    def delete(self, path: str, *, uid: str = "") -> Any:
        """Removes the object, and in the background what it owns; with `uid`, only if it is still that very object."""
        body: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        return self.call("DELETE", path, body=body)

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        content_type: str = "application/json",
        timeout: float = READ_TIMEOUT,
        accept: str = "",
    ) -> Any:
        """The JSON that the server answers. Raises Unavailable, NotFound, Gone or Refused.

        `timeout`: seconds without a byte of the answer.
        """
        payload = None if body is None else orjson.dumps(body).decode()
        response = self._send(method, path, query or {}, (CONNECT_TIMEOUT, timeout), payload, content_type, accept)
        try:
            return _parse(self._read(response))
        finally:
            response.release_conn()

    def list(self, path: str, query: Mapping[str, str] | None = None, *, metadata_only: bool = False) -> Iterator[Page]:
        """All objects at `path`, `PAGE` at a time; every page has the version of the first."""
        following = dict(query or {}, limit=str(PAGE))
        while True:
            answer = self.call("GET", path, query=following, accept=METADATA_LIST if metadata_only else "")
            meta = answer.get("metadata") or {}
            yield Page(answer.get("items") or [], meta.get("resourceVersion", ""))
            if not meta.get("continue"):
                return
            following["continue"] = meta["continue"]

    def watch(
        self,
        path: str,
        resource_version: str,
        *,
        query: Mapping[str, str] | None = None,
        lasts: float,
        silence: float,
        opened: Callable[[Callable[[], None]], None] = lambda _: None,
        metadata_only: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """The watch events after `resource_version`, bookmarks included, until the server ends the stream.

        The server ends it after `lasts` seconds. `silence` seconds without a byte raise Unavailable: the connection
        is taken for dead. `opened` is given a function that ends the watch from another thread.
        """
        asked = dict(
            query or {},
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=resource_version,
            timeoutSeconds=str(int(lasts)),
        )
        accept = METADATA if metadata_only else ""
        response = self._send("GET", path, asked, (CONNECT_TIMEOUT, silence), accept=accept)
        try:
            opened(response.shutdown)
            for line in _lines(response):
                yield _parse(line)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(f"the watch of {path} broke off: {error}") from None
        finally:
            response.close()

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        timeout: tuple[float, float],
        body: str | None = None,
        content_type: str = "application/json",
        accept: str = "",
    ) -> urllib3.BaseHTTPResponse:
        # The keys of the token issuer come as nothing but the second.
        headers = {"Accept": accept or "application/json, application/jwk-set+json"}
        if body is not None:
            headers["Content-Type"] = content_type
        request = self._api.param_serialize(
            method, path, query_params=list(query.items()), header_params=headers, auth_settings=["BearerToken"]
        )
        try:
            answer = self._api.rest_client.pool_manager.request(
                method,
                request[1],
                headers=request[2],
                body=body,
                timeout=urllib3.Timeout(connect=timeout[0], read=timeout[1]),
                preload_content=False,
                retries=False,
            )
        except (urllib3.exceptions.HTTPError, ApiException, OSError) as error:
            raise Unavailable(
                f"the API server at {self.address} does not answer: {error}", hint="is the address right, and is it up?"
            ) from None
        if answer.status >= 300:
            raise _refusal(method, path, answer.status, self._read(answer))
        return answer

    def _read(self, response: urllib3.BaseHTTPResponse) -> bytes:
        try:
            return response.read()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(f"the API server at {self.address} broke off in its answer: {error}") from None


def connect(address: str = "", kubeconfig: str = "") -> Client:
    """A client for `address` (a plain URL), else for `kubeconfig`, else for the cluster that this pod runs in, else for
    the default kubeconfig. Raises MissingPrerequisite when there is none. Does not connect yet."""
    configuration = Configuration()
    try:
        if address:
            configuration.host = address.rstrip("/")
        elif not kubeconfig and "KUBERNETES_SERVICE_HOST" in os.environ:
            _load_incluster(client_configuration=configuration)
        else:
            _load_kubeconfig(config_file=kubeconfig or None, client_configuration=configuration)
    except kubernetes_config.ConfigException as error:
        raise MissingPrerequisite(
            f"there is no Kubernetes API server to talk to: {error}",
            hint="set KUBECONFIG, or name it by --kubeconfig FILE (heddle) or --kube-api URL (its components)",
        ) from None
    configuration.keep_alive = True
    configuration.connection_pool_maxsize = 64  # a watch holds a connection for each kind
    return Client(ApiClient(configuration), configuration.host)


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream(1 << 16):
        *complete, rest = (rest + chunk).split(b"\n")
        yield from (line for line in complete if line.strip())
        if len(rest) > LONGEST_LINE:
            raise Unavailable(f"the API server sent a watch event of more than {LONGEST_LINE} bytes")
    if rest.strip():
        yield rest


def _parse(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Unavailable(f"the API server's answer is not JSON: {error}", hint="is this the address of one?") from None


def _refusal(method: str, path: str, status: int, raw: bytes) -> HeddleError:
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError:
        answer = None
    said = answer.get("message") if isinstance(answer, dict) else None
    message = f"{method} {path}: the API server answered {status}: {said or raw[:200].decode(errors='replace')}"
    match status:
        case 404:
            return NotFound(message)
        case 410:
            return Gone(message)
        case 403:
            return Refused(status, message, hint="does the service account's role allow it?")
        case 429 | 500 | 502 | 503 | 504:
            return Unavailable(message)
        case _:
            return Refused(status, message)
