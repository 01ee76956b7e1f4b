"""One issuance from end to end: prepare, record, then sign."""

from __future__ import annotations

import binascii
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ca.authority import Authority, SigningIssuer
from ca.ledger import Ledger, Record
from ca.policy import Caller, authorize, check_key
from ca.request import SignableKey
from ca.serials import RANDOM_BYTES, leaf_serial
from ca.settings import CaSettings
from ca.sign import Prepared, prepare, sign
from ca.trust import bundle_json
from mesh.errors import Revoked
from svid.material import TrustBundle

_LINE = 64  # RFC 7468 section 2


@dataclass(frozen=True, slots=True)
class Issued:
    """A signed leaf. Times are Unix seconds."""

    leaf_pem: str
    intermediate_pem: str
    bundle: TrustBundle
    caller: Caller
    serial: str
    not_before: int
    not_after: int


@dataclass(frozen=True, slots=True)
class Begun:
    """A leaf that may be signed, once its record is written."""

    caller: Caller
    signing: SigningIssuer
    prepared: Prepared
    record: Record

    def issued(self, leaf: bytes, bundle: TrustBundle) -> Issued:
        """With the leaf (DER)."""
        record = self.record
        return Issued(
            pem(leaf), self.signing.pem, bundle, self.caller, record.serial, record.not_before, record.not_after
        )


class Issuance:
    """Signs for callers that somebody else has authenticated. Safe to use from many threads."""

    def __init__(
        self,
        authority: Authority,
        ledger: Ledger,
        settings: CaSettings,
        now: Callable[[], float],
        on_issued: Callable[[Record], None] = lambda _: None,
    ) -> None:
        """`on_issued` is told of each certificate once it is signed; it must neither raise nor block who
        waits for the answer."""
        self._authority = authority
        self._ledger = ledger
        self._settings = settings
        self._now = now
        self._on_issued = on_issued

    def issue(self, caller: Caller, key: SignableKey, requested_ttl: int | None) -> Issued:
        """Raises Forbidden by policy, Unavailable when it cannot be recorded: then nothing has been signed."""
        (done,) = self.finish([self.begin(caller, key, requested_ttl)])
        if isinstance(done, Exception):
            raise done
        return done

    def begin(self, caller: Caller, key: SignableKey, requested_ttl: int | None) -> Begun:
        """What will be signed, and nothing has been written or signed. Raises as `issue`."""
        check_key(key, self._settings)
        now = self._now()
        refusal = self._authority.revocations.refusal(
            str(caller.identity), caller.proof if caller.kind == "certificate" else ""
        )
        if refusal:
            raise Revoked(refusal, hint="`heddle certificates revoked` has the list")
        fingerprint = key.fingerprint
        if self._authority.revocations.knows_key(fingerprint):
            raise Revoked("this key is compromised: a certificate with it was revoked for that", hint="make another")
        signing = self._authority.issuer(self._settings.max_ttl)
        grant = authorize(caller, requested_ttl, self._settings, signing.issuer, now)
        number = leaf_serial(caller.pod_uid, secrets.token_bytes(RANDOM_BYTES))
        prepared = prepare(signing.issuer, grant, key, number)
        record = Record(
            serial=f"{number:x}",
            identity=str(grant.identity),
            caller=caller.kind,
            pod_namespace=caller.pod_namespace,
            pod_name=caller.pod_name,
            pod_uid=caller.pod_uid,
            node=caller.node,
            key_kind=key.kind,
            key_fingerprint=fingerprint,
            issuer=signing.serial,
            root=signing.root,
            prepared_at=now,
            not_before=grant.not_before,
            not_after=grant.not_after,
            proof=caller.proof,
        )
        return Begun(caller, signing, prepared, record)

    def finish(self, begun: Sequence[Begun]) -> list[Issued | Exception]:
        """Record all of them, then sign each: in this order, the certificate or why it could not be signed.

        Raises Unavailable when they cannot be recorded: then nothing has been signed.
        """
        self._ledger.record(*[each.record for each in begun])
        signed = [(each, _signature(each)) for each in begun]
        good = [each.record for each, leaf in signed if isinstance(leaf, bytes)]
        if len(good) < len(begun):
            failed = (each.record.serial for each, leaf in signed if not isinstance(leaf, bytes))
            self._ledger.mark(*failed, issued=False)
        if good:
            self._ledger.mark(*[record.serial for record in good], issued=True)
        for record in good:
            self._on_issued(record)
        bundle = self._authority.bundle
        return [each.issued(leaf, bundle) if isinstance(leaf, bytes) else leaf for each, leaf in signed]


def _signature(begun: Begun) -> bytes | Exception:
    """The leaf (DER)."""
    try:
        return sign(begun.signing.key, begun.prepared)
    except Exception as error:  # a key that is elsewhere may fail in any way; the others go on
        return error


def issued_json(issued: Issued) -> dict[str, object]:
    """The body of a 201."""
    return {
        "chain": [issued.leaf_pem, issued.intermediate_pem],
        "bundle": bundle_json(issued.bundle),
        "serial": issued.serial,
        "notBefore": rfc3339(issued.not_before),
        "notAfter": rfc3339(issued.not_after),
    }


@lru_cache(maxsize=256)
def rfc3339(seconds: int) -> str:
    """Whole seconds, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def pem(der: bytes) -> str:
    """A certificate as PEM, RFC 7468."""
    text = binascii.b2a_base64(der, newline=False).decode("ascii")
    lines = "\n".join(text[at : at + _LINE] for at in range(0, len(text), _LINE))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"
