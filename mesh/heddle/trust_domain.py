"""TrustDomain: what a trust domain trusts, and where the rotation of its root stands.

Written by the ca, read by people. One object, not in any namespace. It commands nothing: rotations are asked for with
`heddle rotate`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from mesh.heddle.workload_certificate import Hex, Time
from mesh.istio.base import Flag, Model, Text, Whole
from mesh.istio.schema import Schema

Count = Annotated[Whole, Schema(minimum=0)]


class RotationPhase(StrEnum):
    """In the order in which they are passed."""

    idle = "idle"
    distribute = "distribute"
    sign = "sign"
    renew = "renew"
    drain = "drain"
    retire = "retire"
    destroy = "destroy"


class Direction(StrEnum):
    """To the new root, or back to the old one."""

    forward = "forward"
    back = "back"


class RootRole(StrEnum):
    """active: signs now; incoming: will; outgoing: will no longer be trusted."""

    active = "active"
    incoming = "incoming"
    outgoing = "outgoing"


class Root(Model):
    """A root certificate."""

    role: RootRole
    """What it is there for."""
    fingerprint: Hex
    """SHA-256 of the certificate, in hexadecimal."""
    serial: Hex
    """Serial number, in hexadecimal."""
    not_before: Time
    """When it became valid."""
    not_after: Time
    """When it stops being valid."""


class Leaves(Model):
    """Certificates in use, by their root."""

    old: Count = 0
    """Of the root that was there before the rotation."""
    new: Count = 0
    """Of the root that the rotation brings."""


class TrustDomain(Model):
    """What a trust domain trusts, and where the rotation of its root stands."""

    trust_domain: Annotated[Text, Schema(minLength=1, maxLength=255)]
    """Name of the trust domain, as in SPIFFE IDs."""


class TrustDomainStatus(Model):
    """What it trusts now, and how far the rotation is."""

    phase: RotationPhase
    """What is being waited for; idle when no rotation is under way."""
    direction: Direction = Direction.forward
    """Whether it goes to the new root, or back to the old one."""
    paused: Flag = False
    """Whether somebody has paused it."""
    sequence: Count
    """Number of the trust bundle; it grows with each change."""
    active_root: Hex
    """The beginning of the fingerprint of the root that signs."""
    other_root: Hex = ""
    """That of the root that is coming or going."""
    acknowledged: Text
    """How many of all have done what the phase is about, such as 12/40."""
    first_missing: Text = ""
    """The first names of those who have not."""
    missing: tuple[Text, ...] = ()
    """The first twenty names of those who have not."""
    excluded: tuple[Text, ...] = ()
    """Pods that are not waited for."""
    waiting_for: Text = ""
    """What is waited for, in words."""
    leaves: Leaves | None = None
    """Certificates in use, by their root."""
    roots: tuple[Root, ...] = ()
    """The roots in the bundle, and the one on standby."""
    started_at: Time | None = None
    """When the rotation began."""
    since: Time | None = None
    """When the phase began."""
