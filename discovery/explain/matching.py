"""Which virtual host and which route take a request, by Envoy's rules, and why the others do not.

Sources: https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/route/v3/route_components.proto (VirtualHost.domains,
RouteMatch, HeaderMatcher), https://www.rfc-editor.org/rfc/rfc3986#section-6.2.2 (paths are normalised first).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

from discovery.explain.model import Request
from discovery.plan.model import MatchKind, NamedMatch, RequestMatch, RouteTable, TextMatch, VirtualHost

_ESCAPED = re.compile("%[0-9A-Fa-f]{2}")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
_AUTHORITY = ("host", ":authority")


def virtual_host(table: RouteTable, authority: str) -> tuple[VirtualHost | None, str]:
    """The host of the table, and which of its domains: the same name, else the longest wildcard, else `*`."""
    by_domain = {domain.lower(): host for host in table.virtual_hosts for domain in host.domains}
    exact = by_domain.get(authority)
    if exact is not None:
        return exact, authority
    ends = [domain for domain in by_domain if domain.startswith("*") and len(domain) > 1]
    begins = [domain for domain in by_domain if domain.endswith("*") and len(domain) > 1]
    for domain in sorted(ends, key=len, reverse=True):
        if authority.endswith(domain[1:]) and len(authority) >= len(domain):
            return by_domain[domain], domain
    for domain in sorted(begins, key=len, reverse=True):
        if authority.startswith(domain[:-1]) and len(authority) >= len(domain):
            return by_domain[domain], domain
    return by_domain.get("*"), "*"


def without_port(authority: str) -> str:
    """The host of a Host header."""
    head, colon, port = authority.rpartition(":")
    return head if colon and port.isdigit() else authority


def why_not(match: RequestMatch, request: Request, scheme: str) -> str:
    """What of the match the request does not have; "" when it has everything."""
    path, _, query = request.path.partition("#")[0].partition("?")
    path = normalised(path)
    if not _takes(match.path, path):
        return f"the path is {path}, not {worded(match.path)}"
    headers = headers_of(request, scheme)
    for header in match.headers:
        if missing := _header_missing(header, headers):
            return missing
    parameters = _parameters(query)
    for parameter in match.query:
        value = parameters.get(parameter.name)
        if value is None:
            return f"the query has no {parameter.name}"
        if parameter.match.kind is not MatchKind.PRESENT and not _takes(parameter.match, value):
            return f"{parameter.name} in the query is {value!r}, not {worded(parameter.match)}"
    return ""


def headers_of(request: Request, scheme: str) -> dict[str, str]:
    """By name in lower case, with HTTP/2's pseudo-headers; values of one name are joined as in RFC 9110 5.3."""
    found: dict[str, str] = {}
    for name, value in request.headers:
        if name not in _AUTHORITY:
            found[name] = f"{found[name]},{value}" if name in found else value
    authority = dict.fromkeys(_AUTHORITY, request.named)
    return {**found, **authority, ":method": request.method, ":scheme": scheme, ":path": request.path}


def _header_missing(header: NamedMatch, headers: Mapping[str, str]) -> str:
    match, value = header.match, headers.get(header.name)
    what = {":method": "the method", ":authority": "the host", ":scheme": "the scheme"}.get(
        header.name, f"header {header.name}"
    )
    if match.kind is MatchKind.PRESENT:
        if match.invert:
            return f"{what} is there" if value is not None else ""
        return f"{what} is not there" if value is None else ""
    if match.invert:
        return f"{what} is {value or ''!r}" if _takes(match, value or "") else ""
    if value is None:
        return f"{what} is not there, and must be {worded(match)}"
    return "" if _takes(match, value) else f"{what} is {value!r}, not {worded(match)}"


def _takes(match: TextMatch, value: str) -> bool:
    wanted = match.value
    if match.kind is MatchKind.REGEX:
        return _full_match(wanted, value, match.ignore_case)
    if match.ignore_case:
        wanted, value = wanted.lower(), value.lower()
    if match.kind is MatchKind.EXACT:
        return wanted == value
    return match.kind is MatchKind.PRESENT or value.startswith(wanted)


def _full_match(pattern: str, value: str, ignore_case: bool) -> bool:
    """By Python's `re`: RE2 differs in what `unjudged` finds only."""
    try:
        return re.fullmatch(pattern, value, re.IGNORECASE if ignore_case else 0) is not None
    except re.error:
        return False


def unjudged(match: RequestMatch) -> tuple[str, ...]:
    """The expressions in a match that RE2 reads and Python does not: they are taken for not matching."""
    texts: Iterable[TextMatch] = (match.path, *(each.match for each in (*match.headers, *match.query)))
    found = []
    for text in texts:
        if text.kind is MatchKind.REGEX:
            try:
                re.compile(text.value)
            except re.error:
                found.append(text.value)
    return tuple(found)


def worded(match: TextMatch) -> str:
    """A match as a person would say it: `prefix /shop`, `exact 'jason'`."""
    if match.kind is MatchKind.PRESENT:
        return "anything"
    value = match.value if match.value.startswith("/") else repr(match.value)
    return f"{match.kind.value} {value}" + (" in any case" if match.ignore_case else "")


def normalised(path: str) -> str:
    """Without dot segments, with needless escapes undone."""
    path = _ESCAPED.sub(lambda found: _plain(found.group()), path.replace("\\", "/"))
    kept: list[str] = []
    segments = path.split("/")
    for number, segment in enumerate(segments):
        last = number == len(segments) - 1
        if segment == "..":
            if len(kept) > 1:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
            continue
        if last:
            kept.append("")
    return "/".join(kept) or "/"


def _plain(escaped: str) -> str:
    char = unquote(escaped)
    return char if _UNRESERVED.fullmatch(char) else escaped.upper()


def _parameters(query: str) -> dict[str, str]:
    """The first value of each; as they are written, since Envoy does not decode them here."""
    found: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        found.setdefault(name, value)
    return found
