"""What has been revoked: the list that the replicas of the ca share, as a value. Pure.

A serial is one certificate: it cannot renew itself, its holder may come with its token and get another. An identity
gets nothing more, whatever it shows, and every certificate that it has is revoked. `revocations.json`, beside root and
bundle (`ca.store`), is the list as a document.
Source: RFC 5280 section 5.3.1 (reasons).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mesh.errors import Busy, InvalidInput, MissingPrerequisite, NotFound
from mesh.identity import parse_identity

DOCUMENT = "revocations.json"
KEY_COMPROMISE = "keyCompromise"
REASONS = (
    "unspecified",
    KEY_COMPROMISE,
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "privilegeWithdrawn",
)
MOST_SERIALS = 5_000  # all proxies hold the list: some 65 bytes each as PEM, for each root


@dataclass(frozen=True, slots=True)
class Entry:
    """One revocation: of `identity` if that is not empty, with the serials that it had, else of its one serial.

    `serials`: serial (lower-case hexadecimal) -> the certificate's end. `at`: when it was revoked. Unix seconds.
    `keys`: fingerprints of the keys in them, where the reason is that those are known to somebody else.
    """

    serials: Mapping[str, int]
    at: int
    reason: str = "unspecified"
    identity: str = ""
    keys: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The identity, or the serial."""
        return self.identity or next(iter(self.serials))


@dataclass(frozen=True, slots=True)
class Revocations:
    """The list. `number` grows with every change, and `updated` (Unix seconds) is when it last did."""

    number: int = 0
    updated: int = 0
    entries: tuple[Entry, ...] = field(default=())

    def serials(self) -> Iterator[tuple[str, Entry]]:
        """Every certificate that is revoked, once."""
        seen: set[str] = set()
        for entry in self.entries:
            for serial in entry.serials:
                if serial not in seen:
                    seen.add(serial)
                    yield serial, entry

    def refusal(self, identity: str, serial: str) -> str:
        """Why who shows a certificate of that serial ("": none), and is `identity`, gets nothing; "" if it may."""
        for entry in self.entries:
            if entry.identity == identity:
                return f"{identity} has been revoked ({entry.reason})"
            if serial in entry.serials:
                return f"certificate {serial} has been revoked ({entry.reason})"
        return ""

    def knows_key(self, fingerprint: str) -> bool:
        """Whether the key of this fingerprint is compromised: whoever has a token does not get it certified again."""
        return any(fingerprint in entry.keys for entry in self.entries)


def revoked(known: Revocations, entry: Entry, now: int) -> Revocations:
    """With `entry`. What is on the list already stays as it was, but for serials and keys that `entry` adds."""
    there = next((each for each in known.entries if each.name == entry.name), None)
    if there is not None and entry.serials.keys() <= there.serials.keys() and entry.keys <= there.keys:
        return known
    merged = entry
    if there is not None:
        merged = replace(there, serials={**entry.serials, **there.serials}, keys=there.keys | entry.keys)
    entries = tuple(each for each in known.entries if each is not there)
    return _changed(known, (*entries, merged), now)


def restored(known: Revocations, name: str, now: int) -> Revocations:
    """Without the serial or the identity `name`. NotFound when it is not on the list."""
    left = tuple(entry for entry in known.entries if entry.name != name)
    if len(left) == len(known.entries):
        within = next((entry.identity for entry in known.entries if name in entry.serials), "")
        hint = f"it is revoked with {within}: restore that" if within else "`heddle certificates revoked` has the list"
        raise NotFound(f"{name} is not revoked", hint=hint)
    return _changed(known, left, now)


def _changed(known: Revocations, entries: tuple[Entry, ...], now: int) -> Revocations:
    """The next number, without certificates that have ended: they need no revocation. Identities stay."""
    left = []
    for entry in entries:
        serials = {serial: end for serial, end in entry.serials.items() if end >= now}
        if serials or entry.identity:
            left.append(replace(entry, serials=serials))
    if sum(len(entry.serials) for entry in left) > MOST_SERIALS:
        raise Busy(
            f"more than {MOST_SERIALS} certificates would be revoked",
            hint="rotate the root instead: `heddle rotate start`",
        )
    return Revocations(known.number + 1, now, tuple(left))


def check_serial(text: str) -> str:
    """A serial as certificates have it here: lower-case hexadecimal, no leading zeros. Colons are left out."""
    bare = text.replace(":", "").lower().lstrip("0")
    if not bare or len(bare) > 40 or any(digit not in "0123456789abcdef" for digit in bare):
        raise InvalidInput(f"{text!r} is not a serial number", field="serial", hint="hexadecimal, up to 20 bytes")
    return bare


def check_identity(text: str, trust_domain: str) -> str:
    """A workload's SPIFFE ID of this trust domain."""
    identity = parse_identity(text)
    if identity.trust_domain != trust_domain:
        raise InvalidInput(f"{text} is not of the trust domain {trust_domain}", field="identity")
    return str(identity)


def revocations_json(known: Revocations) -> dict[str, Any]:
    """The list as JSON: on the wire, and in the document."""
    return {
        "number": known.number,
        "updated": known.updated,
        "entries": [
            {
                "identity": entry.identity,
                "serials": dict(entry.serials),
                "at": entry.at,
                "reason": entry.reason,
                **({"keys": sorted(entry.keys)} if entry.keys else {}),
            }
            for entry in known.entries
        ],
    }


def revocations_of(documents: Mapping[str, str]) -> Revocations:
    """The list in the ca's documents; empty where there is none. MissingPrerequisite when it is damaged: whom to
    refuse must not be guessed."""
    text = documents.get(DOCUMENT)
    if text is None:
        return Revocations()
    try:
        raw = json.loads(text)
        entries = tuple(
            Entry(
                {str(serial): int(end) for serial, end in each["serials"].items()},
                int(each["at"]),
                str(each["reason"]),
                str(each["identity"]),
                frozenset(map(str, each.get("keys", ()))),
            )
            for each in raw["entries"]
        )
        if not all(entry.identity or entry.serials for entry in entries):
            raise ValueError("an entry names nothing")
        return Revocations(int(raw["number"]), int(raw["updated"]), entries)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MissingPrerequisite(f"{DOCUMENT} beside the root cannot be read: {error}") from None
