"""How often who may ask: so much for each caller, so much for an address that fails to prove itself, so much in total.

What is counted for a caller is counted after it has proved who it is, so that nobody can use up another's share; but a
credential whose holder has asked too often is refused by its digest, before any signature is verified. Whoever is
refused is told when to come back; those whom the total refuses are told different moments, so that they come one after
the other and all get there.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Hashable

from ca.settings import Rate
from mesh.errors import Busy

MOST_KEYS = 50_000  # remembered; the longest unused is forgotten first
SHORTEST_RETRY = 1.0  # Retry-After has whole seconds


class Limiter:
    """Says of each key when it may next (the generic cell rate algorithm: one number for each key).

    `now` is monotonic seconds. Safe for many threads.
    """

    def __init__(self, rate: Rate, most_keys: int = MOST_KEYS) -> None:
        self._interval = 1.0 / rate.per_second if rate.per_second else 0.0
        self._slack = self._interval * rate.burst
        self._most_keys = most_keys
        self._lock = threading.Lock()
        self._next: OrderedDict[Hashable, float] = OrderedDict()

    def take(self, key: Hashable, now: float) -> float:
        """0.0, and it is counted; or the seconds after which to ask again, and it is not."""
        if not self._interval:
            return 0.0
        with self._lock:
            due = max(self._next.get(key, now), now) + self._interval
            wait = due - now - self._slack
            if wait > 1e-9:
                return wait
            self._next[key] = due
            self._next.move_to_end(key)
            if len(self._next) > self._most_keys:
                self._next.popitem(last=False)
            return 0.0

    def wait(self, key: Hashable, now: float) -> float:
        """The same, and it is not counted."""
        if not self._interval:
            return 0.0
        with self._lock:
            return max(0.0, max(self._next.get(key, now), now) + self._interval - now - self._slack)


class Limits:
    """The ca's, at its door. Methods raise Busy with the seconds after which to come again."""

    def __init__(self, caller: Rate, failures: Rate, total: Rate) -> None:
        self._callers, self._failures, self._total = Limiter(caller), Limiter(failures), Limiter(total)
        self._total_rate = total.per_second
        self._lock = threading.Lock()
        self._hot: OrderedDict[bytes, float] = OrderedDict()
        self._promised = 0.0
        self._secret = secrets.token_bytes(16)

    def before(self, credential: bytes, address: str, now: float) -> None:
        """Before anything is verified. `credential` is what was shown; only a keyed digest of it is kept."""
        wait = self._failures.wait(address, now)
        if wait:
            raise _busy(f"{address} has failed to prove who it is too often", wait)
        with self._lock:
            until = self._hot.get(self._digest(credential), 0.0)
        if until > now:
            raise _busy("this caller asks too often", until - now)

    def failed(self, address: str, now: float) -> None:
        """Somebody at that address did not prove who it is."""
        self._failures.take(address, now)

    def known(self, caller: Hashable, credential: bytes, now: float) -> None:
        """Count a request of `caller`, who has proved it by `credential`."""
        wait = self._callers.take(caller, now)
        if wait:
            with self._lock:
                self._hot[self._digest(credential)] = now + wait
                if len(self._hot) > MOST_KEYS:
                    self._hot.popitem(last=False)
            raise _busy(f"{caller} asks too often", wait)
        wait = self._total.take("", now)
        if wait:
            with self._lock:  # a place behind those who were refused before
                self._promised = max(self._promised, now) + 1.0 / self._total_rate
                wait += self._promised - now
            raise _busy("too many certificates are asked for at once", wait)

    def _digest(self, credential: bytes) -> bytes:
        return hashlib.blake2b(credential, digest_size=16, key=self._secret).digest()


def _busy(message: str, wait: float) -> Busy:
    return Busy(message, retry_after=max(SHORTEST_RETRY, wait))
