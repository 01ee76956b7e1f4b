"""What everyone is told about trust: the bundle, and whose leaves are to be renewed early. Values and their JSON.

The same body goes from the ca to the components of the control plane, and from discovery to the agents.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mesh.errors import InvalidInput
from svid.material import SvidMaterial, TrustBundle, bundle_from_json, bundle_to_json
from svid.schedule import AT_ONCE


@dataclass(frozen=True, slots=True)
class Order:
    """Leaves of `root` (its fingerprint) are to be renewed at a moment from `begin` to `until` (Unix seconds).

    Without `root` nothing is ordered. A later order has a higher number and replaces the one before.
    """

    number: int = 0
    root: str = ""
    begin: float = 0.0
    until: float = 0.0


NO_ORDER = Order()


@dataclass(frozen=True, slots=True)
class News:
    """The bundle and the order as they are now."""

    bundle: TrustBundle
    order: Order = NO_ORDER

    @property
    def version(self) -> tuple[int, int, int]:
        """Equal when everything is."""
        return *self.bundle.stamp, self.order.number


def newer(known: TrustBundle | None, told: TrustBundle) -> TrustBundle:
    """The bundle to trust, of the one that is known and the one that came.

    A late answer does not take the place of a newer bundle. One that has no root in common with it is not late but
    another trust domain's beginning, such as after the ca lost its root: the ca has proved itself, so that one holds.
    """
    if known is None or told.stamp > known.stamp or not set(known.roots) & set(told.roots):
        return told
    return known


def early_renewal(order: Order, material: SvidMaterial, earliest: float) -> tuple[float, float] | None:
    """From when until when the certificate is to be renewed early (Unix seconds); None when it is not.

    One that has lost its root is renewed at once, whether or not an order says so.
    """
    if has_lost_its_root(material):
        return earliest, earliest + AT_ONCE
    if is_meant(order, material):
        return max(order.begin, earliest), max(order.until, earliest)
    return None


def has_lost_its_root(material: SvidMaterial) -> bool:
    """Whether the certificate's root has left the bundle: its holder was away for as long as a rotation took.

    Everyone else who has that bundle refuses the certificate.
    """
    return bool(material.root) and material.root not in material.bundle.fingerprints


def is_meant(order: Order, material: SvidMaterial) -> bool:
    """Whether `order` asks for this certificate to be renewed. One whose root is not known might be meant."""
    return bool(order.root) and material.root in ("", order.root)


def merged(known: News, told: News) -> News:
    """What holds after `told` came, whichever part of it is late; of a ca that began anew, all of it (see `newer`)."""
    if not set(known.bundle.roots) & set(told.bundle.roots):
        return told
    bundle = told.bundle if told.bundle.stamp > known.bundle.stamp else known.bundle
    order = told.order if told.order.number > known.order.number else known.order
    return replace(known, bundle=bundle, order=order)


def news_json(news: News) -> dict[str, object]:
    """The body of `GET /v1/bundle`, and of discovery's field `trust`."""
    bundle, order = news.bundle, news.order
    renewal: dict[str, object] = {"order": order.number}
    if order.root:
        renewal |= {"root": order.root, "from": order.begin, "until": order.until}
    return {**bundle_to_json(bundle), "renewal": renewal}


def news_from_json(body: object) -> News:
    """The inverse; InvalidInput for anything else. A bundle without roots is never taken."""
    bundle = bundle_from_json(body)
    assert isinstance(body, dict)
    renewal = body.get("renewal")
    if renewal is None:  # of a ca that knows of no orders
        return News(bundle)
    try:
        order = Order(
            int(renewal["order"]),
            str(renewal.get("root", "")),
            float(renewal.get("from", 0)),
            float(renewal.get("until", 0)),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"it does not say what to renew: {error}", field="renewal") from None
    return News(bundle, order)
