"""Who is calling: by service account token, or by the certificate of the TLS connection.

Either way the pod must still exist. That is asked here and not left to TokenReview: the API server accepts the token of
a deleted pod for a while, and a certificate knows of no pod at all. Only service accounts of the control plane may come
without one (docs/adr/0013-callers.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from cryptography import x509

from ca.policy import Caller, needs_pod
from ca.serials import is_of_pod
from ca.settings import CaSettings
from kube.tokens import ServiceAccountToken, TokenVerifier
from mesh.errors import Forbidden, InvalidInput, Unauthenticated
from mesh.identity import Identity
from svid.leaf import leaf_identity
from svid.material import PodRef

_POD_HEADER = re.compile(r"(?P<namespace>[a-z0-9-]{1,63})/(?P<name>[a-z0-9.-]{1,253})/(?P<uid>[A-Za-z0-9-]{1,64})\Z")


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What is asked of a pod that exists. `deleting`: it has been told to end; `finished`: all of it has ended."""

    uid: str
    service_account: str
    node: str
    deleting: bool = False
    finished: bool = False


# (namespace, name, uid asked for) -> the pod of this name now, or None. Raises Unavailable when nobody can tell.
PodLookup = Callable[[str, str, str], PodFacts | None]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request brought: the values of its headers `Authorization` and `X-Heddle-Pod`, and the peer's verified
    certificate (DER). Empty where there is none."""

    authorization: str = ""
    pod: str = ""
    certificate: bytes = b""


class Authentication(Protocol):
    """Who asks. Methods raise Unauthenticated, Forbidden, InvalidInput (a broken header) or Unavailable."""

    def authenticate(self, credentials: Credentials, now: float) -> Caller:
        """The caller, for a certificate."""

    def operator(self, credentials: Credentials, now: float) -> Caller:
        """The caller, for reading and for a rotation."""


class PodRefused(Forbidden):
    """It is certain which pod asks, and it gets no certificate."""

    def __init__(self, pod: PodRef, message: str) -> None:
        super().__init__(message)
        self.pod = pod


_Verify = Callable[[str, float], ServiceAccountToken]


class _UnknownHereError(Exception):
    """Somebody would have to be asked."""


def _no_pod(_namespace: str, _name: str, _uid: str) -> None:
    return None


class Callers:
    """Authenticates requests. Raises Unauthenticated, Forbidden, InvalidInput (a broken header) or Unavailable."""

    def __init__(
        self, settings: CaSettings, verifier: TokenVerifier, pods: PodLookup, known_pods: PodLookup = _no_pod
    ) -> None:
        """`pods` may ask somebody; `known_pods` asks nobody, and is None where `pods` would have to ask."""
        self._settings = settings
        self._verifier = verifier
        self._pods, self._known_pods = pods, known_pods

    def authenticate(self, credentials: Credentials, now: float) -> Caller:
        """The caller; a token counts before a certificate, so that a pod whose certificate ended can say who it is."""
        return self._caller(credentials, now, self._verifier.verify, self._pods)

    def at_once(self, credentials: Credentials, now: float) -> Caller | None:
        """The same, by what is known here; None when somebody would have to be asked."""
        try:
            return self._caller(credentials, now, self._verified_here, self._found_here)
        except _UnknownHereError:
            return None

    def _verified_here(self, token: str, now: float) -> ServiceAccountToken:
        found = self._verifier.at_once(token, now)
        if found is None:
            raise _UnknownHereError
        return found

    def _found_here(self, namespace: str, name: str, uid: str) -> PodFacts:
        facts = self._known_pods(namespace, name, uid)
        if facts is None:
            raise _UnknownHereError
        return facts

    def _caller(self, credentials: Credentials, now: float, verify: _Verify, pods: PodLookup) -> Caller:
        if credentials.authorization:
            return self._by_token(credentials.authorization, now, verify, pods)
        if credentials.certificate:
            return self._by_certificate(credentials.certificate, credentials.pod, now, pods)
        raise Unauthenticated(
            "no token and no client certificate",
            hint=f"send Authorization: Bearer <token of audience {self._settings.audience}>, or your SVID over TLS",
        )

    def operator(self, credentials: Credentials, now: float) -> Caller:
        """Like `authenticate`, for reading: no pod is asked for, only who it is."""
        if credentials.authorization or not credentials.certificate:
            return self.authenticate(credentials, now)
        identity, serial = identity_of_certificate(credentials.certificate, now)
        return Caller("certificate", identity, proof=serial)

    def _by_token(self, authorization: str, now: float, verify: _Verify, pods: PodLookup) -> Caller:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("the Authorization header is not `Bearer <token>`")
        claims = verify(token.strip(), now)
        identity = Identity(self._settings.trust_domain, claims.namespace, claims.service_account)
        if not claims.pod_name:
            return self._without_pod("token", claims.id, identity, "the token is not bound to a pod")
        pod = PodRef(claims.namespace, claims.pod_name, claims.pod_uid)
        return self._with_pod("token", claims.id, identity, pod, pods, claims.node)

    def _by_certificate(self, certificate: bytes, pod: str, now: float, pods: PodLookup) -> Caller:
        identity, serial = identity_of_certificate(certificate, now)
        if not pod:
            caller = self._without_pod("certificate", serial, identity, "the header X-Heddle-Pod is missing")
            _check_holder(serial, "", "no pod")
            return caller
        named = _POD_HEADER.match(pod)
        if named is None:
            raise InvalidInput("the header X-Heddle-Pod is not <namespace>/<name>/<uid>", field="X-Heddle-Pod")
        ref = PodRef(named["namespace"], named["name"], named["uid"])
        _check_holder(serial, ref.uid, f"pod {ref.namespace}/{ref.name} with uid {ref.uid}")
        return self._with_pod("certificate", serial, identity, ref, pods)

    def _without_pod(self, kind: str, proof: str, identity: Identity, why: str) -> Caller:
        if needs_pod(identity, self._settings):
            raise Forbidden(f"{identity} is only certified for a pod that exists, and {why}")
        return Caller(kind, identity, proof=proof)

    def _with_pod(
        self, kind: str, proof: str, identity: Identity, pod: PodRef, pods: PodLookup, node: str = ""
    ) -> Caller:
        """`node` is the one that the token says, where it says one."""
        facts = pods(pod.namespace, pod.name, pod.uid)
        named = f"pod {pod.namespace}/{pod.name}"
        if facts is None or facts.uid != pod.uid or not pod.uid:
            raise Forbidden(f"{named} with uid {pod.uid} does not exist (any more)")
        if (pod.namespace, facts.service_account) != (identity.namespace, identity.service_account):
            raise Forbidden(f"{named} does not run as {identity.namespace}/{identity.service_account}")
        if facts.deleting or facts.finished:
            raise PodRefused(pod, f"{named} {'is being deleted' if facts.deleting else 'has finished'}")
        if node and node != facts.node:
            raise PodRefused(pod, f"{named} runs on node {facts.node or 'none'}, and the token is of node {node}")
        return Caller(kind, identity, pod.namespace, pod.name, pod.uid, facts.node, proof)


def _check_holder(serial: str, pod_uid: str, named: str) -> None:
    """The header is the caller's word; the certificate is the ca's (docs/adr/0226)."""
    if not is_of_pod(int(serial, 16), pod_uid):
        raise Forbidden(
            f"the client certificate {serial} was not issued to {named}",
            hint="a pod renews with its own certificate; with any other, and with none, it comes with its token",
        )


def identity_of_certificate(der: bytes, now: float) -> tuple[Identity, str]:
    """The SPIFFE ID in a certificate whose chain TLS has verified, and its serial (lower-case hexadecimal).

    Its time is looked at again: a kept-alive connection may outlive the certificate that opened it.
    """
    identity = leaf_identity(der, "the client certificate")
    certificate = x509.load_der_x509_certificate(der)
    moment = datetime.fromtimestamp(now, UTC)
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
        raise Unauthenticated("the client certificate is not valid now", hint="use the token to get a new one")
    return identity, f"{certificate.serial_number:x}"
