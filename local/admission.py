"""What an API server does with a new pod: asks the mutating webhook over HTTPS, and applies its JSON patch."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import jsonpatch
import orjson
import urllib3

from mesh.errors import Forbidden, Unavailable

Raw = dict[str, Any]
DEADLINE_SECONDS = 5.0


class Webhook:
    """`trust()` gives the root certificates (PEM) to which the webhook's certificate for `server_name` must chain."""

    def __init__(self, host: str, port: int, server_name: str, trust: Callable[[], str]) -> None:
        self._host, self._port, self._server_name, self._trust = host, port, server_name, trust

    def admit(self, pod: Raw, uid: str) -> Raw:
        """The pod as the webhook wants it. Forbidden when it denies; Unavailable when it does not answer properly."""
        meta = pod["metadata"]
        review = {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": uid,
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "operation": "CREATE",
                "namespace": meta["namespace"],
                "name": meta["name"],
                "object": pod,
                "dryRun": False,
            },
        }
        answer = self._post(orjson.dumps(review))
        response = answer.get("response") if isinstance(answer, dict) else None
        if not isinstance(response, dict):
            raise Unavailable("the injection webhook did not answer with an AdmissionReview")
        if response.get("uid") != uid:
            raise Unavailable("the injection webhook answered for another request")
        if not response.get("allowed"):
            status = response.get("status")
            reason = (status.get("message") if isinstance(status, dict) else None) or "no reason given"
            raise Forbidden(f"the injection webhook refused pod {meta['namespace']}/{meta['name']}: {reason}")
        if not response.get("patch"):
            return pod
        try:
            patched: Raw = jsonpatch.apply_patch(pod, orjson.loads(base64.b64decode(response["patch"])))
        except (ValueError, TypeError, jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
            raise Unavailable(f"the injection webhook's patch does not apply: {error}") from error
        return patched

    def _post(self, body: bytes) -> Any:
        try:
            trust = self._trust()
        except OSError as error:
            raise Unavailable(f"the injection webhook cannot be trusted yet: no root certificates: {error}") from error
        pool = urllib3.HTTPSConnectionPool(
            self._host,
            self._port,
            timeout=DEADLINE_SECONDS,
            retries=False,
            ca_cert_data=trust,
            server_hostname=self._server_name,
            assert_hostname=self._server_name,
        )
        try:
            answer = pool.request("POST", "/inject", body=body, headers={"Content-Type": "application/json"})
            if answer.status != 200:
                said = answer.data[:300].decode(errors="replace")
                raise Unavailable(f"the injection webhook answered {answer.status}: {said}")
            review = orjson.loads(answer.data)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise Unavailable(f"the injection webhook does not answer: {error}") from error
        else:
            return review
        finally:
            pool.close()
