"""RequestAuthentication: which JSON Web Tokens are taken, and what becomes of them.

Source: https://istio.io/latest/docs/reference/config/security/request_authentication/
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field

from mesh.istio import rules as check
from mesh.istio.base import Flag, Model, Text, TimeSpan, problem
from mesh.istio.schema import Schema, at_least_one, at_most_one
from mesh.istio.selectors import (
    ONE_WAY_TO_SELECT,
    PolicyTargetReference,
    TargetRefs,
    WorkloadSelector,
    check_one_way_to_select,
)
from mesh.istio.texts import HEADER, HeaderName, Value
from mesh.problems import FieldProblem

Rules = Iterator[FieldProblem]
_URL = Annotated[Text, Schema(pattern=r"^https?://[^/]", maxLength=2048)]


class JWTHeader(Model):
    name: HeaderName
    """Name of the header."""
    prefix: Text = ""
    """What stands before the token, such as `Bearer `."""

    def rules(self) -> Rules:
        yield from check.check_header_name(("name",), self.name)


class ClaimToHeader(Model):
    header: HeaderName
    """The header to write; one that the client sent is replaced."""
    claim: Value
    """The claim to copy, with dots for nested ones."""

    def rules(self) -> Rules:
        yield from check.check_header_name(("header",), self.header)
        if not self.claim:
            yield problem("claim", says="the claim has no name", hint="name it, such as sub")


class Presence(StrEnum):
    """Whether a token of this issuer must be there."""

    OPTIONAL = "OPTIONAL"
    REQUIRED = "REQUIRED"
    IGNORED = "IGNORED"


class JWTRule(Model):
    """One issuer of tokens."""

    cel = (at_most_one("jwksUri", "jwks_uri", "jwks"), at_least_one("issuer", "jwksUri", "jwks_uri", "jwks"))

    issuer: Text = ""
    """Who issues the tokens: their claim `iss`. May be left out when jwksUri or jwks says whose keys count."""
    audiences: tuple[Value, ...] = ()
    """Audiences of which a token must name one; any when empty."""
    jwks_uri: _URL = ""
    """Where the issuer's keys are; found by OpenID discovery when neither this nor `jwks` is set."""
    jwks_uri_old: Annotated[_URL, Field(alias="jwks_uri")] = ""
    """An old spelling of jwksUri."""
    jwks: Text = ""
    """The issuer's keys, as a JSON Web Key Set."""
    from_headers: tuple[JWTHeader, ...] = ()
    """Headers that the token is looked for in; by default `Authorization: Bearer`."""
    from_params: tuple[Value, ...] = ()
    """Query parameters that the token is looked for in; by default `access_token`."""
    from_cookies: tuple[Value, ...] = ()
    """Cookies that the token is looked for in."""
    output_payload_to_header: Annotated[Text, Schema(pattern=rf"^({HEADER})?$")] = ""
    """A header that the token's payload is passed on in, in base64."""
    forward_original_token: Flag = False
    """Pass the token itself on."""
    output_claim_to_headers: tuple[ClaimToHeader, ...] = ()
    """Claims to copy into headers."""
    timeout: TimeSpan | None = None
    """How long fetching the keys may take; 5s by default."""
    space_delimited_claims: Annotated[tuple[Value, ...], Schema(maxItems=64)] = ()
    """Claims that are lists written as text with spaces, besides `scope` and `permission`."""
    presence: Presence = Presence.OPTIONAL
    """OPTIONAL: no token is fine, a bad one is not; REQUIRED: there must be a good one; IGNORED: anything is fine."""
    failed_status_in_metadata: Flag = False
    """Put the reason of a failure into the request's dynamic metadata, under `istio_jwt_verification_failure`."""

    def rules(self) -> Rules:
        if not self.issuer and not self.jwks_uri and not self.jwks_uri_old and not self.jwks:
            yield problem("issuer", says="the rule names no issuer and no keys", hint="write the tokens' claim iss")
        for field, names in (
            ("audiences", self.audiences),
            ("fromParams", self.from_params),
            ("fromCookies", self.from_cookies),
            ("spaceDelimitedClaims", self.space_delimited_claims),
        ):
            for index, name in enumerate(names):
                if not name:
                    yield problem(field, index, says="it is empty", hint="remove it")
        given = {"jwksUri": self.jwks_uri, "jwks_uri": self.jwks_uri_old, "jwks": self.jwks}
        used = [name for name, value in given.items() if value]
        if len(used) > 1:
            yield problem(used[1], says=f"{' and '.join(used)} exclude each other", hint="keep one of them")
        for name in ("jwksUri", "jwks_uri"):
            if given[name]:
                yield from _web_address(name, given[name])
        if self.jwks and (error := _key_set_error(self.jwks)):
            yield problem("jwks", says=error, hint='write {"keys": [...]} as one text')
        if self.output_payload_to_header:
            yield from check.check_header_name(("outputPayloadToHeader",), self.output_payload_to_header)
        yield from check.check_duration(("timeout",), self.timeout)


class RequestAuthentication(Model):
    """The spec. A request without a token passes: an AuthorizationPolicy demands one."""

    cel = (ONE_WAY_TO_SELECT,)

    selector: WorkloadSelector | None = None
    """The workloads that it is for; all of the namespace (of the mesh, in the root namespace) without it."""
    target_ref: PolicyTargetReference | None = None
    """The Gateway or Service that it is for; use targetRefs."""
    target_refs: TargetRefs = ()
    """Gateways or services that it is for, instead of selector."""
    jwt_rules: Annotated[tuple[JWTRule, ...], Schema(maxItems=4096)] = ()
    """The issuers whose tokens are taken."""

    def rules(self) -> Rules:
        yield from check_one_way_to_select(self.selector, self.target_ref, self.target_refs)
        issuers = [rule.issuer for rule in self.jwt_rules]
        for index, issuer in enumerate(issuers):
            if issuer and issuer in issuers[:index]:
                yield problem(
                    "jwtRules", index, "issuer", says=f"{issuer!r} stands twice", hint="merge the two", warning=True
                )


def _web_address(field: str, text: str) -> Rules:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        yield problem(field, says=f"{text!r} is not an address on the web", hint="write https://host/path")


def _key_set_error(text: str) -> str:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return "it is not JSON"
    keys = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, dict) and key.get("kty") for key in keys):
        return "it is not a JSON Web Key Set"
    return "" if keys else "it holds no key"
