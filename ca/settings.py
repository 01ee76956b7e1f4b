"""Everything about the ca that an operator may choose, as one checked value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.errors import InvalidInput
from mesh.identity import DEFAULT_TRUST_DOMAIN, Identity, check_trust_domain
from mesh.key_kinds import DEFAULT_KEY, KEY_KINDS

CONTROL_NAMESPACE = "istio-system"
HOUR, DAY = 3600, 86400


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` at once, then `per_second`. Without a `per_second` there is no limit."""

    per_second: float
    burst: int


CALLER_RATE = Rate(per_second=1.0, burst=60)
FAILURE_RATE = Rate(per_second=50.0, burst=500)
TOTAL_RATE = Rate(per_second=500.0, burst=1000)


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A Kubernetes service account, apart from any trust domain."""

    namespace: str
    name: str

    def identity(self, trust_domain: str) -> Identity:
        """Its SPIFFE ID."""
        return Identity(trust_domain, self.namespace, self.name)


def _control(name: str) -> ServiceAccount:
    return ServiceAccount(CONTROL_NAMESPACE, name)


DNS_SUFFIXES = (f"{CONTROL_NAMESPACE}.svc", f"{CONTROL_NAMESPACE}.svc.cluster.local")
"""What every DNS name in a certificate ends with: intermediates may certify no other (`ca.profile`)."""


def _dns_names(name: str) -> tuple[str, ...]:
    return tuple(f"{name}.{suffix}" for suffix in DNS_SUFFIXES)


CA = _control("heddle-ca")
OPERATOR = _control("heddle-operator")

# Service accounts of the control plane, with the DNS names that their certificates carry beside the SPIFFE ID. Only the
# webhook needs one (the API server knows no SPIFFE); the others' are for people with curl.
CONTROL_PLANE: Mapping[ServiceAccount, tuple[str, ...]] = {
    _control(name): _dns_names(name) for name in ("heddle-webhook", "heddle-discovery", "heddle-ca")
} | {OPERATOR: ()}
REVISIONED_WEBHOOK = "heddle-webhook-"


@dataclass(frozen=True, slots=True)
class RootToken:
    """Where root keys are made, if it is a PKCS #11 token: the module (a shared library) and the token's label."""

    module: str
    label: str


@dataclass(frozen=True, slots=True)
class CaSettings:
    """Times are in seconds. InvalidInput when they contradict each other."""

    trust_domain: str = DEFAULT_TRUST_DOMAIN
    leaf_ttl: int = DAY
    min_ttl: int = 60
    max_ttl: int = 7 * DAY
    backdate: int = 150  # notBefore lies this long before now: peers' clocks may be two minutes behind
    intermediate_ttl: int = 30 * DAY
    root_ttl: int = 3652 * DAY
    retention: int = 30 * DAY  # a record stays in the ledger this long after its certificate has expired
    audience: str = "istio-ca"
    root_token: RootToken | None = None  # where new root keys are made, if not here
    # Certificates: of one caller, of an address that does not prove who it is, and of everybody.
    caller_rate: Rate = CALLER_RATE
    failure_rate: Rate = FAILURE_RATE
    total_rate: Rate = TOTAL_RATE
    refresh_hint: int = 300  # how often other trust domains should look for a new bundle
    leaf_keys: frozenset[str] = frozenset(KEY_KINDS)  # the kinds of key that are certified
    # The service accounts of the control plane, and the DNS names of each.
    control_plane: Mapping[ServiceAccount, tuple[str, ...]] = field(default_factory=lambda: dict(CONTROL_PLANE))
    # Those of them that come without a pod: processes of `heddle local`; on a cluster, the `heddle` command alone.
    without_pod: frozenset[ServiceAccount] = frozenset(CONTROL_PLANE)
    operators: frozenset[ServiceAccount] = frozenset({OPERATOR})

    def dns_names(self, account: ServiceAccount) -> tuple[str, ...]:
        """What the API server calls it; a revision's webhook has a Service, and an account, of the revision's name."""
        known = self.control_plane.get(account)
        if known is None and account.namespace == CONTROL_NAMESPACE and account.name.startswith(REVISIONED_WEBHOOK):
            return _dns_names(account.name)
        return known or ()

    def __post_init__(self) -> None:
        check_trust_domain(self.trust_domain)
        unknown = sorted(self.leaf_keys - set(KEY_KINDS))
        if unknown:
            raise InvalidInput(
                f"{unknown[0]!r} is not a kind of key that Envoy can use",
                field="leafKeys",
                hint=f"choose among {', '.join(KEY_KINDS)}",
            )
        if DEFAULT_KEY not in self.leaf_keys:
            raise InvalidInput(
                f"{DEFAULT_KEY} is not among the kinds of key",
                field="leafKeys",
                hint="the control plane's own keys are of that kind",
            )
        if not 0 < self.min_ttl <= self.leaf_ttl <= self.max_ttl:
            raise InvalidInput(
                f"a leaf's {self.leaf_ttl} s are not between the least ({self.min_ttl}) and the most ({self.max_ttl})",
                field="leafTtl",
            )
        # An intermediate is replaced at half its life, so that a leaf of the longest life still ends before it.
        if self.max_ttl * 2 > self.intermediate_ttl or self.intermediate_ttl >= self.root_ttl:
            raise InvalidInput(
                "an intermediate must live at least twice as long as any leaf, and less than the root",
                field="intermediateTtl",
            )
