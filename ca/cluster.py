"""What the ca does on a cluster beside issuing: nothing here is waited for by a request.

It tells of certificates and refusals in objects and events, keeps the roots where pods mount them, and follows the root
that the replicas share.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from ca import workload_certificate
from ca.authority import Authority
from ca.callers import PodFacts
from ca.certificate_states import CertificateStates
from ca.ledger import Ledger, Record
from ca.oldest import Oldest
from ca.pods import PodWatch
from ca.refusals import Refusals
from ca.root_keeper import RootKeeper
from ca.rotation.books import BY_VOLUME
from ca.secret_store import SecretStore
from kube.client import Client
from kube.source import Changed, Event, Source
from kube.write_behind import Counts, WriteBehind
from mesh.errors import HeddleError
from svid.material import PodRef, TrustBundle

# An object costs the ca about 2 ms of the interpreter that issuance needs too, and the API server a write to its disk.
CERTIFICATES_PER_SECOND = 100.0
MOST_WAITING = 20_000  # certificates; about 1 KB each
MOST_REMEMBERED = 20_000  # objects that need not be read before they are written; about 1 KB each
EVENTS_PER_SECOND = 5.0
MOST_EVENTS_WAITING = 200
LAST_SECONDS = 5.0  # for what waits when the ca ends
CATCH_UP_SECONDS = 5.0
SETTLE_SECONDS = 3.0  # after the root was removed: whoever uninstalls removes the ca too

log = structlog.get_logger("ca")


def newest(records: Iterable[Record]) -> Iterable[Record]:
    """The last of each pod, root and kind: a rotation asks who has a certificate of a root (docs/adr/0214). Pure."""
    return {
        (record.pod_namespace, record.pod_name, record.pod_uid, record.root, record.caller == BY_VOLUME): record
        for record in records
    }.values()


class Cluster:
    """`pod` is this ca's own, where it runs in one; `store` has the root."""

    def __init__(
        self, client: Client, authority: Authority, ledger: Ledger, pod: PodRef | None, store: SecretStore
    ) -> None:
        self._client = client
        self._authority = authority
        self._ledger = ledger
        self._pod = pod
        self._replica = pod.name if pod else ""
        self._pods: PodWatch | None = None
        self._store = store
        self._refusals = Refusals(self._replica, time.time)
        self._there: dict[tuple[str, str], dict[str, Any]] = {}  # by pod, as last written; the oldest first
        self._certificates: WriteBehind[Record] = WriteBehind(
            "WorkloadCertificates", self._write, limit=MOST_WAITING, per_second=CERTIFICATES_PER_SECOND
        )
        self._events: WriteBehind[Any] = WriteBehind(
            "events",
            lambda series: self._refusals.write(client, series),
            limit=MOST_EVENTS_WAITING,
            per_second=EVENTS_PER_SECOND,
        )
        self._revision = authority.revocations.number
        self._oldest = Oldest(self._known)
        self._states = CertificateStates(
            client, revoked=lambda: {serial for serial, _ in authority.revocations.serials()}, oldest=self._oldest
        )
        self._roots = RootKeeper(client, lambda: authority.bundle, store.namespace, self._ending)
        self._behind = threading.Event()
        self._stopping = threading.Event()

    def start(self, pods: PodWatch, *others: Callable[[Event], None]) -> None:
        """Begin; what an earlier process of this replica left unwritten is written now. `others` hear of pods too."""
        self._pods = pods
        self._certificates.start()
        self._events.start()
        self._states.start()
        self._catch_up()
        self._roots.start()
        pods.start(self._client, self._roots.take, *others)
        self._authority.on_bundle(lambda _: self._roots.check())
        self._authority.on_bundle(self._note_revision)
        Source([self._store.watched()], self._client).start(self._changed)
        threading.Thread(target=self._keep_up, name="catch-up", daemon=True).start()

    def _note_revision(self, bundle: TrustBundle) -> None:
        if bundle.revision != self._revision:
            self._revision = bundle.revision
            self._states.wake()

    def issued(self, record: Record) -> None:
        """A certificate goes out. Never raises; and never blocks, but for one of a volume: that is answered by the API
        server, so that it can as well be asked to keep the object first."""
        if record.caller == BY_VOLUME and self._written(record):
            return
        self._queue(record)

    def _queue(self, record: Record) -> None:
        if record.pod_name and not self._certificates.offer(record.serial, record):
            self._behind.set()

    def refused(self, pod: PodRef, error: HeddleError) -> None:
        """A request of this very pod was refused. Never blocks and never raises."""
        self._refusals.refused(pod, error, self._events.offer)

    def counts(self) -> dict[str, tuple[int, Counts]]:
        """By what is written: how many wait, and what became of the others."""
        return {
            "certificates": (len(self._certificates), self._certificates.counts),
            "events": (len(self._events), self._events.counts),
        }

    def unwritten(self) -> int:
        """How many certificates no object tells of yet."""
        return len(self._certificates) + self._behind.is_set()

    def first_ends(self) -> dict[str, float]:
        """When the first of the certificates in use ends, by who holds it: as of the last look at all objects."""
        return self._oldest.ends

    def carriers(self) -> dict[str, int | None] | None:
        """As RootKeeper's."""
        return self._roots.carriers()

    def stop(self) -> None:
        """Write what waits, for a few seconds at most. May be called more than once."""
        self._stopping.set()
        self._roots.stop()
        self._states.stop()
        left = self._certificates.stop(LAST_SECONDS)
        self._events.stop()
        if left:
            log.warning("WorkloadCertificates are left unwritten; the ledger has them", count=left)

    def _written(self, record: Record) -> bool:
        """Write the object in this thread; whether that went well."""
        self._there.pop((record.pod_namespace, record.pod_name), None)  # it will have changed
        try:
            workload_certificate.write(self._client, workload_certificate.workload_certificate(record, self._replica))
        except HeddleError as error:
            log.warning("a WorkloadCertificate is not written yet", pod=record.pod_name, error=str(error))
            return False
        return True

    def _write(self, record: Record) -> None:
        pod = (record.pod_namespace, record.pod_name)
        body = workload_certificate.workload_certificate(record, self._replica)
        there = workload_certificate.write(self._client, body, self._there.pop(pod, None))
        self._there[pod] = workload_certificate.essence(there)
        if len(self._there) > MOST_REMEMBERED:
            self._there.pop(next(iter(self._there)), None)

    def _changed(self, event: Event) -> None:
        if isinstance(event, Changed) and event.deleted:
            self._stopping.wait(SETTLE_SECONDS)
            if self._stopping.is_set() or self._ending():
                return
        try:
            self._authority.refresh()
        except HeddleError as error:
            log.error("the root that is stored cannot be used; the one in memory goes on", error=str(error))

    def _known(self, namespace: str, name: str, uid: str) -> PodFacts | None:
        return self._pods.known(namespace, name, uid) if self._pods is not None else None

    def _ending(self) -> bool:
        """Whether our own pod is being deleted: then what others remove is not put back."""
        if self._pod is None or self._pods is None:
            return False
        try:
            facts = self._pods(self._pod.namespace, self._pod.name, self._pod.uid)
        except HeddleError:
            return False
        return facts is None or facts.deleting

    def _keep_up(self) -> None:
        while not self._stopping.wait(CATCH_UP_SECONDS):
            if self._behind.is_set() and not len(self._certificates):
                self._behind.clear()
                self._catch_up()

    def _catch_up(self) -> None:
        """Queue what the ledger knows of, and no object may tell of."""
        for record in newest(each for each in self._ledger.list(valid_at=time.time()) if each.state != "failed"):
            self._queue(record)
