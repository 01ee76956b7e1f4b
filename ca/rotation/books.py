"""The certificates of a root that have not expired, by what was written down when they were issued.

In `drain` a rotation goes by what agents say they use, and by this: a certificate in a `podCertificate` volume, or one
that was fetched without an agent, has nobody who says when it is out of use. It counts until it ends, or its pod.
What an agent says of its own certificates is later than the books: it drops the key of the one before (docs/adr/0214).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ca.callers import PodLookup
from ca.issue import rfc3339
from ca.ledger import Ledger
from ca.rotation.decide import Member
from ca.rotation.members import Seen
from ca.rotation.state import Rotation
from ca.workload_certificate import COLLECTION
from kube.client import Client

BY_VOLUME = "pod"
"""Kind of caller of a certificate that was asked for by PodCertificateRequest."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between two readings while somebody is waited for


@dataclass(frozen=True, slots=True)
class Held:
    """A certificate that was issued to a pod. `root`: serial of its root; `caller` as in the ledger; `expires`: Unix
    seconds."""

    namespace: str
    pod: str
    uid: str
    root: str
    caller: str
    expires: float

    @property
    def title(self) -> str:
        return f"{self.namespace}/{self.pod}"


Read = Callable[[str], Iterable[Held]]
"""The unexpired certificates of the root with that serial. Raises a HeddleError when they cannot be read."""


class Reader:
    """`read` is the books, read again ever more seldom while there is something in them; `pods` knows who exists."""

    def __init__(self, read: Read, pods: PodLookup, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._read, self._pods, self._monotonic = read, pods, monotonic
        self._lock = threading.Lock()
        self._asked, self._kept = ("", 0), tuple[Held, ...]()
        self._again, self._pause = 0.0, 0.0

    def held(self, root: str, spoken_for: Collection[str], order: int = 0) -> tuple[Held, ...]:
        """Certificates of the root with that serial that pods may use without anybody saying so.

        `spoken_for`: the uids of pods whose agents say what they use. `order`: the number of the order to renew before
        which the last of them was issued, so that what was read can only become less; 0 where there may be more.
        Raises what reading and looking up raise.
        """
        with self._lock:
            now, asked = self._monotonic(), (root, order)
            if not order or asked != self._asked or now >= self._again:
                self._kept = tuple(self._read(root))
                self._pause = min(LONGEST_PAUSE, 2 * self._pause) if asked == self._asked else FIRST_PAUSE
                self._asked, self._again = asked, now + self._pause
            silent = [one for one in self._kept if one.caller == BY_VOLUME or one.uid not in spoken_for]
            return tuple(one for one in silent if self._lives(one))

    def _lives(self, one: Held) -> bool:
        facts = self._pods(one.namespace, one.pod, one.uid)
        return facts is not None and facts.uid == one.uid and not facts.finished


def of_ledger(ledger: Ledger, now: Callable[[], float]) -> Read:
    """The books of a ca that is alone."""

    def read(root: str) -> Iterator[Held]:
        for record in ledger.list(valid_at=now()):
            if record.root == root and record.pod_name and record.state != "failed":
                place = record.pod_namespace, record.pod_name, record.pod_uid
                yield Held(*place, root, record.caller, record.not_after)

    return read


def of_objects(client: Client, now: Callable[[], float]) -> Read:
    """The WorkloadCertificates, which all replicas write. Needs the right to `list` them. Where the kind is not served
    they cannot be read: an API server that has just started says so of a kind that has objects."""

    def read(root: str) -> Iterator[Held]:
        for page in client.list(COLLECTION):
            for item in page.items:
                yield from (one for one in held_of(item) if one.root == root and one.expires > now())

    return read


def held_of(item: Mapping[str, Any]) -> Iterator[Held]:
    """The certificates that a WorkloadCertificate tells of. An earlier one without a root was written by a version that
    knew of agents only."""
    metadata, spec = item["metadata"], item["spec"]
    owner = next((each.get("uid", "") for each in metadata.get("ownerReferences") or ()), "")
    for one in ({**spec, "uid": owner}, *(spec.get("earlier") or ())):
        yield Held(
            metadata["namespace"],
            metadata["name"],
            one.get("uid", ""),
            one.get("root", ""),
            one.get("caller", ""),
            datetime.fromisoformat(one["expires"]).timestamp(),
        )


def holders(held: Iterable[Held], state: Rotation, root: str) -> tuple[Member, ...]:
    """Who holds a certificate of `root` (its fingerprint): each pod once, with what to do about it. Pure."""
    last: dict[str, Held] = {}
    for one in held:
        if one.title not in last or one.expires > last[one.title].expires:
            last[one.title] = one
    return tuple(
        Member(title, state.sequence, state.order.number, root, trouble=_why(one))
        for title, one in sorted(last.items())
    )


def _why(one: Held) -> str:
    holder = "its podCertificate volume has one" if one.caller == BY_VOLUME else "it has one, of which no agent tells,"
    return f"{holder} of the root that leaves until {rfc3339(int(one.expires))}: restart the pod, or wait"


def behind(state: Rotation, seen: Seen) -> tuple[Member, ...]:
    """Replicas with certificates that the books do not have yet. Pure."""
    return tuple(
        Member(title, state.sequence, leaf=state.leaves, trouble=f"it has {said.unwritten} certificates to write down")
        for title, said in seen.replicas.items()
        if said.unwritten
    )


def with_holders(members: tuple[Member, ...], found: tuple[Member, ...]) -> tuple[Member, ...]:
    """`members`, and what the books say of them and of others. Pure."""
    noted = {one.name: one for one in found}
    told = tuple(
        replace(each, leaf=note.leaf, trouble=note.trouble) if (note := noted.get(each.name)) else each
        for each in members
    )
    known = {each.name for each in members}
    return (*told, *(one for one in found if one.name not in known))
