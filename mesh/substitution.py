"""Envoy's substitution format, as access logs and tags of spans have it: `%COMMAND(argument):LENGTH%`. Pure.

A text that Envoy 1.40 refuses would cost every listener that has it, so it is refused here, with the command and its
place. The commands are those of Envoy's page "Substitution formatter"; which of them take an argument or a length was
asked of Envoy itself, and tests/mesh/test_substitution.py asks it again.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mesh.istio.cel import CelError, parse_cel


@dataclass(frozen=True, slots=True)
class FormatError:
    message: str
    hint: str


# ---- arguments: what is wrong with one, and the way out; None when nothing is

_Check = Callable[[str], FormatError | None]
_HEADER = re.compile(r"[-!#$&'*+.^_`|~0-9A-Za-z]+\Z")
_NEW_LINE = re.compile(r"%[-_0^#]*[1-9]*[EO]?n|\n")
_PRECISIONS = ("ms", "us", "ns")
_METADATA = ("DYNAMIC", "CLUSTER", "ROUTE", "UPSTREAM_HOST", "LISTENER", "VIRTUAL_HOST", "LISTENER_FILTER_CHAIN")


def _anything(_: str) -> FormatError | None:
    return None


def _headers(text: str) -> FormatError | None:
    names = text.split("?")
    if len(names) > 2:
        return FormatError("more than one other header is named", "write REQ(first?second)")
    wrong = next((name for name in names if name and not _HEADER.match(name.removeprefix(":"))), None)
    return None if wrong is None else FormatError(f"{wrong!r} is not the name of a header", "write one such as :PATH")


def _time(text: str) -> FormatError | None:
    return FormatError("it breaks the line", "leave %n out") if _NEW_LINE.search(text) else None


def _cel(text: str) -> FormatError | None:
    try:
        parse_cel(text)
    except CelError as error:
        says = f"{text!r} is not an expression of CEL: {error.message}, at its column {error.column}"
        return FormatError(says, "write one such as request.method")
    return None


def _filter_state(text: str) -> FormatError | None:
    _, *more = text.split(":", 2)
    if not more or more[0] in ("PLAIN", "TYPED") or (more[0] == "FIELD" and len(more) == 2):
        return None
    return FormatError(f"{':'.join(more)!r} is no way to write it", "write KEY:PLAIN, KEY:TYPED or KEY:FIELD:NAME")


def _metadata(text: str) -> FormatError | None:
    if text.split(":")[0] in _METADATA:
        return None
    return FormatError(f"{text.split(':')[0]!r} has no metadata", f"begin with one of {', '.join(_METADATA)}")


def _duration(text: str) -> FormatError | None:
    parts = text.split(":")
    if len(parts) == 3 and all(parts) and parts[2] in _PRECISIONS:
        return None
    return FormatError(f"{text!r} is no time between two points", "write such as DS_RX_BEG:US_RX_END:ms")


def _coalesce(text: str) -> FormatError | None:
    try:
        if isinstance(json.loads(text), dict):
            return None
    except ValueError:
        pass
    return FormatError(f"{text!r} is no JSON object", 'write such as {"operators": ["REQUESTED_SERVER_NAME"]}')


def _one_of(*parts: tuple[str, ...]) -> _Check:
    """A check for words that are separated by colons."""

    def check(text: str) -> FormatError | None:
        words = text.split(":")
        for word, known in zip(words, parts, strict=False):
            if word and word not in known:
                return FormatError(f"{word!r} is no option", f"use one of {', '.join(known)}")
        return None if len(words) <= len(parts) else FormatError(f"{text!r} has too many parts", "leave some out")

    return check


# ---- commands


@dataclass(frozen=True, slots=True)
class _Command:
    """`argument`: whether one may be there; `needed`: whether one must. `length`: whether `:LENGTH` may follow."""

    argument: _Check | None = None
    needed: bool = False
    length: bool = False


_ALONE = """
    ACCESS_LOG_TYPE BYTES_RECEIVED BYTES_RETRANSMITTED BYTES_SENT CONNECTION_ID CONNECTION_TERMINATION_DETAILS
    CUSTOM_FLAGS DOWNSTREAM_CX_RTT DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED
    DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT DOWNSTREAM_DETECTED_CLOSE_TYPE DOWNSTREAM_DIRECT_LOCAL_ADDRESS
    DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID DOWNSTREAM_DIRECT_LOCAL_PORT DOWNSTREAM_DIRECT_REMOTE_ADDRESS
    DOWNSTREAM_DIRECT_REMOTE_PORT DOWNSTREAM_HANDSHAKE_DURATION DOWNSTREAM_HEADER_BYTES_RECEIVED
    DOWNSTREAM_HEADER_BYTES_SENT DOWNSTREAM_LOCAL_ADDRESS DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID
    DOWNSTREAM_LOCAL_CLOSE_REASON DOWNSTREAM_LOCAL_DNS_SAN DOWNSTREAM_LOCAL_EMAIL_SAN DOWNSTREAM_LOCAL_IP_SAN
    DOWNSTREAM_LOCAL_OTHERNAME_SAN DOWNSTREAM_LOCAL_PORT DOWNSTREAM_LOCAL_SUBJECT DOWNSTREAM_LOCAL_URI_SAN
    DOWNSTREAM_PEER_CERT DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1 DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256
    DOWNSTREAM_PEER_CHAIN_SERIALS DOWNSTREAM_PEER_DNS_SAN DOWNSTREAM_PEER_EMAIL_SAN DOWNSTREAM_PEER_FINGERPRINT_1
    DOWNSTREAM_PEER_FINGERPRINT_256 DOWNSTREAM_PEER_IP_SAN DOWNSTREAM_PEER_ISSUER
    DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256 DOWNSTREAM_PEER_ISSUER_SERIAL DOWNSTREAM_PEER_OTHERNAME_SAN
    DOWNSTREAM_PEER_SERIAL DOWNSTREAM_PEER_SUBJECT DOWNSTREAM_PEER_URI_SAN DOWNSTREAM_REMOTE_ADDRESS
    DOWNSTREAM_REMOTE_PORT DOWNSTREAM_TLS_CIPHER DOWNSTREAM_TLS_GROUP DOWNSTREAM_TLS_SESSION_ID DOWNSTREAM_TLS_VERSION
    DOWNSTREAM_TRANSPORT_FAILURE_REASON DOWNSTREAM_WIRE_BYTES_RECEIVED DOWNSTREAM_WIRE_BYTES_SENT DURATION
    FILTER_CHAIN_NAME GRPC_STATUS_NUMBER HOSTNAME LOCAL_REPLY_BODY PROTOCOL REQUEST_DURATION REQUEST_HEADERS_BYTES
    REQUEST_TX_DURATION RESPONSE_CODE RESPONSE_DURATION RESPONSE_FLAGS RESPONSE_FLAGS_LONG RESPONSE_HEADERS_BYTES
    RESPONSE_TRAILERS_BYTES RESPONSE_TX_DURATION ROUNDTRIP_DURATION ROUTE_NAME ROUTE_RESOLUTION_COUNT
    ROUTE_RESOLUTION_TIME_US SPAN_ID STREAM_ID TLS_JA3_FINGERPRINT TLS_JA4_FINGERPRINT TRACE_ID UNIQUE_ID
    UPSTREAM_CLUSTER UPSTREAM_CLUSTER_RAW UPSTREAM_CONNECTION_ID UPSTREAM_CONNECTION_IDS_ATTEMPTED
    UPSTREAM_CONNECTION_POOL_READY_DURATION UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED
    UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT UPSTREAM_DETECTED_CLOSE_TYPE UPSTREAM_HEADER_BYTES_RECEIVED
    UPSTREAM_HEADER_BYTES_SENT UPSTREAM_HOST UPSTREAM_HOSTS_ATTEMPTED UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT
    UPSTREAM_HOST_NAME UPSTREAM_HOST_NAMES_ATTEMPTED UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT
    UPSTREAM_HOST_NAME_WITHOUT_PORT UPSTREAM_LOCAL_ADDRESS UPSTREAM_LOCAL_CLOSE_REASON UPSTREAM_LOCAL_DNS_SAN
    UPSTREAM_LOCAL_IP_SAN UPSTREAM_LOCAL_PORT UPSTREAM_LOCAL_URI_SAN UPSTREAM_PEER_CERT UPSTREAM_PEER_DNS_SAN
    UPSTREAM_PEER_IP_SAN UPSTREAM_PEER_ISSUER UPSTREAM_PEER_SUBJECT UPSTREAM_PEER_URI_SAN UPSTREAM_PROTOCOL
    UPSTREAM_REMOTE_ADDRESS UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID UPSTREAM_REMOTE_PORT UPSTREAM_REQUEST_ATTEMPT_COUNT
    UPSTREAM_SERVER_NAME UPSTREAM_TLS_CIPHER UPSTREAM_TLS_GROUP UPSTREAM_TLS_SESSION_ID UPSTREAM_TLS_VERSION
    UPSTREAM_TRANSPORT_FAILURE_REASON UPSTREAM_WIRE_BYTES_RECEIVED UPSTREAM_WIRE_BYTES_SENT VIRTUAL_CLUSTER_NAME
"""
_OPTIONAL = """
    DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT
    DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT RESPONSE_CODE_DETAILS
    UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT
"""
_TIMES = """
    EMIT_TIME EMIT_TIME_LOCAL START_TIME START_TIME_LOCAL DOWNSTREAM_PEER_CERT_V_END
    DOWNSTREAM_PEER_CERT_V_START UPSTREAM_PEER_CERT_V_END UPSTREAM_PEER_CERT_V_START
"""
_HEADERS = """
    REQ REQUEST_HEADER RESP RESPONSE_HEADER RESPONSE_TRAILER STREAM_INFO_REQ TRAILER
"""
_ORIGINS = ("ORIG", "PATH", "ORIG_OR_PATH")
_HOSTS = ("ORIG", "HOST", "ORIG_OR_HOST")

_COMMANDS = {
    **dict.fromkeys(_ALONE.split(), _Command()),
    **dict.fromkeys(
        _OPTIONAL.split(),
        _Command(_anything),
    ),
    **dict.fromkeys(
        _TIMES.split(),
        _Command(_time),
    ),
    **dict.fromkeys(
        _HEADERS.split(),
        _Command(_headers, needed=True, length=True),
    ),
    **dict.fromkeys(("CEL", "TYPED_CEL"), _Command(_cel, needed=True, length=True)),
    **dict.fromkeys(("DYNAMIC_METADATA", "ENVIRONMENT", "QUERY_PARAM"), _Command(_anything, needed=True, length=True)),
    **dict.fromkeys(("CLUSTER_METADATA", "UPSTREAM_METADATA"), _Command(_anything, needed=True)),
    **dict.fromkeys(("FILTER_STATE", "UPSTREAM_FILTER_STATE"), _Command(_filter_state, needed=True, length=True)),
    "METADATA": _Command(_metadata, needed=True, length=True),
    "COMMON_DURATION": _Command(_duration, needed=True),
    "COALESCE": _Command(_coalesce, needed=True, length=True),
    "GRPC_STATUS": _Command(_one_of(("CAMEL_STRING", "SNAKE_STRING", "NUMBER"))),
    "REQUESTED_SERVER_NAME": _Command(_one_of(("SNI_ONLY", "SNI_FIRST", "HOST_FIRST"), _HOSTS)),
    "PATH": _Command(_one_of(("WQ", "NQ"), _ORIGINS), length=True),
    "QUERY_PARAMS": _Command(_one_of(("ORIG", "DECODED")), length=True),
}
COMMANDS = frozenset(_COMMANDS)
"""Their names."""
_FORM = re.compile(r"%([A-Z0-9_]+)(?:\((.*?)\))?(?::([0-9]+))?%")
_NEAR = 24


def format_errors(text: str) -> Iterator[FormatError]:
    """Everything in `text` that Envoy refuses, in its order."""
    place = 0
    while (place := text.find("%", place)) >= 0:
        if text.startswith("%%", place):
            place += 2
            continue
        found = _FORM.match(text, place)
        if found is None:
            says = f"what begins with {text[place : place + _NEAR]!r} (column {place + 1}) is no command"
            yield FormatError(says, "write %% for a percent sign, and commands such as %REQ(:PATH)%")
            place += 1
            continue
        error = _error(*found.groups())
        if error is not None:
            yield FormatError(f"{error.message} (column {place + 1})", error.hint)
        place = found.end()


def _error(name: str, argument: str | None, length: str | None) -> FormatError | None:
    command = _COMMANDS.get(name)
    if command is None:
        meant = difflib.get_close_matches(name, _COMMANDS, 1)
        hint = f"did you mean %{meant[0]}%?" if meant else 'Envoy\'s page "Substitution formatter" has them all'
        return FormatError(f"there is no command %{name}%", hint)
    if length is not None and not command.length:
        return FormatError(f"%{name}% takes no length", f"leave :{length} out")
    if not argument:
        return FormatError(f"%{name}% needs an argument", f"write %{name}(...)%") if command.needed else None
    if command.argument is None:
        return FormatError(f"%{name}% takes no argument", f"write %{name}%")
    wrong = command.argument(argument)
    return None if wrong is None else FormatError(f"%{name}%: {wrong.message}", wrong.hint)
