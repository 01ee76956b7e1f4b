"""Certificates that gateways serve: those that cannot be read, that have expired or soon will, or are for others."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from cryptography import x509

from mesh.analysis.gateways import pods_of
from mesh.analysis.model import Code, Finding, Severity
from mesh.analysis.view import View
from mesh.istio.base import IstioObject
from mesh.istio.gateway import Gateway
from mesh.istio.rules import host_covers
from mesh.objects import Key, Secret

UNREADABLE = Code(
    "HDL0601",
    "unreadable-certificate",
    Severity.ERROR,
    "The Secret that a Gateway serves from holds no certificate that can be read: handshakes fail.",
    "A kubernetes.io/tls Secret has tls.crt and tls.key in PEM.",
    ("IST0161",),
)
EXPIRED = Code(
    "HDL0602",
    "expired-certificate",
    Severity.ERROR,
    "The certificate that a Gateway serves has expired, or does not hold yet: clients refuse it.",
    "Put a new one into the Secret; it is served at once.",
)
EXPIRES_SOON = Code(
    "HDL0603",
    "certificate-expires-soon",
    Severity.WARNING,
    "The certificate that a Gateway serves holds for less than two weeks, or for less than a third of a life that is "
    "shorter than six.",
    "Renew it, and see why that has not been done by itself.",
)
FOR_OTHERS = Code(
    "HDL0604",
    "certificate-for-other-hosts",
    Severity.WARNING,
    "The certificate that a Gateway serves is not for a host of the server: clients refuse it there.",
    "Issue it for all hosts of the server, or correct credentialName.",
)
CODES = (UNREADABLE, EXPIRED, EXPIRES_SOON, FOR_OTHERS)
SOON = timedelta(days=14)
_KEYS = ("tls.crt", "cert")


class _Served(NamedTuple):
    """`names`: those of the certificate, in lower case."""

    begins: datetime
    ends: datetime
    names: tuple[str, ...]


def certificates_hold(view: View, thing: IstioObject[Gateway]) -> Iterator[Finding]:
    namespaces = sorted({each.namespace for each in pods_of(view, thing.spec)})
    for at, server in enumerate(thing.spec.servers):
        name = server.tls.credential_name if server.tls is not None else ""
        path = ("spec", "servers", at, "tls", "credentialName")
        for home in namespaces if name else ():
            secret = view.snapshot.secrets.get(Key(home, name))
            if secret is None or not _is_known(secret):
                continue  # what is missing is reported as such
            served = _served(secret)
            if served is None:
                says = f"Secret {home}/{name} holds no certificate that can be read"
                yield UNREADABLE.on(thing, *path, says=says, hint="it has tls.crt and tls.key in PEM", value=name)
                continue
            yield from _in_time(view, thing, path, served)
            for host in (each.rpartition("/")[2] for each in server.hosts):
                if host != "*" and not any(host_covers(one, host) for one in served.names):
                    says = f"the certificate is for {', '.join(served.names) or 'no name'}, and not for {host}"
                    hint = "issue it for all hosts of the server, or correct credentialName"
                    yield FOR_OTHERS.on(thing, *path, says=says, hint=hint, value=name)


def _in_time(
    view: View, thing: IstioObject[Gateway], path: tuple[str | int, ...], served: _Served
) -> Iterator[Finding]:
    if view.now is None:
        return
    left = served.ends - view.now
    if left <= timedelta():
        says = f"the certificate has expired on {served.ends:%Y-%m-%d %H:%M} UTC: clients refuse it"
        yield EXPIRED.on(thing, *path, says=says, hint="put a new one into the Secret")
    elif served.begins > view.now:
        says = f"the certificate holds from {served.begins:%Y-%m-%d %H:%M} UTC on only: clients refuse it"
        yield EXPIRED.on(thing, *path, says=says, hint="correct the clock of who issued it, or wait")
    elif left < min(SOON, (served.ends - served.begins) / 3):
        says = f"the certificate expires on {served.ends:%Y-%m-%d %H:%M} UTC, in {left.days} days"
        yield EXPIRES_SOON.on(thing, *path, says=says, hint="renew it")


def _is_known(secret: Secret) -> bool:
    """Whether there is anything to read: of a Secret that one may not see, only its name is known."""
    return any(secret.data.get(key) for key in _KEYS)


def _served(secret: Secret) -> _Served | None:
    text = next(secret.data[key] for key in _KEYS if secret.data.get(key))
    try:
        leaf = x509.load_pem_x509_certificates(base64.b64decode(text))[0]
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns = tuple(name.lower() for name in names.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        dns = ()
    except (ValueError, x509.DuplicateExtension):
        return None
    return _Served(leaf.not_valid_before_utc, leaf.not_valid_after_utc, dns)
