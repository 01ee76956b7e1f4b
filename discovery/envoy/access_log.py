"""Access logs: to a file, a line a request or connection, by default in the fields and order of Istio's."""

from __future__ import annotations

from discovery.envoy.values import Json
from discovery.plan.reporting import AccessLog

_FIELDS = (
    "[%START_TIME%]",
    '"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%"',
    "%RESPONSE_CODE%",
    "%RESPONSE_FLAGS%",
    "%RESPONSE_CODE_DETAILS%",
    "%CONNECTION_TERMINATION_DETAILS%",
    '"%UPSTREAM_TRANSPORT_FAILURE_REASON%"',
    "%BYTES_RECEIVED%",
    "%BYTES_SENT%",
    "%DURATION%",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    '"%REQ(X-FORWARDED-FOR)%"',
    '"%REQ(USER-AGENT)%"',
    '"%REQ(X-REQUEST-ID)%"',
    '"%REQ(:AUTHORITY)%"',
    '"%UPSTREAM_HOST%"',
    "%UPSTREAM_CLUSTER_RAW%",
    "%UPSTREAM_LOCAL_ADDRESS%",
    "%DOWNSTREAM_LOCAL_ADDRESS%",
    "%DOWNSTREAM_REMOTE_ADDRESS%",
    "%REQUESTED_SERVER_NAME%",
    "%ROUTE_NAME%",
)
_FORMAT = " ".join(_FIELDS) + "\n"
_CEL_FILTER = "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"

CONNECTION_END: Json = {"log_type_filter": {"types": ["TcpConnectionEnd"]}}
"""Of the logs of a TCP proxy only that of the end."""
_REFUSED: Json = {"response_flag_filter": {"flags": ["NR"]}}


def file_log(log: AccessLog, *filters: Json) -> Json:
    """The access logger that writes `log`, of what passes all `filters` and its own expression."""
    if log.expression:
        filters = (*filters, _by_expression(log.expression))
    only: Json = {}
    if len(filters) == 1:
        only = {"filter": filters[0]}
    elif filters:
        only = {"filter": {"and_filter": {"filters": list(filters)}}}
    return {
        "name": "envoy.access_loggers.file",
        **only,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": log.path,
            "log_format": _format(log),
        },
    }


def refused(log: AccessLog) -> Json:
    """The same for connections that no filter chain takes."""
    return file_log(log, _REFUSED)


def _format(log: AccessLog) -> Json:
    if log.fields:
        return {"json_format": dict(log.fields)}
    text = log.text or _FORMAT
    return {"text_format_source": {"inline_string": text if text.endswith("\n") else f"{text}\n"}}


def _by_expression(expression: str) -> Json:
    config = {"@type": _CEL_FILTER, "expression": expression}
    return {"extension_filter": {"name": "envoy.access_loggers.extension_filters.cel", "typed_config": config}}
