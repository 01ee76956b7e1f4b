"""The certificate that a service shows, kept current: from an SVID or from files.

A TLS context is made once for each certificate and kept. What is renewed holds from the next connection on.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mesh.errors import HeddleError, Unavailable
from mesh.wire import TrustReport
from svid.follow import Follower
from svid.keeper import Keeper, Obtain, OnChange
from svid.material import SvidMaterial
from svid.trust import News


class Certificate(Protocol):
    """Where the TLS contexts of a service come from."""

    def context(self) -> ssl.SSLContext:
        """The context for a new connection; Unavailable before there is one."""

    def not_ready(self) -> str:
        """What is missing; "" when nothing is."""

    def close(self) -> None:
        """Renew no more."""


class SvidCertificate:
    """An SVID, renewed in a thread. `context_of` makes the TLS context; `on_change` is told after it is in force.

    `follow` makes what brings news of the trust bundle to the keeper; without it, whoever has some calls `tell`.
    """

    def __init__(
        self,
        obtain: Obtain,
        context_of: Callable[[SvidMaterial], ssl.SSLContext],
        on_change: OnChange | None = None,
        follow: Callable[[Keeper], Follower] | None = None,
    ) -> None:
        self._context: ssl.SSLContext | None = None
        self._context_of = context_of
        self._keeper = Keeper(obtain, on_change=self._changed)
        if on_change is not None:
            self._keeper.add_listener(on_change)
        self._follower = follow(self._keeper) if follow else None

    def obtain_now(self) -> None:
        """Get a certificate here and now; raises what `obtain` raises."""
        self._keeper.renew_now()

    def start(self) -> None:
        """From now on, get and renew in a thread. Call it in the process that serves."""
        self._keeper.start()
        if self._follower is not None:
            self._follower.start()

    def tell(self, news: News) -> None:
        """Trust this bundle, and renew early when that is ordered."""
        self._keeper.tell(news)

    def report(self) -> TrustReport | None:
        """What is acted upon now; None before there is a certificate."""
        return self._keeper.report()

    @property
    def material(self) -> SvidMaterial:
        """The certificate; Unavailable before there is one."""
        return self._keeper.current

    def context(self) -> ssl.SSLContext:
        if self._context is None:
            raise Unavailable(self.not_ready())
        return self._context

    def not_ready(self) -> str:
        return "" if self._context else f"no certificate yet: {self._keeper.last_error or 'asking the ca'}"

    def close(self) -> None:
        if self._follower is not None:
            self._follower.stop()
        self._keeper.stop()

    def _changed(self, material: SvidMaterial) -> None:
        self._context = self._context_of(material)


class FileCertificate:
    """PEM files, loaded again when one of them is newer than before; while they are being replaced, the last."""

    def __init__(self, files: tuple[Path, ...], load: Callable[..., ssl.SSLContext]) -> None:
        """`load` is called with the files and may raise OSError, of which ssl.SSLError is one."""
        self._files = files
        self._load = load
        self._stamp: tuple[int, ...] = ()
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        try:
            stamp = tuple(file.stat().st_mtime_ns for file in self._files)
            if stamp != self._stamp:
                self._context, self._stamp = self._load(*self._files), stamp
        except OSError as error:
            if self._context is None:
                raise Unavailable(f"the serving certificate cannot be read: {error}") from None
        assert self._context is not None
        return self._context

    def not_ready(self) -> str:
        try:
            self.context()
        except HeddleError as error:
            return str(error)
        return ""

    def close(self) -> None:
        return None


def client_context_from(certificate: Path, key: Path, roots: Path) -> ssl.SSLContext:
    """A context to connect with, from PEM files. The caller checks who answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(roots)
    return context
