"""SPIFFE identities as Istio writes them: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.

Sources: SPIFFE-ID standard (trust domain: lower-case letters, digits, `.`, `-`, `_`; at most 255 bytes; the whole ID at
most 2,048 bytes; no empty, `.` or `..` segment, no percent-encoding), Kubernetes names (RFC 1123).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mesh.errors import InvalidInput

DEFAULT_TRUST_DOMAIN = "cluster.local"
CONTROL_NAMESPACE = "istio-system"
"""The control plane's namespace, unless it is installed into another: each component's own ($POD_NAMESPACE)."""
MAX_ID_BYTES = 2048

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}\Z")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """Who a workload is. Construction fails with InvalidInput on anything the SPIFFE standard or Kubernetes forbids."""

    trust_domain: str
    namespace: str
    service_account: str

    def __post_init__(self) -> None:
        check_trust_domain(self.trust_domain)
        if not _LABEL.match(self.namespace):
            raise InvalidInput(f"{self.namespace!r} is not a Kubernetes namespace name", field="namespace")
        if not _SUBDOMAIN.match(self.service_account):
            raise InvalidInput(f"{self.service_account!r} is not a service account name", field="serviceAccount")
        if len(str(self)) > MAX_ID_BYTES:
            raise InvalidInput(f"a SPIFFE ID is at most {MAX_ID_BYTES} bytes long, this one has {len(str(self))}")

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"


def check_trust_domain(name: str) -> None:
    """Raise InvalidInput unless `name` is a trust domain by the SPIFFE-ID standard."""
    if not _TRUST_DOMAIN.match(name):
        raise InvalidInput(
            f"{name!r} is not a SPIFFE trust domain",
            field="trustDomain",
            hint="use 1 to 255 lower-case letters, digits, dots, dashes and underscores, such as cluster.local",
        )


def parse_identity(uri: str) -> Identity:
    """The identity that `uri` names; InvalidInput if it is not exactly of Istio's form."""
    if len(uri) > MAX_ID_BYTES:
        raise InvalidInput(f"a SPIFFE ID is at most {MAX_ID_BYTES} bytes long, this one has {len(uri)}")
    parts = uri.split("/")
    if len(parts) != 7 or parts[0] != "spiffe:" or parts[1] or parts[3] != "ns" or parts[5] != "sa":
        raise InvalidInput(
            f"{uri!r} is not a workload's SPIFFE ID",
            hint="expected spiffe://<trust domain>/ns/<namespace>/sa/<service account>",
        )
    return Identity(parts[2], parts[4], parts[6])
