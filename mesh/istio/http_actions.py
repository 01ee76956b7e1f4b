"""What an HTTP rule of a VirtualService does with a request besides choosing its destination.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from mesh.istio import rules as check
from mesh.istio.base import Duration, Flag, Int, Model, PortNumber, Text, TimeSpan, UInt, planned, problem
from mesh.istio.destination import Destination, Percent, StringMatch
from mesh.istio.schema import Cel, Schema, at_least_one, at_most_one, exactly_one
from mesh.istio.texts import Count, HeaderName, Value
from mesh.problems import FieldProblem

LARGEST_BODY = 1024 * 1024
RETRY_CONDITIONS = frozenset(
    (
        # https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter#x-envoy-retry-on
        *(
            "5xx",
            "gateway-error",
            "reset",
            "reset-before-request",
            "connect-failure",
            "envoy-ratelimited",
            "retriable-4xx",
        ),
        *("refused-stream", "retriable-status-codes", "retriable-headers", "http3-post-connect-failure"),
        *("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"),
    )
)
GRPC_STATUSES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
REDIRECT_CODES = (301, 302, 303, 307, 308)
Rules = Iterator[FieldProblem]


class RedirectPortSelection(StrEnum):
    FROM_PROTOCOL_DEFAULT = "FROM_PROTOCOL_DEFAULT"
    FROM_REQUEST_PORT = "FROM_REQUEST_PORT"


class HTTPRedirect(Model):
    cel = (at_least_one("uri", "authority", "scheme", "port", "derivePort"), at_most_one("port", "derivePort"))

    uri: Text = ""
    """New path."""
    authority: Text = ""
    """New host."""
    port: PortNumber | None = None
    """New port."""
    derive_port: RedirectPortSelection | None = None
    """Where the port comes from when it is not said."""
    scheme: Annotated[Text, Schema(enum=["", "http", "https"])] = ""
    """New scheme, http or https."""
    redirect_code: Annotated[UInt, Schema(enum=[0, *REDIRECT_CODES])] = 0
    """Status to answer with: 301 (the default), 302, 303, 307 or 308."""

    def rules(self) -> Rules:
        if not self.uri and not self.authority and not self.scheme and self.port is None and self.derive_port is None:
            yield problem(says="the redirect changes nothing", hint="set uri, authority, scheme, port or derivePort")
        if self.port is not None:
            yield from check.check_port(("port",), self.port)
            if self.derive_port is not None:
                yield problem("derivePort", says="port and derivePort exclude each other", hint="keep one of the two")
        if self.scheme and self.scheme not in ("http", "https"):
            yield problem("scheme", says=f"{self.scheme!r} is not a scheme to redirect to", hint="write http or https")
        if self.redirect_code and self.redirect_code not in REDIRECT_CODES:
            codes = ", ".join(str(code) for code in REDIRECT_CODES)
            yield problem(
                "redirectCode", says=f"{self.redirect_code} is not a redirect that Envoy sends", hint=f"use {codes}"
            )


class HTTPBody(Model):
    """The text of a fixed response; `bytes` is base64."""

    cel = (exactly_one("string", "bytes"),)

    string: Text | None = None
    """The body as text."""
    bytes: Annotated[Text | None, Schema(format="byte")] = None
    """The body in base64."""

    def rules(self) -> Rules:
        if (self.string is None) == (self.bytes is None):
            yield problem(says="a body is either string or bytes", hint="set exactly one of the two")
        if self.bytes is not None and not re.fullmatch(
            r"([A-Za-z0-9+/_-]{4})*([A-Za-z0-9+/_-]{2,3}={0,2})?", self.bytes
        ):
            yield problem("bytes", says="it is not base64", hint="encode the body by: base64 -w0 FILE")
        if (
            len((self.string or "").encode(errors="replace")) > LARGEST_BODY
            or len(self.bytes or "") * 3 // 4 > LARGEST_BODY
        ):
            yield problem(says="the body is larger than 1 MiB", hint="serve it from a service")


class HTTPDirectResponse(Model):
    status: Annotated[UInt, Schema(minimum=200, maximum=599)]
    """Status to answer with."""
    body: HTTPBody | None = None
    """Body to answer with."""

    def rules(self) -> Rules:
        yield from _http_status("status", self.status)


class Delegate(Model):
    required = ("name",)

    name: Value = ""
    """Name of the VirtualService."""
    namespace: Text = ""
    """Its namespace; that of this one by default."""

    def rules(self) -> Rules:
        if not self.name:
            yield problem("name", says="the delegate has no name", hint="name the VirtualService to delegate to")


class RegexRewrite(Model):
    required = ("match",)

    match: Value = ""
    """RE2 expression for parts of the path."""
    rewrite: Text = ""
    """What they are replaced with; `\\1` is the first group."""

    def rules(self) -> Rules:
        if not self.match:
            yield problem("match", says="there is nothing to match", hint="write an RE2 expression")
        yield from check.check_regex(("match",), self.match)


class HTTPRewrite(Model):
    cel = (at_least_one("uri", "authority", "uriRegexRewrite"), at_most_one("uri", "uriRegexRewrite"))

    uri: Text = ""
    """New path; where the rule matched a prefix, only that is replaced."""
    authority: Text = ""
    """New host."""
    uri_regex_rewrite: RegexRewrite | None = planned()
    """New path by a regular expression."""

    def rules(self) -> Rules:
        if not self.uri and not self.authority and self.uri_regex_rewrite is None:
            yield problem(says="the rewrite changes nothing", hint="set uri, authority or uriRegexRewrite")
        if self.uri and self.uri_regex_rewrite is not None:
            yield problem(
                "uriRegexRewrite", says="uri and uriRegexRewrite exclude each other", hint="keep one of the two"
            )


class HTTPRetry(Model):
    """`retry_on` "" means Istio's default conditions; `attempts` 0 turns retries off."""

    cel = (
        Cel(
            "!has(self.attempts) || self.attempts != 0 || !(has(self.perTryTimeout) || has(self.retryOn) || "
            "has(self.retryRemoteLocalities))",
            "attempts: 0 turns retries off, and their settings are set: write 1 or more",
        ),
    )

    attempts: Count = 0
    """How often a failed request is sent again; 0 turns retries off."""
    per_try_timeout: TimeSpan | None = None
    """Time until the answer of each attempt must be there."""
    retry_on: Text = ""
    """Envoy's retry conditions and status codes, separated by commas."""
    retry_remote_localities: Flag | None = planned()
    """Whether retries may go to other localities."""
    retry_ignore_previous_hosts: Flag | None = planned()
    """Whether retries avoid endpoints that have failed."""
    backoff: TimeSpan | None = planned()
    """Least time between retries."""

    def rules(self) -> Rules:
        if self.attempts < 0:
            yield problem("attempts", says=f"{self.attempts} is negative", hint="write 0 to turn retries off")
        others = (self.per_try_timeout, self.retry_on or None, self.retry_remote_localities)
        if "attempts" in self.model_fields_set and self.attempts == 0 and any(value is not None for value in others):
            yield problem("attempts", says="0 turns retries off, and their settings are set", hint="write 1 or more")
        yield from check.check_duration(("perTryTimeout",), self.per_try_timeout)
        yield from check.check_duration(("backoff",), self.backoff)
        for condition in (part.strip() for part in self.retry_on.split(",") if part.strip()):
            if condition not in RETRY_CONDITIONS and not re.fullmatch(r"[1-5][0-9][0-9]", condition):
                yield problem(
                    "retryOn",
                    says=f"{condition!r} is not a retry condition",
                    hint="use Envoy's names, such as 5xx,connect-failure,refused-stream, or a status code",
                )


class UnmatchedPreflights(StrEnum):
    UNSPECIFIED = "UNSPECIFIED"
    FORWARD = "FORWARD"
    IGNORE = "IGNORE"


class CorsPolicy(Model):
    allow_origin: tuple[Text, ...] = ()
    """Origins, exactly; use allowOrigins."""
    allow_origins: tuple[StringMatch, ...] = ()
    """Origins that may ask."""
    allow_methods: tuple[Text, ...] = ()
    """Methods that they may use."""
    allow_headers: tuple[HeaderName, ...] = ()
    """Headers that they may send."""
    expose_headers: tuple[HeaderName, ...] = ()
    """Headers that they may read."""
    max_age: Duration | None = None
    """How long a browser may keep the answer to a preflight."""
    allow_credentials: Flag | None = None
    """Whether they may send credentials."""
    unmatched_preflights: UnmatchedPreflights = UnmatchedPreflights.UNSPECIFIED
    """What happens to preflights of other origins."""

    def rules(self) -> Rules:
        for index, name in enumerate(self.allow_headers):
            yield from check.check_header_name(("allowHeaders", index), name)
        for index, name in enumerate(self.expose_headers):
            yield from check.check_header_name(("exposeHeaders", index), name)
        yield from check.check_duration(("maxAge",), self.max_age, zero=True)


class Delay(Model):
    """Without a percentage no request is delayed, as in Istio."""

    cel = (exactly_one("fixedDelay", "exponentialDelay"),)

    percent: Annotated[Int, Schema(minimum=0, maximum=100)] = 0
    """Share of requests, 0 to 100; use percentage."""
    fixed_delay: TimeSpan | None = None
    """How long a request is held."""
    exponential_delay: Duration | None = planned()
    """Mean of a random delay; Istio does not act upon it either."""
    percentage: Percent | None = None
    """Share of requests that are delayed."""

    def rules(self) -> Rules:
        if (self.fixed_delay is None) == (self.exponential_delay is None):
            yield problem(
                "fixedDelay", says="the delay has no length", hint="set fixedDelay, such as 5s, and only that"
            )
        yield from check.check_duration(("fixedDelay",), self.fixed_delay)
        yield from check.check_percentage(("percent",), self.percent)
        yield from _no_share(self.percentage, self.percent)


class Abort(Model):
    """Without a percentage no request is aborted, as in Istio."""

    cel = (exactly_one("httpStatus", "grpcStatus", "http2Error"),)

    http_status: Annotated[Int | None, Schema(minimum=200, maximum=599)] = None
    """Status to answer with."""
    grpc_status: Annotated[Text | None, Schema(enum=list(GRPC_STATUSES))] = None
    """gRPC status to answer with, such as UNAVAILABLE."""
    http2_error: Text | None = planned()
    """HTTP/2 error; Istio does not act upon it either."""
    percentage: Percent | None = None
    """Share of requests that are aborted."""

    def rules(self) -> Rules:
        if sum(value is not None for value in (self.http_status, self.grpc_status, self.http2_error)) != 1:
            yield problem(says="an abort answers with exactly one error", hint="set httpStatus or grpcStatus")
        if self.http_status is not None:
            yield from _http_status("httpStatus", self.http_status)
        if self.grpc_status is not None and self.grpc_status not in GRPC_STATUSES:
            yield problem(
                "grpcStatus", says=f"{self.grpc_status!r} is not a gRPC status", hint="write it as UNAVAILABLE"
            )
        yield from _no_share(self.percentage, 0)


class HTTPFaultInjection(Model):
    cel = (at_least_one("delay", "abort"),)

    delay: Delay | None = None
    """Hold requests."""
    abort: Abort | None = None
    """Answer with an error."""

    def rules(self) -> Rules:
        if self.delay is None and self.abort is None:
            yield problem(says="the fault is empty", hint="set delay, abort or both")


class HTTPMirrorPolicy(Model):
    destination: Destination
    """Where the copy goes."""
    percentage: Percent | None = None
    """Share of requests that are copied; all of them by default."""


def _http_status(field: str, status: int) -> Rules:
    if not 200 <= status <= 599:
        yield problem(field, says=f"{status} is not an HTTP status to answer with", hint="use 200 to 599")


def _no_share(percentage: Percent | None, percent: int) -> Rules:
    if percentage is None and not percent:
        yield problem(
            "percentage", says="without a percentage no request is affected", hint="set percentage.value", warning=True
        )
