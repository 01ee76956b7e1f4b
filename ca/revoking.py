"""Changes the list of what is revoked where it is stored, by compare-and-swap, so that any replica may do it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import structlog

from ca.authority import Authority
from ca.ledger import Ledger
from ca.revocation import (
    DOCUMENT,
    KEY_COMPROMISE,
    REASONS,
    Entry,
    Revocations,
    check_identity,
    check_serial,
    restored,
    revocations_json,
    revocations_of,
    revoked,
)
from ca.settings import CaSettings, ServiceAccount
from ca.store import Store
from ca.trust import Trust
from mesh.errors import Conflict, Forbidden, HeddleError, InvalidInput, NotFound
from mesh.identity import parse_identity

ATTEMPTS = 8
_FIELDS = frozenset({"do", "serial", "identity", "pod", "reason", "serials"})

log = structlog.get_logger("ca")


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator asks for, of one of `serial`, `identity` and `pod` (`namespace/name`).

    `serials`: certificates of it that the operator knows of (serial -> its end), from other replicas.
    """

    do: str
    serial: str = ""
    identity: str = ""
    pod: str = ""
    reason: str = "unspecified"
    serials: tuple[tuple[str, int], ...] = ()


class Revoking:
    """The shared list, as this replica sees and changes it."""

    def __init__(
        self,
        authority: Authority,
        store: Store,
        ledger: Ledger,
        settings: CaSettings,
        now: Callable[[], float],
    ) -> None:
        self._authority, self._store, self._ledger = authority, store, ledger
        self._settings, self._now = settings, now

    @property
    def current(self) -> Revocations:
        """The list as this replica knows it."""
        return self._authority.revocations

    @property
    def listed(self) -> bool:
        """Whether every certificate on it is on the lists that proxies get too."""
        return bool(self._authority.bundle.crls) or not any(True for _ in self.current.serials())

    def carry_out(self, wish: Wish, by: str) -> Revocations:
        """Do what is wished by the operator `by`; the list afterwards. NotFound where there is nothing of the kind."""
        if wish.do == "restore":
            name = wish.identity or wish.serial
            after = self._change(lambda known: restored(known, name, int(self._now())))
            self._ledger.audit("restore", name=name, by=by, number=after.number)
            return after
        entries = self._entries(wish)
        for entry in entries:
            # Before it is stored: what is revoked and not in the log must not be.
            self._ledger.audit(
                "revoke", identity=entry.identity, serials=list(entry.serials), reason=entry.reason, by=by
            )

        def with_all(known: Revocations) -> Revocations:
            for entry in entries:
                known = revoked(known, entry, int(self._now()))
            return known

        return self._change(with_all)

    def complete(self, trust: Trust) -> None:
        """Add what only this replica knows: the certificates that it has issued to identities that are revoked, and
        the keys in certificates of its that are revoked because of them. Call it when the state has changed."""
        now = int(self._now())
        for entry in revocations_of(trust.others).entries:
            ours = self._ledger.serials(now, identity=entry.identity) if entry.identity else entry.serials
            addition = Entry({**ours}, entry.at, entry.reason, entry.identity, self._keys(entry.reason, ours))
            if ours.keys() <= entry.serials.keys() and addition.keys <= entry.keys:
                continue
            try:
                self._change(partial(_with_more, addition, now))
            except HeddleError as error:
                log.error("a revocation is not complete yet", name=entry.name, error=str(error))

    def _keys(self, reason: str, serials: Iterable[str]) -> frozenset[str]:
        return self._ledger.keys(serials) if reason == KEY_COMPROMISE else frozenset()

    def _entries(self, wish: Wish) -> list[Entry]:
        now, known = int(self._now()), dict(wish.serials)
        if wish.identity:
            self._check_not_ours(wish.identity)
            serials = {**known, **self._ledger.serials(now, identity=wish.identity)}
            return [Entry(serials, now, wish.reason, wish.identity, self._keys(wish.reason, serials))]
        if wish.pod:
            known |= self._ledger.serials(now, pod=wish.pod)
            if not known:
                raise NotFound(f"pod {wish.pod} has no certificate that this ca knows of", field="pod")
        else:
            ours = self._ledger.serials(now, serial=wish.serial)
            known = {wish.serial: (known | ours).get(wish.serial, now + self._settings.max_ttl)}
        return [
            Entry({serial: end}, now, wish.reason, keys=self._keys(wish.reason, [serial]))
            for serial, end in known.items()
        ]

    def _check_not_ours(self, identity: str) -> None:
        parsed = parse_identity(identity)
        if self._settings.is_control_plane(ServiceAccount(parsed.namespace, parsed.service_account)):
            raise Forbidden(
                f"{identity} is the control plane's: without it no proxy gets anything more",
                field="identity",
                hint="revoke single certificates of it, by serial",
            )

    def _change(self, change: Callable[[Revocations], Revocations]) -> Revocations:
        for _ in range(ATTEMPTS):
            self._authority.refresh()
            trust = self._authority.trust
            before = revocations_of(trust.others)
            after = change(before)
            if after == before:
                return before
            text = json.dumps(revocations_json(after), indent=1) + "\n"
            try:
                self._store.replace({**trust.documents(), DOCUMENT: text}, trust.version)
            except Conflict:
                continue
            log.info("revocations have changed", number=after.number, entries=len(after.entries))
            self._authority.refresh()
            return after
        raise Conflict("the ca's state is changed by others all the time", hint="try again")


def _with_more(addition: Entry, now: int, known: Revocations) -> Revocations:
    """Unless it was restored meanwhile."""
    there = any(entry.name == addition.name for entry in known.entries)
    return revoked(known, addition, now) if there else known


def wish_from(body: object, trust_domain: str) -> Wish:
    """The wish in a request's body; InvalidInput names the field that is wrong."""
    if not isinstance(body, dict):
        raise InvalidInput("the body is not a JSON object", hint='send {"do": "revoke", "serial": "..."}')
    unknown = sorted(body.keys() - _FIELDS)
    if unknown:
        raise InvalidInput(f"{unknown[0]!r} is not a field", field=unknown[0])
    do, reason, serials = body.get("do"), body.get("reason", "unspecified"), body.get("serials", {})
    if do not in ("revoke", "restore"):
        raise InvalidInput(f"{do!r} is nothing that can be done", field="do", hint="there are revoke and restore")
    if reason not in REASONS:
        raise InvalidInput(f"{reason!r} is not a reason", field="reason", hint=f"there are {', '.join(REASONS)}")
    named = [name for name in ("serial", "identity", "pod") if body.get(name)]
    if len(named) != 1 or not isinstance(body[named[0]], str):
        raise InvalidInput("exactly one of serial, identity and pod says what", field="serial")
    if not isinstance(serials, dict) or not all(isinstance(end, int) for end in serials.values()):
        raise InvalidInput("must be an object of serials and their ends", field="serials")
    if named == ["pod"] and (do == "restore" or body["pod"].count("/") != 1):
        raise InvalidInput("a pod is revoked as namespace/name, and restored by serial", field="pod")
    return Wish(
        do,
        serial=check_serial(body["serial"]) if named == ["serial"] else "",
        identity=check_identity(body["identity"], trust_domain) if named == ["identity"] else "",
        pod=body["pod"] if named == ["pod"] else "",
        reason=reason,
        serials=tuple((check_serial(serial), end) for serial, end in serials.items()),
    )
