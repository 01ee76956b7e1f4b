"""Which other trust domains are trusted, by which roots: the state that the replicas share, and how it changes. Pure.

`federation.json`, beside root and bundle (`ca.store`), is the state as a document.
Source: SPIFFE Federation sections 4.2 (freshness) and 7.3 (each bundle belongs to one trust domain).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mesh.errors import Conflict, InvalidInput, MissingPrerequisite
from mesh.settings import MeshSettings
from svid.material import ForeignRoots
from svid.spiffe_bundle import SpiffeBundle

DOCUMENT = "federation.json"
DEFAULT_REFRESH = 300  # seconds, where a bundle does not say (section 4.1)
LEAST_REFRESH, MOST_REFRESH = 30, 86400


@dataclass(frozen=True, slots=True)
class Relationship:
    """What the operator says of one trust domain. `roots`: those to begin with, or for good where there is no `url`.

    `endpoint_id`: the SPIFFE ID that the server of `url` must show (https_spiffe); without it, a certificate of the
    web's (https_web).
    """

    trust_domain: str
    roots: tuple[str, ...] = ()
    url: str = ""
    endpoint_id: str = ""


@dataclass(frozen=True, slots=True)
class Foreign:
    """What is known of one trust domain: its roots and, where they were fetched, the bundle's number and hint."""

    relationship: Relationship
    roots: tuple[str, ...]
    sequence: int | None = None
    refresh_hint: int | None = None

    @property
    def refresh(self) -> int:
        """Seconds from one look at the endpoint to the next."""
        return min(max(self.refresh_hint or DEFAULT_REFRESH, LEAST_REFRESH), MOST_REFRESH)


@dataclass(frozen=True, slots=True)
class Federation:
    """The state. `number` grows whenever what proxies are to trust changes."""

    number: int = 0
    aliases: tuple[str, ...] = ()
    domains: Mapping[str, Foreign] = field(default_factory=dict)

    @property
    def roots(self) -> tuple[ForeignRoots, ...]:
        """For the bundle. Of a trust domain whose first bundle has not come yet there is nothing to trust.

        Aliases are named only beside others: by themselves they need no more than the own roots.
        """
        others = tuple(ForeignRoots(domain, each.roots) for domain, each in self.domains.items() if each.roots)
        return (*map(ForeignRoots, self.aliases), *others) if others else ()


def relationships(settings: MeshSettings) -> tuple[Relationship, ...]:
    """Those in `meshConfig.caCertificates`, one for each trust domain; InvalidInput when their roots cannot be read."""
    found: dict[str, Relationship] = {}
    for at, entry in enumerate(settings.ca_certificates):
        roots = _certificates(entry.pem, f"caCertificates[{at}].pem") if entry.pem else ()
        for domain in entry.trust_domains:
            known = found.get(domain, Relationship(domain))
            if known.url and entry.spiffe_bundle_url:
                raise InvalidInput(
                    f"{domain} has a second spiffeBundleUrl", field=f"caCertificates[{at}]", hint="keep one of them"
                )
            found[domain] = Relationship(
                domain,
                tuple(dict.fromkeys((*known.roots, *roots))),
                known.url or entry.spiffe_bundle_url,
                known.endpoint_id or entry.endpoint_spiffe_id,
            )
    return tuple(found.values())


def arranged(known: Federation, settings: MeshSettings, trust_domain: str) -> Federation:
    """`known` as the operator wants it by now. What was fetched is kept while its relationship stays as it is.

    InvalidInput when it is the own `trust_domain` whose roots somebody else would say.
    """
    aliases = tuple(domain for domain in settings.trust_domain_aliases if domain != trust_domain)
    domains = {}
    for wanted in relationships(settings):
        if wanted.trust_domain == trust_domain:
            raise InvalidInput(f"the roots of {trust_domain} are the ca's, and no others", field="caCertificates")
        before = known.domains.get(wanted.trust_domain)
        same = before is not None and before.relationship == wanted
        domains[wanted.trust_domain] = before if before and same else Foreign(wanted, wanted.roots)
    own = tuple(alias for alias in aliases if alias not in domains)
    return _numbered(known, replace(known, aliases=own, domains=domains))


def taken(known: Federation, fetched: SpiffeBundle) -> Federation:
    """`known` with a bundle that came from its endpoint; Conflict when it is older than what is known."""
    before = known.domains.get(fetched.trust_domain)
    if before is None:
        return known
    if before.sequence is not None and fetched.sequence is not None and fetched.sequence < before.sequence:
        raise Conflict(
            f"the bundle of {fetched.trust_domain} has sequence {fetched.sequence}, and {before.sequence} is known",
            hint="the endpoint serves an old copy; the newer bundle stays in force",
        )
    after = replace(before, roots=fetched.roots, sequence=fetched.sequence, refresh_hint=fetched.refresh_hint)
    return _numbered(known, replace(known, domains={**known.domains, fetched.trust_domain: after}))


def _numbered(known: Federation, after: Federation) -> Federation:
    return replace(after, number=known.number + 1) if after.roots != known.roots else after


def federation_of(documents: Mapping[str, str]) -> Federation:
    """The state among the documents; nothing when it is not there. MissingPrerequisite when it cannot be read."""
    text = documents.get(DOCUMENT)
    if text is None:
        return Federation()
    try:
        raw = json.loads(text)
        domains = {
            domain: Foreign(
                Relationship(domain, tuple(each["initial"]), each["url"], each["endpointId"]),
                tuple(each["roots"]),
                each["sequence"],
                each["refreshHint"],
            )
            for domain, each in raw["domains"].items()
        }
        return Federation(int(raw["number"]), tuple(raw["aliases"]), domains)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MissingPrerequisite(f"{DOCUMENT} beside the root cannot be read: {error}") from None


def federation_json(federation: Federation) -> str:
    """The state as a document."""
    domains: dict[str, Any] = {
        domain: {
            "initial": each.relationship.roots,
            "url": each.relationship.url,
            "endpointId": each.relationship.endpoint_id,
            "roots": each.roots,
            "sequence": each.sequence,
            "refreshHint": each.refresh_hint,
        }
        for domain, each in federation.domains.items()
    }
    body = {"number": federation.number, "aliases": federation.aliases, "domains": domains}
    return json.dumps(body, indent=1) + "\n"


def _certificates(pem: str, where: str) -> tuple[str, ...]:
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        says = f"there is no certificate in it: {error}"
        raise InvalidInput(says, field=where, hint="put the roots there, as PEM") from None
    return tuple(each.public_bytes(serialization.Encoding.PEM).decode() for each in found)
