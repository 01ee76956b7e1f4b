"""One request to the ca, blocking, over `http.client` and `ssl`.

When to make it: schedule.py. Who keeps the answer: keeper.py.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mesh.errors import HeddleError, Unavailable
from mesh.identity import Identity
from svid.material import PodRef, SvidMaterial, TrustBundle, bundle_from_json, material_from_response
from svid.request import KeyRequest
from svid.tls import check_peer, client_context, refuses_certificate

MAX_ANSWER = 1 << 20
TIMEOUT = 10.0  # seconds for each network operation


@dataclass(frozen=True, slots=True)
class CaAddress:
    """Where the ca listens, and the SPIFFE ID that it must prove."""

    host: str
    port: int
    identity: Identity


@dataclass(frozen=True, slots=True)
class Token:
    """A service account token of audience `istio-ca`. Left out of `repr`, so that no log can carry it."""

    value: str = field(repr=False)


class Unreachable(Unavailable):
    """No answer from the ca: no connection, a broken one, or TLS that fails. Worth trying again."""

    code = "unreachable"


class Untrusted(Unreachable):
    """The server refused the certificate that it was shown, in TLS: it has ended, or its root is no longer trusted."""

    code = "untrusted"


class Refused(HeddleError):
    """The ca answered, and the answer is no. `status` and `code` are the ca's.

    `retry_after`: the seconds after which it wants to be asked again; 0 where it does not say.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        hint: str | None = None,
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message, field=field, hint=hint)
        self.status = status
        self.code = code
        self.retry_after = retry_after


def fetch(
    ca: CaAddress,
    roots_pem: str,
    request: KeyRequest,
    credential: Token | SvidMaterial,
    *,
    pod: PodRef | None = None,
    ttl_seconds: int | None = None,
    timeout: float = TIMEOUT,
) -> SvidMaterial:
    """A certificate for the key of `request`: the first by `Token`, the next ones by the current `SvidMaterial`.

    `pod` is needed with an SVID (the pod that it belongs to must still exist), not with a token, which says it itself.
    Raises Unreachable, Refused, or InvalidInput when the answer does not fit the request.
    """
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if isinstance(credential, Token):
        headers["Authorization"] = f"Bearer {credential.value}"
    if pod is not None:
        headers["X-Heddle-Pod"] = str(pod)
    body: dict[str, object] = {"csr": request.csr_pem}
    if ttl_seconds is not None:
        body["ttlSeconds"] = ttl_seconds
    presented = credential if isinstance(credential, SvidMaterial) else None
    context = client_context(roots_pem, presented)
    answer = _exchange(ca, context, "POST", "/v1/certificates", json.dumps(body).encode(), headers, timeout)
    return material_from_response(request.key_pem, answer)


def fetch_bundle(ca: CaAddress, roots_pem: str, *, timeout: float = TIMEOUT) -> TrustBundle:
    """The current trust bundle. Raises Unreachable, Refused or InvalidInput."""
    return bundle_from_json(_exchange(ca, client_context(roots_pem), "GET", "/v1/bundle", None, {}, timeout))


def fetch_ledger(ca: CaAddress, material: SvidMaterial, *, timeout: float = TIMEOUT) -> object:
    """`GET /v1/certificates` as the operator `material`: `{"certificates": [...]}`. Raises Unreachable or Refused."""
    context = client_context(material.bundle.pem, material)
    return _exchange(ca, context, "GET", "/v1/certificates", None, {}, timeout, limit=1 << 30)


class Connection(http.client.HTTPSConnection):
    """HTTPS whose server must prove a SPIFFE ID before a single byte (a token, say) is sent to it."""

    def __init__(self, ca: CaAddress, context: ssl.SSLContext, timeout: float) -> None:
        super().__init__(ca.host, ca.port, timeout=timeout, context=context)
        self._ca = ca
        self._tls = context

    def connect(self) -> None:
        plain = socket.create_connection((self._ca.host, self._ca.port), self.timeout)
        try:
            self.sock = self._tls.wrap_socket(plain)
        except BaseException:
            plain.close()
            raise
        check_peer(self.sock, (self._ca.identity,))


def _exchange(
    ca: CaAddress,
    context: ssl.SSLContext,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
    timeout: float,
    *,
    limit: int = MAX_ANSWER,
) -> object:
    connection = Connection(ca, context, timeout)
    try:
        with explained(ca):
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            raw = response.read(limit + 1)
    finally:
        connection.close()
    if len(raw) > limit:
        raise Unreachable(f"the ca at {ca.host}:{ca.port} sent more than {limit} bytes")
    return decoded(response.status, raw, response.getheader("Retry-After", ""))


@contextmanager
def explained(ca: CaAddress) -> Iterator[None]:
    """Round network operations: what goes wrong is raised as Unreachable, in words."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(
            f"the ca at {ca.host}:{ca.port} shows a certificate that does not verify: {error.verify_message}",
            hint="is the root certificate in the volume the current one, and is this machine's clock right?",
        ) from None
    except ssl.SSLError as error:
        kind = Untrusted if refuses_certificate(error) else Unreachable
        raise kind(f"the ca at {ca.host}:{ca.port} does not answer: {error}") from None
    except HeddleError as error:
        raise Unreachable(f"the server at {ca.host}:{ca.port} is not the ca: {error}") from None
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"the ca at {ca.host}:{ca.port} does not answer: {error or type(error).__name__}") from None


def decoded(status: int, raw: bytes, retry_after: str = "") -> object:
    """The JSON of a good answer; Refused with what any other says. `retry_after`: the header Retry-After."""
    try:
        answer = json.loads(raw)
    except ValueError:
        raise Refused(status, "not-json", f"the ca answered {status} without JSON") from None
    if 200 <= status < 300:
        return answer
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        raise Refused(status, "unknown", f"the ca answered {status} without saying why")
    raise Refused(
        status,
        str(error.get("code")),
        str(error.get("message")),
        field=error.get("field"),
        hint=error.get("hint"),
        retry_after=float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0,
    )
