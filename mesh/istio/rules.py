"""Rules that several of Istio's kinds share: hosts, ports, labels, durations, percentages, regular expressions.

Each yields what is wrong, with paths relative to the message that asks.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping

from mesh.istio.base import problem
from mesh.istio.regex import regex_error
from mesh.problems import FieldProblem, Path

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_HOST_PART = re.compile(r"[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?\Z")
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?\Z")
_HEADER = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+\Z")

ONE_MILLISECOND = 0.001
Problems = Iterator[FieldProblem]


def is_dns_label(text: str) -> bool:
    """Whether `text` is an RFC 1123 label, as names of namespaces are."""
    return _LABEL.match(text) is not None


def is_object_name(text: str) -> bool:
    """Whether `text` is an RFC 1123 subdomain, as names of most Kubernetes objects are."""
    return len(text) <= 253 and all(_LABEL.match(part) for part in text.split("."))


def is_ip(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def host_error(host: str, *, wildcard: bool) -> str:
    """Why `host` is no DNS name (with `wildcard`: nor `*` nor `*.` before one); "" when it is."""
    if not host:
        return "the host is empty"
    rest = host
    if wildcard and host.startswith("*"):
        if host == "*":
            return ""
        if not host.startswith("*."):
            return f"{host!r}: a wildcard stands for whole parts of the name"
        rest = host[2:]
    elif "*" in host and not wildcard:
        return f"{host!r}: a wildcard does not name one service"
    if "*" in rest:
        return f"{host!r}: a wildcard stands only at the beginning"
    if len(host) > 255:
        return f"the host has {len(host)} characters, a DNS name has at most 255"
    if not all(_HOST_PART.match(part) for part in rest.removesuffix(".").split(".")):
        return f"{host!r} is not a DNS name"
    return ""


def check_host(path: Path, host: str, *, wildcard: bool, address: bool = False) -> Problems:
    """A DNS name; where allowed with a wildcard, or an IP address."""
    if address and is_ip(host):
        return
    if error := host_error(host, wildcard=wildcard):
        wildcards = " or a wildcard such as *.example.com" if wildcard else ""
        yield problem(*path, says=error, hint=f"write a DNS name such as reviews.default.svc.cluster.local{wildcards}")


def check_gateways(gateways: tuple[str, ...]) -> Problems:
    """Names of Gateways: `mesh`, `name` or `namespace/name`."""
    for index, name in enumerate(gateways):
        parts = name.split("/")
        if len(parts) > 2 or not is_object_name(parts[-1]) or (len(parts) == 2 and not is_dns_label(parts[0])):
            yield problem(
                "gateways",
                index,
                says=f"{name!r} does not name a Gateway",
                hint="write mesh, <name> or <namespace>/<name>",
            )


def check_export_to(export_to: tuple[str, ...]) -> Problems:
    """`.`, `*`, `~` or namespaces, each once."""
    for index, target in enumerate(export_to):
        if target not in (".", "*", "~") and not is_dns_label(target):
            yield problem(
                "exportTo",
                index,
                says=f"{target!r} is not a namespace",
                hint='write "." for the own namespace, "*" for all, or the name of a namespace',
            )
        elif target in export_to[:index]:
            yield problem("exportTo", index, says=f"{target!r} is listed twice", hint="keep one of the two")
    if len(export_to) > 1 and ("*" in export_to or "~" in export_to):
        yield problem("exportTo", says='"*" and "~" stand alone', hint="remove the other entries")


def check_port(path: Path, number: int, *, optional: bool = False) -> Problems:
    """1 to 65535; 0 too where it means "not set"."""
    if not 1 <= number <= 65535 and not (optional and number == 0):
        yield problem(*path, says=f"{number} is not a port number", hint="use 1 to 65535")


def check_labels(path: Path, labels: Mapping[str, str]) -> Problems:
    """Keys and values by Kubernetes' rules for labels."""
    for key, value in labels.items():
        prefix, _, name = key.rpartition("/")
        if not _LABEL_NAME.match(name) or (("/" in key) and not is_object_name(prefix)):
            yield problem(*path, key, says=f"{key!r} is not a label key", hint="write name or prefix.example.com/name")
        if not _LABEL_VALUE.match(value):
            yield problem(
                *path,
                key,
                says=f"{value!r} is not a label value",
                hint="use at most 63 letters, digits, dashes, underscores and dots, a letter or digit at both ends",
            )


def check_duration(path: Path, seconds: float | None, *, zero: bool = False) -> Problems:
    """At least 1 ms (0 too where it means "off"), in whole milliseconds, as Istio asks of its durations."""
    if seconds is None or (zero and seconds == 0):
        return
    if seconds < ONE_MILLISECOND:
        allowed = ", or 0s to turn it off" if zero else ""
        yield problem(*path, says=f"{seconds:g}s is shorter than 1ms", hint=f"write at least 1ms{allowed}")
    elif abs(seconds * 1000 - round(seconds * 1000)) > 1e-6 * max(1.0, seconds):
        yield problem(*path, says=f"{seconds:g}s has fractions of a millisecond", hint="round it to whole milliseconds")


def check_percentage(path: Path, value: float | None) -> Problems:
    """0 to 100."""
    if value is not None and not 0 <= value <= 100:
        yield problem(*path, says=f"{value:g} is not a percentage", hint="use 0 to 100")


def check_regex(path: Path, pattern: str) -> Problems:
    """An expression that Envoy's RE2 compiles."""
    if error := regex_error(pattern):
        yield problem(
            *path,
            says=f"{pattern!r} is not an RE2 expression: {error}",
            hint="the syntax: github.com/google/re2/wiki/Syntax",
        )


def check_subnets(path: Path, subnets: Collection[str]) -> Problems:
    """IP addresses or CIDR ranges."""
    for index, subnet in enumerate(subnets):
        try:
            ipaddress.ip_network(subnet, strict=False)
        except ValueError:
            yield problem(*path, index, says=f"{subnet!r} is not an address range", hint="write 10.0.0.0/8 or 10.1.2.3")


def check_header_name(path: Path, name: str) -> Problems:
    """A field name by RFC 9110, section 5.1."""
    if not _HEADER.match(name):
        yield problem(
            *path, says=f"{name!r} is not a header name", hint="use letters, digits and dashes, such as x-request-id"
        )


def host_covers(pattern: str, host: str) -> bool:
    """Whether `pattern` stands for every name that `host` stands for: `*.com` covers `*.a.com` and `a.com`."""
    if pattern.startswith("*"):
        return host.endswith(pattern[1:]) and len(host.lstrip("*")) >= len(pattern[1:])
    return pattern == host
