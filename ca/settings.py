"""Everything about the ca that an operator may choose, as one checked value."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.errors import InvalidInput
from mesh.identity import CONTROL_NAMESPACE, DEFAULT_TRUST_DOMAIN, Identity, check_trust_domain
from mesh.key_kinds import DEFAULT_KEY, KEY_KINDS

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

    def __str__(self) -> str:
        return f"service account {self.namespace}/{self.name}"

    def identity(self, trust_domain: str) -> Identity:
        """Its SPIFFE ID."""
        return Identity(trust_domain, self.namespace, self.name)


CA, OPERATOR = "heddle-ca", "heddle-operator"
SERVERS = frozenset({"heddle-webhook", "heddle-discovery", CA})
REVISIONED_WEBHOOK = "heddle-webhook-"
"""Service accounts in the control plane's namespace. The operator serves nothing."""


def dns_suffixes(control_namespace: str) -> tuple[str, ...]:
    """What every DNS name in a certificate ends with: intermediates may certify no other (`ca.profile`)."""
    return f"{control_namespace}.svc", f"{control_namespace}.svc.cluster.local"


@dataclass(frozen=True, slots=True)
class RootToken:
    """Where root keys are made, if it is a PKCS #11 token: the module (a shared library) and the token's label."""

    module: str
    label: str


@dataclass(frozen=True, slots=True)
class CaSettings:
    """Times are in seconds. InvalidInput when they contradict each other."""

    trust_domain: str = DEFAULT_TRUST_DOMAIN
    control_namespace: str = CONTROL_NAMESPACE
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
    # Whether the control plane's components run in pods; processes of `heddle local` do not.
    in_pods: bool = False

    @property
    def ca(self) -> Identity:
        """Who the ca is itself."""
        return self._control(CA).identity(self.trust_domain)

    @property
    def operator(self) -> ServiceAccount:
        """Who may read and steer everything: the `heddle` command."""
        return self._control(OPERATOR)

    def is_control_plane(self, account: ServiceAccount) -> bool:
        """Whether it is a component's, or the operator's."""
        return account == self.operator or bool(self.dns_names(account))

    def needs_pod(self, account: ServiceAccount) -> bool:
        """Whether it is only certified for a pod that exists; the `heddle` command never has one."""
        is_component = account.namespace == self.control_namespace and account.name in SERVERS
        return account != self.operator and (self.in_pods or not is_component)

    def dns_names(self, account: ServiceAccount) -> tuple[str, ...]:
        """Those that its certificate carries beside the SPIFFE ID, if it is a component's.

        Only the webhook needs one (the API server knows no SPIFFE); the others' are for people with curl. A revision's
        webhook has a Service, and an account, of the revision's name.
        """
        serves = account.name in SERVERS or account.name.startswith(REVISIONED_WEBHOOK)
        if account.namespace != self.control_namespace or not serves:
            return ()
        return tuple(f"{account.name}.{suffix}" for suffix in dns_suffixes(self.control_namespace))

    def _control(self, name: str) -> ServiceAccount:
        return ServiceAccount(self.control_namespace, name)

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
