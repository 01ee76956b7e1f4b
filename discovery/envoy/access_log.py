"""Access logs: to a file, a line a request or connection, in the fields and order of Istio's default."""

from __future__ import annotations

from discovery.envoy.values import Json

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


def file_log(path: str) -> list[Json]:
    """The access logger that writes to the file `path`; none when it is empty."""
    return [_file(path)] if path else []


def refused_log(path: str) -> Json:
    """The `access_log` field of a listener: only connections that no filter chain takes (plain text under STRICT)."""
    if not path:
        return {}
    return {"access_log": [{**_file(path), "filter": {"response_flag_filter": {"flags": ["NR"]}}}]}


def _file(path: str) -> Json:
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"text_format_source": {"inline_string": _FORMAT}},
        },
    }
