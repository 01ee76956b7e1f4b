"""From the words of a command line to a request: who sends it, to which host, port and path. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from cli.pod_names import meant
from discovery.explain.model import HTTP_PORT, HTTPS_PORT, Request
from discovery.explain.names import dialled
from discovery.plan.index import Index
from discovery.plan.workloads import is_gateway
from mesh.errors import InvalidInput, NotFound
from mesh.objects import Key, Pod
from mesh.snapshot import Snapshot

_TO = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/?#\[\]]+)"
    r"(?::(?P<port>[^/?#]*))?"
    r"(?P<path>[/?].*)?\Z"
)
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*:\s*(.*?)\s*\Z")
_METHOD = re.compile(r"[A-Z][A-Z-]*\Z")
_SCHEMES = {"http": HTTP_PORT, "https": HTTPS_PORT}
MOST_NAMES = 5


def asked(
    snapshot: Snapshot,
    index: Index,
    source: str,
    target: str,
    *,
    namespace: str = "",
    method: str = "GET",
    headers: Iterable[str] = (),
    authority: str = "",
) -> tuple[Request, tuple[Key, ...]]:
    """The request that is meant, and the other pods that would send it alike. InvalidInput or NotFound name the word
    that is wrong, and the way out."""
    pod, alike = client(snapshot, index, source, namespace)
    found = _TO.match(target)
    if found is None:
        raise InvalidInput(f"{target!r} is no HOST[:PORT][/PATH]", field="TO", hint="such as reviews:9080/reviews/1")
    scheme, path = (found["scheme"] or "").lower(), found["path"] or "/"
    if scheme and scheme not in _SCHEMES:
        raise InvalidInput(f"{scheme} is no scheme that can be explained", field="TO", hint="use http or https")
    host = found["host"].strip("[]")
    port = _port(found["port"]) if found["port"] is not None else _SCHEMES.get(scheme, 0)
    if not port:
        port = HTTP_PORT if is_gateway(pod) else _usual_port(snapshot, index, host, pod)
    if not _METHOD.match(method):
        raise InvalidInput(f"{method!r} is no HTTP method", field="--request", hint="such as GET or POST")
    request = Request(
        client=pod.meta.key,
        host=host,
        port=port,
        path=path if path.startswith("/") else f"/{path}",
        method=method,
        headers=tuple(map(_header, headers)),
        authority=authority,
        tls=scheme == "https",
    )
    return request, alike


def client(snapshot: Snapshot, index: Index, said: str, namespace: str) -> tuple[Pod, tuple[Key, ...]]:
    """The pod that is meant by its name or the beginning of it; one of several that are all the same to routes."""
    running = {key: pod for key, pod in snapshot.pods.items() if not pod.finished}
    found = sorted(meant(running, said, namespace))
    if not found:
        raise NotFound(
            f"there is no pod {said}{f' in namespace {namespace}' if namespace else ''}",
            field="FROM",
            hint=_near(running, said),
        )
    kinds = {_kind(running[key], index): key for key in reversed(found)}
    if len(kinds) > 1:
        shown = ", ".join(map(str, found[:MOST_NAMES])) + (", ..." if len(found) > MOST_NAMES else "")
        raise InvalidInput(
            f"{said} could be {shown}, which are not all treated alike",
            field="FROM",
            hint="write more of the name, or -n NAMESPACE",
        )
    return running[found[0]], tuple(found[1:])


def _kind(pod: Pod, index: Index) -> object:
    """What about a client makes a difference to its requests."""
    labels = tuple(sorted((k, v) for k, v in pod.meta.labels.items() if k in index.source_labels))
    annotations = tuple(sorted((k, v) for k, v in pod.meta.annotations.items() if k.startswith("traffic.")))
    return pod.meta.namespace, pod.has_sidecar, is_gateway(pod), labels, annotations


def _near(pods: Iterable[Key], said: str) -> str:
    keys = sorted(pods)
    name = said.rpartition("/")[2]
    names = {key.name: key for key in reversed(keys)}
    close = [str(names[each]) for each in get_close_matches(name, names, 3, 0.5)]
    close += [str(key) for key in keys if name and name in key.name and str(key) not in close]
    if close:
        return f"did you mean {' or '.join(close[:3])}?"
    if not keys:
        return "there is no pod at all"
    return f"there are {', '.join(map(str, keys[:MOST_NAMES]))}{', ...' if len(keys) > MOST_NAMES else ''}"


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise InvalidInput(f"{text!r} is not a port number", field="TO", hint="use 1 to 65535")
    return int(text)


def _usual_port(snapshot: Snapshot, index: Index, host: str, pod: Pod) -> int:
    """The only port of the service, or 80 as for any HTTP client."""
    entry = dialled(snapshot, index, host, 0, pod.meta.namespace).entry
    numbers = [port.number for port in entry.ports] if entry is not None else []
    if len(numbers) == 1:
        return numbers[0]
    if entry is None or HTTP_PORT in numbers:
        return HTTP_PORT
    listed = ", ".join(map(str, numbers)) or "none"
    raise InvalidInput(f"{host} has several ports", field="TO", hint=f"name one: {host}:PORT, of {listed}")


def _header(text: str) -> tuple[str, str]:
    found = _HEADER.match(text)
    if found is None:
        raise InvalidInput(f"{text!r} is no header", field="--header", hint="write it as 'name: value'")
    return found[1].lower(), found[2]
