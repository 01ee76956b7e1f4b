"""Which requests a route takes, as Envoy's route match."""

from __future__ import annotations

from discovery.envoy.values import Json
from discovery.plan.model import MatchKind, NamedMatch, RequestMatch, TextMatch


def route_match(match: RequestMatch) -> Json:
    """A `RouteMatch`. Envoy has no inverted path and no inverted query match, and Istio asks for none: `invert` counts
    for headers only."""
    rendered = _path(match.path)
    if match.headers:
        rendered["headers"] = [_header(header) for header in match.headers]
    if match.query:
        rendered["query_parameters"] = [_query(parameter) for parameter in match.query]
    return rendered


def _path(path: TextMatch) -> Json:
    match path.kind:
        case MatchKind.EXACT:
            rendered: Json = {"path": path.value}
        case MatchKind.PREFIX:
            rendered = {"prefix": path.value}
        case MatchKind.REGEX:
            return {"safe_regex": {"regex": _regex(path)}}
        case MatchKind.PRESENT:
            return {"prefix": "/"}
    if path.ignore_case:
        rendered["case_sensitive"] = False
    return rendered


def _header(header: NamedMatch) -> Json:
    rendered: Json = {"name": header.name}
    if header.match.kind is MatchKind.PRESENT:
        rendered["present_match"] = not header.match.invert
        return rendered
    rendered["string_match"] = _text(header.match)
    if header.match.invert:
        rendered["invert_match"] = True
        # Without the header there is nothing that could match: a route for requests *without* it takes them.
        rendered["treat_missing_header_as_empty"] = True
    return rendered


def _query(parameter: NamedMatch) -> Json:
    if parameter.match.kind is MatchKind.PRESENT:
        return {"name": parameter.name, "present_match": True}
    return {"name": parameter.name, "string_match": _text(parameter.match)}


def _text(match: TextMatch) -> Json:
    """A `StringMatcher`. An empty prefix, which Envoy refuses, is any value."""
    if match.kind is MatchKind.REGEX:
        return {"safe_regex": {"regex": _regex(match)}}
    if match.kind is MatchKind.PREFIX and not match.value:
        return {"safe_regex": {"regex": ".*"}}
    rendered: Json = {match.kind.value: match.value}
    if match.ignore_case:
        rendered["ignore_case"] = True
    return rendered


def _regex(match: TextMatch) -> str:
    return f"(?i){match.value}" if match.ignore_case else match.value
