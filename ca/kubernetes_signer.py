"""Intermediates signed through the Kubernetes CSR API: the root is not here at all.

The ca makes a key and a CertificateSigningRequest of usages `cert sign` and `crl sign` for a signer of the user's; who
holds the root approves and signs it. Nothing waits for that: each look says how far it is.
Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ca.profile import intermediate_request_extensions
from ca.root_import import CERTIFICATE, CHAIN, KEY, ROOT, ImportedRoot, check_import
from ca.settings import CaSettings
from ca.trust import new_serial
from kube.client import Client
from mesh.errors import NotFound, Unavailable
from mesh.problems import ObjectErrors

PATH = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
USAGES = ("cert sign", "crl sign")
LOOK_SECONDS = 2.0
_PEM = serialization.Encoding.PEM

log = structlog.get_logger("ca")


@dataclass(frozen=True, slots=True)
class _Pending:
    """A request that was made, and the key that it is for."""

    name: str
    key: ec.EllipticCurvePrivateKey = field(repr=False)


class KubernetesSigner:
    """Asks the signer `signer_name`; what it signs must lead to one of `roots_pem`.

    Needs the rights to `create` and `get` CertificateSigningRequests. `replica` goes into their names.
    """

    def __init__(
        self,
        client: Client,
        signer_name: str,
        roots_pem: str,
        settings: CaSettings,
        now: Callable[[], float],
        replica: str = "",
    ) -> None:
        self._client, self._signer, self.roots_pem = client, signer_name, roots_pem
        self._settings, self._now, self._replica = settings, now, replica
        self._pending: _Pending | None = None
        self._ready: ImportedRoot | None = None

    def wait(self, sleep: Callable[[float], object]) -> None:
        """Until the first intermediate is signed; who is waited for is in the log."""
        said = ""
        while self._ready is None:
            try:
                self._ready = self.intermediate()
            except Unavailable as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("no intermediate yet", error=said)
                sleep(LOOK_SECONDS)

    def intermediate(self) -> ImportedRoot:
        """A new intermediate with its key, once it is signed; Unavailable until then, saying whom it waits for."""
        if self._ready is not None:
            ready, self._ready = self._ready, None
            return ready
        pending = self._pending or self._request()
        try:
            found = self._client.get(f"{PATH}/{pending.name}")
        except NotFound:
            self._pending = None
            raise Unavailable(f"CertificateSigningRequest {pending.name} was removed; another is made") from None
        status = found.get("status") or {}
        self._check_conditions(pending, status)
        try:
            issued = base64.b64decode(status["certificate"], validate=True)
        except binascii.Error:
            issued = b""
        self._pending = None
        return self._checked(pending, issued)

    def _request(self) -> _Pending:
        key = ec.generate_private_key(ec.SECP256R1())
        serial = new_serial()
        name = "-".join(filter(None, ("heddle-ca", self._replica, f"{serial:x}"[:12])))
        settings = self._settings
        subject, extensions = intermediate_request_extensions(settings.trust_domain, serial, settings.control_namespace)
        builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
        for extension in extensions:
            builder = builder.add_extension(extension.value, critical=extension.critical)
        text = builder.sign(key, hashes.SHA256()).public_bytes(_PEM)
        spec = {
            "request": base64.b64encode(text).decode(),
            "signerName": self._signer,
            "usages": list(USAGES),
            "expirationSeconds": settings.intermediate_ttl,
        }
        metadata = {"name": name, "labels": {"app.kubernetes.io/name": "heddle-ca"}}
        self._client.post(
            PATH,
            {
                "apiVersion": "certificates.k8s.io/v1",
                "kind": "CertificateSigningRequest",
                "metadata": metadata,
                "spec": spec,
            },
        )
        self._pending = _Pending(name, key)
        log.info("an intermediate is asked for", request=name, signer=self._signer)
        return self._pending

    def _check_conditions(self, pending: _Pending, status: Mapping[str, Any]) -> None:
        """Unavailable unless there is a certificate. What was denied or failed is asked for anew."""
        conditions = {each["type"]: each for each in status.get("conditions") or ()}
        for kind in ("Denied", "Failed"):
            if kind in conditions:
                self._pending = None
                why = conditions[kind].get("message") or conditions[kind].get("reason") or "no reason is given"
                raise Unavailable(f"CertificateSigningRequest {pending.name}: {kind.lower()}: {why}")
        if status.get("certificate"):
            return
        if "Approved" in conditions:
            raise Unavailable(
                f"CertificateSigningRequest {pending.name} is approved, and not signed yet",
                hint=f"does the signer {self._signer} run?",
            )
        raise Unavailable(
            f"CertificateSigningRequest {pending.name} waits for its approval",
            hint=f"kubectl certificate approve {pending.name}",
        )

    def _checked(self, pending: _Pending, issued: bytes) -> ImportedRoot:
        key = pending.key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        first, end, rest = issued.partition(b"-----END CERTIFICATE-----\n")
        files = {ROOT: self.roots_pem.encode(), CERTIFICATE: first + end, CHAIN: rest, KEY: key}
        try:
            return check_import(files, None, self._settings.trust_domain, self._now(), self._settings.leaf_ttl)
        except ObjectErrors as error:
            faults = "; ".join(problem.message for problem in error.problems)
            raise Unavailable(
                f"what {self._signer} signed for CertificateSigningRequest {pending.name} cannot be used: {faults}",
                hint="issue it under the roots of --roots-file, as the request asks, and to live longer than a leaf",
            ) from None
