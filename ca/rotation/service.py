"""Puts the parts of a rotation together, for one replica of the ca."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import structlog

from ca.authority import Authority
from ca.callers import PodLookup
from ca.rotation.acknowledgements import Acknowledgements
from ca.rotation.asking import Address, Asking
from ca.rotation.books import Held, Read, Reader
from ca.rotation.desk import Desk, RootKeys
from ca.rotation.documents import order_of, root_facts
from ca.rotation.driver import Driver
from ca.rotation.members import COMPONENTS, ReplicaReport
from ca.rotation.observe import Known, Observer, Place
from ca.rotation.population import Population
from ca.settings import CA, CaSettings
from ca.store import Store
from ca.trust import Trust
from kube.client import Client
from kube.leader import RENEW_SECONDS, Leader
from mesh.errors import HeddleError, Unavailable
from mesh.rbac import ROTATION_LEASE
from serving.certificate import SvidCertificate
from svid.material import PodRef
from svid.trust import News

LONGEST_WINDOW = 3600.0  # seconds over which renewals are spread, unless it is said otherwise

log = structlog.get_logger("ca")


@dataclass(frozen=True, slots=True)
class Shared:
    """What of this replica's the cluster sees: by default nothing, as where there is none.

    `unwritten`: pods whose certificates are not in the books yet; `carriers`: as `Known`'s; `published`: as
    `ReplicaReport`'s.
    """

    unwritten: Callable[[], int] = lambda: 0
    carriers: Callable[[], Mapping[str, int | None] | None] = dict
    published: Callable[[], int | None] = lambda: None


@dataclass(frozen=True, slots=True)
class RotationService:
    """What the ca's HTTP and its watch of pods need of it."""

    desk: Desk
    observer: Observer
    acknowledgements: Acknowledgements
    population: Population
    news: Callable[[], News]
    start: Callable[[], None]
    stop: Callable[[], None]


def rotation_service(
    authority: Authority,
    store: Store,
    certificate: SvidCertificate,
    settings: CaSettings,
    keys: RootKeys,
    *,
    pod: PodRef | None,
    pods: PodLookup,
    read: Read,
    shared: Shared,
    leads: Callable[[], bool],
    discovery: Address | None,
) -> RotationService:
    """`pod`: the own one, where there is one. `read`: the books. `discovery`: where it listens, where it has no pods.
    Not started yet."""
    control = settings.control_namespace
    own = f"{control}/{pod.name if pod else CA}"
    expected = tuple(f"{control}/{account}" for account in COMPONENTS) if discovery else ()
    population, acknowledgements = Population(control), Acknowledgements()

    def report() -> ReplicaReport | None:
        said = certificate.report()
        return None if said is None else ReplicaReport(said, authority.signs, shared.unwritten(), shared.published())

    reader = Reader(read, pods)

    def held(root: str, spoken_for: Collection[str], order: int) -> tuple[Held, ...]:
        serials = {facts.fingerprint: facts.serial for facts in map(root_facts, authority.trust.bundle.roots)}
        if root not in serials:
            raise Unavailable(f"root {root[:16]} is not in the bundle that this replica has read")
        return reader.held(serials[root], spoken_for, order)

    place = Place(settings.trust_domain, own, control, discovery, expected)
    known = Known(population.living, report, shared.carriers, held)
    observer = Observer(place, known, acknowledgements, Asking(lambda: certificate.material))
    desk = Desk(authority, store, keys, min(LONGEST_WINDOW, settings.leaf_ttl / 2), time.time)
    driver = Driver(desk, observer, leads)

    def news() -> News:
        return News(authority.bundle, order_of(authority.trust))

    def start() -> None:
        certificate.tell(news())  # an order may have been given before this process began
        driver.start()

    authority.on_trust(lambda trust: _follow(certificate, trust, news()))
    return RotationService(desk, observer, acknowledgements, population, news, start, driver.stop)


def _follow(certificate: SvidCertificate, trust: Trust, news: News) -> None:
    """The own certificate trusts what everyone is told to, and is renewed when the others' are."""
    certificate.tell(news)
    try:
        if certificate.material.root not in {root_facts(pem).fingerprint for pem in trust.bundle.roots}:
            certificate.obtain_now()  # the root was replaced by other means than a rotation
    except HeddleError as error:
        log.error("the ca's own certificate is not renewed", error=str(error))


class LeadsInTurn:
    """Whether this replica leads: it competes for the Lease while it is asked, and only then."""

    def __init__(self, client: Client, pod: PodRef, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._leader = Leader(client, pod.namespace, ROTATION_LEASE, pod.name)
        self._monotonic = monotonic
        self._competed = float("-inf")

    def __call__(self) -> bool:
        now = self._monotonic()
        if now - self._competed >= RENEW_SECONDS:
            self._competed = now
            self._leader.compete()
        return self._leader.leads

    def stop(self) -> None:
        """Give the Lease back."""
        self._leader.stop()
