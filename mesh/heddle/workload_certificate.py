"""WorkloadCertificate: the certificate that a pod holds, as the ca has issued it. Written by the ca, read by people.

One object a pod, under the pod's name and owned by it. Everything is in the spec and there is no status subresource:
nobody asks for a certificate by writing one, and a single request writes the whole object.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from mesh.istio.base import Model, Text
from mesh.istio.schema import Schema

Time = Annotated[Text, Schema(format="date-time")]
Hex = Annotated[Text, Schema(pattern=r"^[0-9a-f]*$", maxLength=64)]


class CertificateState(StrEnum):
    """Issued: the first of its pod; Renewed: a later one; Renewing: its pod should have renewed it by now."""

    Issued = "Issued"
    Renewed = "Renewed"
    Renewing = "Renewing"
    Expired = "Expired"
    Revoked = "Revoked"


class Caller(StrEnum):
    """What proved who asked: a service account token, the certificate before this one, the kubelet of its pod by a
    PodCertificateRequest, or the ca for itself."""

    token = "token"  # noqa: S105
    certificate = "certificate"
    pod = "pod"
    self = "self"


class CertificateKey(Model):
    kind: Text = ""
    """Kind of the key, such as P-256."""
    sha256: Hex = ""
    """SHA-256 of the public key (SubjectPublicKeyInfo), in hexadecimal."""


class EarlierCertificate(Model):
    serial: Hex
    """Serial number, in hexadecimal."""
    expires: Time
    """When it stops being valid."""
    root: Hex = ""
    """Serial number of the root that it leads to, in hexadecimal."""
    caller: Caller | None = None
    """What proved who asked for it."""
    uid: Annotated[Text, Schema(maxLength=64)] = ""
    """Of the pod that it was issued to: an earlier one may have had the same name."""


class WorkloadCertificate(Model):
    """The certificate that a pod holds."""

    pod: Annotated[Text, Schema(minLength=1, maxLength=253)]
    """Name of the pod."""
    identity: Annotated[Text, Schema(pattern=r"^spiffe://", maxLength=2048)]
    """SPIFFE ID in the certificate."""
    serial: Hex
    """Serial number, in hexadecimal."""
    issued: Time
    """When it became valid."""
    expires: Time
    """When it stops being valid."""
    renews_at: Time = ""
    """When the pod will ask for the next one."""
    root: Hex = ""
    """Serial number of the root that it leads to, in hexadecimal."""
    issuer: Hex = ""
    """Serial number of the intermediate that signed it, in hexadecimal."""
    node: Annotated[Text, Schema(maxLength=253)] = ""
    """The node that the pod runs on."""
    key: CertificateKey | None = None
    """The public key in it."""
    state: CertificateState
    """Whether it is the pod's first, a later one, late for its renewal, expired or revoked."""
    caller: Caller | None = None
    """What proved who asked for it."""
    replica: Annotated[Text, Schema(maxLength=253)] = ""
    """The pod of the ca that issued it."""
    earlier: Annotated[tuple[EarlierCertificate, ...], Schema(maxItems=16)] = ()
    """Those that the pod had before and that have not expired: to revoke an identity is to revoke them too."""
