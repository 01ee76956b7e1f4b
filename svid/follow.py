"""Follows what everyone is told about trust, for a component of the control plane: asks the ca, and says what it has.

One request does both. It is made twice a second on a connection that is kept, so that a new bundle is in force, and
acknowledged, within a second of its change; how often is measured in docs/adr/0200.
"""

from __future__ import annotations

import http.client
import json
import logging
import random as _random
import threading
from collections.abc import Callable

from mesh.errors import HeddleError
from mesh.wire import TrustReport
from svid.client import CaAddress, Connection, Untrusted, decoded, explained
from svid.keeper import Keeper
from svid.material import PodRef, SvidMaterial
from svid.roots import trusted
from svid.tls import client_context
from svid.trust import News, news_from_json

PATH = "/v1/bundle/acknowledgements"
EVERY_SECONDS = 0.5
LONGEST_PAUSE = 5.0
TIMEOUT = 5.0
MAX_ANSWER = 1 << 20

log = logging.getLogger("svid")


class Follower:
    """`on_news` hears of everything new before `keeper` does. `pod` is the own pod, where there is one.

    `roots` returns the PEM of the mounted root certificates. Who could not ask for as long as a rotation took knows the
    ca by them alone.
    """

    def __init__(
        self,
        keeper: Keeper,
        ca: CaAddress,
        roots: Callable[[], str],
        pod: PodRef | None = None,
        *,
        on_news: Callable[[News], None] = lambda _: None,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._keeper, self._ca, self._roots, self._pod = keeper, ca, roots, pod
        self._on_news, self._random = on_news, random
        self._connection: Connection | None = None
        self._connected_as: SvidMaterial | None = None
        self._failures = 0
        self._stopping = threading.Event()

    def start(self) -> None:
        """Follow in a daemon thread until `stop`."""
        threading.Thread(target=self._run, name="trust", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def step(self) -> bool:
        """Ask once; whether something was new. Raises HeddleError when the ca cannot be asked."""
        material, report = self._keeper.material, self._keeper.report()
        if material is None or report is None:
            return False
        news = self._ask(material, report)
        if news is None or news.version == report.version:
            return False
        self._on_news(news)
        self._keeper.tell(news)
        after = self._keeper.report()
        return after is not None and after.version != report.version

    def _run(self) -> None:
        while not self._stopping.is_set():
            pause = EVERY_SECONDS
            try:
                if self.step():
                    continue  # and acknowledge it at once
                self._failures = 0
            except HeddleError as error:
                if not self._failures:
                    log.warning("the ca cannot be asked for the trust bundle, will try again: %s", error)
                if isinstance(error, Untrusted):
                    self._keeper.refused()
                self._failures = min(self._failures + 1, 8)
                pause = min(LONGEST_PAUSE, EVERY_SECONDS * 2.0**self._failures)
            except Exception:  # the next attempt may go better
                log.exception("following the trust bundle failed")
            self._stopping.wait(pause * (0.75 + 0.5 * self._random()))
        self._disconnect()

    def _ask(self, material: SvidMaterial, report: TrustReport) -> News | None:
        if self._connected_as is not material:
            self._disconnect()
        fresh = self._connection is None
        try:
            return self._exchange(material, report)
        except HeddleError:
            self._disconnect()
            if fresh:
                raise
        return self._exchange(material, report)  # the ca may have closed the connection, or restarted

    def _exchange(self, material: SvidMaterial, report: TrustReport) -> News | None:
        with explained(self._ca):
            if self._connection is None:
                context = client_context(trusted(self._roots, material), material)
                self._connection = Connection(self._ca, context, TIMEOUT)
                self._connected_as = material
            headers = {"Content-Type": "application/json"}
            if self._pod is not None:
                headers["X-Heddle-Pod"] = str(self._pod)
            self._connection.request("POST", PATH, json.dumps(report.as_json()), headers)
            answer = self._connection.getresponse()
            raw = answer.read(MAX_ANSWER)
        if answer.status == http.client.NO_CONTENT:
            return None
        return news_from_json(decoded(answer.status, raw))

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._connected_as = None
