"""Keeps one SVID current: the thin shell round schedule.py.

`Keeper` knows neither the ca nor a token; it is given `obtain(current)`, which returns new material. `enrolment` makes
that function for a workload of the mesh. The ca itself passes one that signs in its own process.

One lock is held while material is obtained, so that a renewal by the thread and one by `renew_now` cannot overlap.
Works in ordinary and in gevent-patched processes (threading is then gevent's). From asyncio, call the blocking methods
in an executor, and use `call_soon_threadsafe` in the callback: callbacks run in whichever thread did the renewal.
"""

from __future__ import annotations

import logging
import random as _random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mesh.errors import HeddleError, Unavailable
from mesh.key_kinds import DEFAULT_KEY
from mesh.wire import TrustReport
from svid import schedule
from svid.client import CaAddress, Refused, Token, Unreachable, fetch
from svid.material import PodRef, SvidMaterial
from svid.request import new_key_request
from svid.roots import trusted
from svid.trust import NO_ORDER, News, early_renewal, has_lost_its_root, newer

log = logging.getLogger("svid")

Obtain = Callable[[SvidMaterial | None], SvidMaterial]
OnChange = Callable[[SvidMaterial], None]


class Keeper:
    """Holds the current material. `obtain(current)` is given None when there is no valid certificate to renew with."""

    def __init__(
        self,
        obtain: Obtain,
        *,
        on_change: OnChange | None = None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._obtain = obtain
        self._listeners: list[OnChange] = [on_change] if on_change else []
        self._wall, self._monotonic, self._random = wall, monotonic, random
        self._working = threading.Lock()
        self._wake = threading.Event()
        self._ready = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._material: SvidMaterial | None = None
        self._life: schedule.Life | None = None
        self._attempts = schedule.Attempts()
        self._order = NO_ORDER
        self._refused_at = float("-inf")
        self.last_error: HeddleError | None = None

    @property
    def material(self) -> SvidMaterial | None:
        """The newest material there is, valid or not; None before the first."""
        return self._material

    @property
    def current(self) -> SvidMaterial:
        """The newest material; Unavailable before there is any."""
        if self._material is None:
            raise Unavailable("there is no certificate yet", hint=str(self.last_error) if self.last_error else None)
        return self._material

    @property
    def renew_at(self) -> float | None:
        """When the current certificate is due (Unix seconds)."""
        return self._life.renew_at if self._life else None

    def add_listener(self, on_change: OnChange) -> None:
        """Call `on_change` with every later material, and at once with the current one if there is any."""
        with self._working:
            self._listeners.append(on_change)
            if self._material is not None:
                on_change(self._material)

    def step(self) -> float:
        """Do what is due now; return the seconds after which to call again. A failure is kept in `last_error`."""
        with self._working:
            wall, monotonic = self._wall(), self._monotonic()
            action = schedule.decide(self._life, self._attempts, wall, monotonic)
            if action is not schedule.Action.WAIT:
                try:
                    self._renew(recover=action is schedule.Action.RECOVER)
                except HeddleError as error:
                    log.warning("certificate not renewed, will try again: %s", error)
            return schedule.pause(self._life, self._attempts, self._wall(), self._monotonic())

    def renew_now(self) -> SvidMaterial:
        """Renew at once, in this thread, whatever the schedule says; raises what `obtain` raises."""
        with self._working:
            valid = self._life is not None and schedule.usable(self._life, self._wall())
            self._renew(recover=not valid)
            return self.current

    def tell(self, news: News) -> None:
        """Trust a newer bundle, and renew early when that is ordered. The listeners have heard of it on return."""
        with self._working:
            current = self._material
            if current is not None and news.bundle.stamp > current.bundle.stamp:
                self._material = replace(current, bundle=news.bundle)
                self._tell_listeners(self._material)
                if has_lost_its_root(self._material):
                    self._renew_soon()
            if news.order.number > self._order.number:
                self._order = news.order
                self._bring_forward(self._wall())
        self._wake.set()

    def refused(self) -> None:
        """A peer does not take the certificate in hand: renew at once, but for this reason not again and again."""
        with self._working:
            if schedule.may_believe(self._refused_at, self._monotonic()):
                self._refused_at = self._monotonic()
                self._renew_soon()
        self._wake.set()

    def report(self) -> TrustReport | None:
        """What is acted upon now; None before there is a certificate."""
        with self._working:
            current = self._material
            if current is None:
                return None
            bundle = current.bundle
            return TrustReport(bundle.sequence, bundle.revision, self._order.number, current.root, current.serial)

    def start(self) -> None:
        """Run `step` in a daemon thread until `stop`."""
        self._thread = threading.Thread(target=self._run, name="svid", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread. One request to the ca that is on its way is waited for, no longer than its timeout."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def wait_ready(self, timeout: float | None = None) -> SvidMaterial:
        """The material, as soon as there is any; Unavailable after `timeout` seconds without."""
        self._ready.wait(timeout)
        return self.current

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self.step())
            if not self._stopping:
                self._wake.clear()

    def _renew(self, *, recover: bool) -> None:
        try:
            material = self._obtain(None if recover else self._material)
        except HeddleError as error:
            self._failed(error)
            raise
        except Exception as error:  # a bug in one attempt must not end the thread that would make the next
            log.exception("certificate not renewed")
            wrapped = Unavailable(f"{type(error).__name__}: {error}")
            self._failed(wrapped)
            raise wrapped from error
        wall = self._wall()
        before = self._material
        material = replace(material, bundle=newer(before.bundle if before else None, material.bundle))
        if before is not None and not set(before.bundle.roots) & set(material.bundle.roots):
            self._order = NO_ORDER  # of a ca that is no more
        self._life = schedule.life(material.not_before, material.not_after, wall, self._random())
        self._attempts = schedule.after_success(self._life, wall, self._monotonic(), self._random())
        self._material, self.last_error = material, None
        self._bring_forward(wall + schedule.AGAIN)
        self._tell_listeners(material)
        self._ready.set()
        log.info("certificate %s of %s until %d", material.serial, material.identity, material.not_after)

    def _renew_soon(self) -> None:
        self._attempts = schedule.hurried(self._attempts, self._monotonic(), self._random())
        if self._life is not None:
            wall = self._wall()
            self._life = schedule.earlier(self._life, wall, wall, wall, 0.0)

    def _bring_forward(self, earliest: float) -> None:
        """Renew early, not before `earliest`, if the leaf is one of those that are to be (see `early_renewal`)."""
        if self._life is None or self._material is None:
            return
        window = early_renewal(self._order, self._material, earliest)
        if window is not None:
            self._life = schedule.earlier(self._life, *window, self._wall(), self._random())

    def _tell_listeners(self, material: SvidMaterial) -> None:
        for listener in self._listeners:
            try:
                listener(material)
            except Exception:  # one listener's failure is not the others'
                log.exception("a listener failed on the certificate %s", material.serial)

    def _failed(self, error: HeddleError) -> None:
        self.last_error = error
        told = error.retry_after if isinstance(error, Refused) else 0.0
        self._attempts = schedule.after_failure(self._attempts, self._monotonic(), self._random(), told)


def enrolment(
    ca: CaAddress,
    *,
    roots: Callable[[], str],
    token_file: Path | str,
    pod: PodRef | None = None,
    ttl_seconds: int | None = None,
    key_kind: str = DEFAULT_KEY,
    timeout: float = 10.0,
) -> Obtain:
    """`obtain` for a workload: renews by the SVID in hand, and by the token when there is none or the ca refuses it.

    `roots` returns the PEM of the mounted root certificates; it is called, and `token_file` read, for every
    request, since both change on disk; see `svid.roots`.
    """

    def obtain(current: SvidMaterial | None) -> SvidMaterial:
        request = new_key_request(key_kind)
        if current is not None:
            try:
                proven_by = trusted(roots, current)
                return fetch(ca, proven_by, request, current, pod=pod, ttl_seconds=ttl_seconds, timeout=timeout)
            except (Refused, Unreachable) as error:
                if isinstance(error, Refused) and error.status not in (401, 403):
                    raise
                log.warning("renewal by certificate failed, trying the token: %s", error)
        proven_by = trusted(roots, current)
        return fetch(ca, proven_by, request, _read_token(token_file), ttl_seconds=ttl_seconds, timeout=timeout)

    return obtain


def _read_token(path: Path | str) -> Token:
    try:
        return Token(Path(path).read_text().strip())
    except OSError as error:
        raise Unavailable(f"the service account token cannot be read: {error}") from None
