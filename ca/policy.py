"""Who may have which certificate: pure, and from the authenticated caller alone.

Of the request's own wishes two count: its key, and how long the certificate shall live.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ca.request import SignableKey
from ca.settings import CaSettings, ServiceAccount
from mesh.errors import Forbidden, InvalidInput, Unavailable
from mesh.identity import Identity
from mesh.key_kinds import KEY_KINDS


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller. `kind` is how: "token", "certificate", "pod" (the API server has verified a kubelet's
    request for it), or "self": the ca, for its own.

    `proof` names the credential: a token's id, a certificate's serial (lower-case hexadecimal).
    """

    kind: str
    identity: Identity
    pod_namespace: str = ""
    pod_name: str = ""
    pod_uid: str = ""
    node: str = ""
    proof: str = ""


class Validity(Protocol):
    """Of the issuing certificate, in Unix seconds."""

    @property
    def not_before(self) -> int:
        """Its first second."""

    @property
    def not_after(self) -> int:
        """Its last second."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What will be certified. Times are whole Unix seconds; both bounds are part of the validity (RFC 5280 4.1.2.5)."""

    identity: Identity
    dns_names: tuple[str, ...]
    not_before: int
    not_after: int


def check_ttl(requested: object) -> int | None:
    """The requested life in seconds as it came in JSON; InvalidInput unless it is absent or a positive whole number."""
    if requested is None:
        return None
    if isinstance(requested, bool) or not isinstance(requested, int) or requested <= 0:
        raise InvalidInput(
            f"{requested!r} is not a number of seconds", field="ttlSeconds", hint="leave it out for 24 hours"
        )
    return requested


def authorize(caller: Caller, requested_ttl: int | None, settings: CaSettings, issuer: Validity, now: float) -> Grant:
    """The grant for `caller`. Its life is brought within the settings' bounds, and never beyond the issuer's end.

    Raises Forbidden for an identity of another trust domain, Unavailable when the issuer is about to end.
    """
    if caller.identity.trust_domain != settings.trust_domain:
        raise Forbidden(f"{caller.identity} is not of the trust domain {settings.trust_domain}")
    ttl = min(max(requested_ttl or settings.leaf_ttl, settings.min_ttl), settings.max_ttl)
    not_after = min(int(now) + ttl, issuer.not_after)
    if not_after < int(now) + settings.min_ttl:
        raise Unavailable("the issuing certificate is about to end", hint="rotate the root certificate")
    not_before = max(int(now) - settings.backdate, issuer.not_before)
    account = ServiceAccount(caller.identity.namespace, caller.identity.service_account)
    return Grant(caller.identity, settings.dns_names(account), not_before, not_after)


def check_key(key: SignableKey, settings: CaSettings) -> None:
    """Forbidden unless policy certifies keys of this kind."""
    if key.kind not in settings.leaf_keys:
        allowed = " or ".join(kind for kind in KEY_KINDS if kind in settings.leaf_keys)
        raise Forbidden(
            f"this ca certifies no {key.kind} keys", field="csr", hint=f"use {allowed}; the ca's --leaf-keys says which"
        )


def may_read_ledger(caller: Caller, settings: CaSettings) -> bool:
    """Whether this caller is an operator."""
    identity = caller.identity
    account = ServiceAccount(identity.namespace, identity.service_account)
    return identity.trust_domain == settings.trust_domain and account == settings.operator


def component_of(caller: Caller, settings: CaSettings) -> str:
    """What the control plane's component that calls is named among those that are waited for; "" for an operator.

    Raises Forbidden for everybody else: agents say what they trust to discovery.
    """
    identity = caller.identity
    account = ServiceAccount(identity.namespace, identity.service_account)
    if may_read_ledger(caller, settings):
        return ""
    if identity.trust_domain != settings.trust_domain or not settings.dns_names(account):
        raise Forbidden(f"{identity} is not of the control plane")
    return f"{identity.namespace}/{caller.pod_name or identity.service_account}"


def needs_pod(identity: Identity, settings: CaSettings) -> bool:
    """Whether this identity is only certified for a pod that exists."""
    return settings.needs_pod(ServiceAccount(identity.namespace, identity.service_account))
