"""Which connections of a pod go through its proxy, as iptables rules. Pure: texts in, texts out.

The chains are Istio's, in table `nat`, so that what people know about debugging a sidecar stays true:

    PREROUTING -> ISTIO_INBOUND -> ISTIO_IN_REDIRECT   what comes in goes to 15006
    OUTPUT     -> ISTIO_OUTPUT  -> ISTIO_REDIRECT      what the app sends goes to 15001

Unlike Istio, everything is inside these four chains; the built-in ones get one jump each. Writing the rules twice is
therefore the same as writing them once, and removing them leaves nothing behind. UDP, and with it DNS, is not touched.
Source: Istio's reference of the `traffic.sidecar.istio.io` annotations; iptables-extensions(8) owner, REDIRECT.

Used by the webhook (`arguments`), by `heddle-init` and the node agent (`parse_arguments`, netfilter/rules.py), and by
the embedded engine.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from mesh import ports
from mesh.errors import InvalidInput

INBOUND, IN_REDIRECT = "ISTIO_INBOUND", "ISTIO_IN_REDIRECT"
OUTPUT, REDIRECT = "ISTIO_OUTPUT", "ISTIO_REDIRECT"
CHAINS = (INBOUND, IN_REDIRECT, OUTPUT, REDIRECT)

# Answered by the proxy container itself in plain text, for kubelet and Prometheus; Envoy must not stand in front.
PROXY_PORTS = (ports.AGENT, ports.HEALTH, ports.ENVOY_STATS)

_INTERFACE = re.compile(r"[^\s/'\"\\]{1,15}\Z")  # IFNAMSIZ - 1; a trailing + matches every name that begins so
_EVERYWHERE = ("-d 0.0.0.0/0", "-d ::/0")  # not printed by iptables-save
_JUMP = re.compile(rf"-A (?:PREROUTING|OUTPUT)\b.* -j (?:{'|'.join(CHAINS)})\s*\Z")


class Family(Enum):
    """An IP version: `loopback` is the app's own address, `passthrough` the source that marks Envoy -> app.

    Envoy binds that source when it hands an inbound connection on, so that the way to the app is not intercepted again.
    """

    V4 = (4, "127.0.0.1/32", "127.0.0.6/32")
    V6 = (6, "::1/128", "::6/128")

    def __init__(self, version: int, loopback: str, passthrough: str) -> None:
        self.version, self.loopback, self.passthrough = version, loopback, passthrough


@dataclass(frozen=True, slots=True)
class InterceptionSpec:
    """What to intercept. None in an `include` field means everything, an empty tuple nothing.

    `include_outbound_ports` are intercepted whatever their address, in addition to `include_outbound_cidrs`; an
    exclusion wins over both. CIDRs are in canonical form and of either IP version. What comes in by one of
    `virtual_interfaces` (from a virtual machine inside the pod) is treated as what the app sends.
    """

    include_inbound_ports: tuple[int, ...] | None = None
    exclude_inbound_ports: tuple[int, ...] = ()
    include_outbound_cidrs: tuple[str, ...] | None = None
    exclude_outbound_cidrs: tuple[str, ...] = ()
    include_outbound_ports: tuple[int, ...] = ()
    exclude_outbound_ports: tuple[int, ...] = ()
    exclude_interfaces: tuple[str, ...] = ()
    virtual_interfaces: tuple[str, ...] = ()
    proxy_uid: int = ports.PROXY_UID
    proxy_gid: int = ports.PROXY_GID
    outbound_port: int = ports.OUTBOUND
    inbound_port: int = ports.INBOUND


# Values as people write them: shared by the annotations and by the arguments of heddle-init.


def parse_ports(text: str) -> tuple[int, ...]:
    """`80, 443` -> (80, 443); empty text is no port. InvalidInput says which part is wrong."""
    return tuple(dict.fromkeys(_port(part) for part in _parts(text)))


def parse_ports_or_all(text: str) -> tuple[int, ...] | None:
    """As `parse_ports`; `*` is every port (None)."""
    return None if text.strip() == "*" else parse_ports(text)


def parse_cidrs(text: str) -> tuple[str, ...]:
    """`10.0.0.0/8, fd00::/8` -> canonical CIDRs; an address alone is that one host."""
    return tuple(dict.fromkeys(_cidr(part) for part in _parts(text)))


def parse_cidrs_or_all(text: str) -> tuple[str, ...] | None:
    """As `parse_cidrs`; `*` is every address (None)."""
    return None if text.strip() == "*" else parse_cidrs(text)


def parse_interfaces(text: str) -> tuple[str, ...]:
    """`eth1,net0` -> names of network interfaces."""
    names = tuple(dict.fromkeys(_parts(text)))
    for name in names:
        if not _INTERFACE.match(name) or name.startswith(("-", "!")):
            raise InvalidInput(f"{name!r} is not the name of a network interface", hint="use names such as eth1,net0")
    return names


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _port(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not 1 <= number <= 65535:
        raise InvalidInput(f"{text!r} is not a port", hint="use numbers from 1 to 65535, separated by commas")
    return number


def _cidr(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        hint = "use addresses such as 10.0.0.0/8 or fd00::/8, separated by commas"
        raise InvalidInput(f"{text!r} is not a CIDR", hint=hint) from None


# The rules.


def rules(spec: InterceptionSpec, family: Family) -> tuple[str, ...]:
    """Every rule, as lines of iptables-restore without the jumps from the built-in chains, in order."""
    return (
        f"-A {REDIRECT} -p tcp -j REDIRECT --to-ports {spec.outbound_port}",
        f"-A {IN_REDIRECT} -p tcp -j REDIRECT --to-ports {spec.inbound_port}",
        *(f"-A {INBOUND} {match}" for match in _inbound(spec, family)),
        *(f"-A {OUTPUT} {match}" for match in _output(spec, family)),
    )


def jumps() -> tuple[str, ...]:
    """The two rules in built-in chains."""
    return (f"-A PREROUTING -p tcp -j {INBOUND}", f"-A OUTPUT -p tcp -j {OUTPUT}")


def _inbound(spec: InterceptionSpec, family: Family) -> Iterator[str]:
    yield from (f"-i {name} -j RETURN" for name in spec.exclude_interfaces)
    for name in spec.virtual_interfaces:
        yield from (f"-i {name} {match}" for match in _outbound(spec, family))
        yield f"-i {name} -j RETURN"
    excluded = dict.fromkeys((*PROXY_PORTS, *spec.exclude_inbound_ports))
    yield from (f"-p tcp -m tcp --dport {port} -j RETURN" for port in excluded)
    if spec.include_inbound_ports is None:
        yield f"-p tcp -j {IN_REDIRECT}"
    else:
        yield from (f"-p tcp -m tcp --dport {port} -j {IN_REDIRECT}" for port in spec.include_inbound_ports)


def _output(spec: InterceptionSpec, family: Family) -> Iterator[str]:
    yield from (f"-o {name} -j RETURN" for name in spec.exclude_interfaces)
    yield from (f"-p tcp -m tcp --dport {port} -j RETURN" for port in spec.exclude_outbound_ports)
    yield f"-s {family.passthrough} -o lo -j RETURN"
    asks_for_loopback = any(ipaddress.ip_network(cidr).is_loopback for cidr in spec.include_outbound_cidrs or ())
    for owner in (f"--uid-owner {spec.proxy_uid}", f"--gid-owner {spec.proxy_gid}"):
        # Envoy calls a service whose endpoint is this very pod: in through the front door, as from another pod.
        yield f"! -d {family.loopback} -o lo -p tcp -m owner {owner} -j {IN_REDIRECT}"
        if not asks_for_loopback:
            yield f"-o lo -m owner ! {owner} -j RETURN"  # the app calls itself by its pod address
        yield f"-m owner {owner} -j RETURN"  # what Envoy sends is what it has decided already
    yield f"-d {family.loopback} -j RETURN"
    yield from _outbound(spec, family, excluded_ports=False)


def _outbound(spec: InterceptionSpec, family: Family, *, excluded_ports: bool = True) -> Iterator[str]:
    """What is sent to the outbound port, by where it goes."""
    if excluded_ports:  # in OUTPUT they come before everything else
        yield from (f"-p tcp -m tcp --dport {port} -j RETURN" for port in spec.exclude_outbound_ports)
    yield from (f"-d {cidr} -j RETURN" for cidr in _of(family, spec.exclude_outbound_cidrs))
    yield from (f"-p tcp -m tcp --dport {port} -j {REDIRECT}" for port in spec.include_outbound_ports)
    if spec.include_outbound_cidrs is None:
        yield f"-p tcp -j {REDIRECT}"
    else:
        yield from (f"-d {cidr} -p tcp -j {REDIRECT}" for cidr in _of(family, spec.include_outbound_cidrs))


def _of(family: Family, cidrs: Iterable[str]) -> tuple[str, ...]:
    return tuple(cidr for cidr in cidrs if ipaddress.ip_network(cidr).version == family.version)


# Texts for iptables-restore, and what iptables-save must say afterwards.


def restore_text(spec: InterceptionSpec, family: Family, saved: str = "") -> str:
    """Input for `iptables-restore --noflush`: one transaction from whatever `saved` shows to exactly these rules.

    `saved` is what `iptables-save -t nat` printed before. Declaring a chain of one's own empties it; the jumps in
    the built-in chains are not ours to flush, so those that exist are deleted one by one.
    """
    lines = ["*nat", *(f":{chain} - [0:0]" for chain in CHAINS), *_deletions(saved)]
    return "\n".join((*lines, *rules(spec, family), *jumps(), "COMMIT", ""))


def cleanup_text(saved: str) -> str:
    """Input for `iptables-restore --noflush` that removes the rules that `saved` shows; empty when there are none."""
    present = [chain for chain in CHAINS if f":{chain} " in saved]
    if not present:
        return ""
    declared = (f":{chain} - [0:0]" for chain in present)
    return "\n".join(("*nat", *declared, *_deletions(saved), *(f"-X {chain}" for chain in present), "COMMIT", ""))


def missing(spec: InterceptionSpec, family: Family, saved: str) -> tuple[str, ...]:
    """Rules that are not in force according to `saved`, or not in their order; empty when all is well.

    A rule too many in one of our chains counts as well, since it may shadow the ones that follow.
    """
    expected = [*rules(spec, family), *jumps()]
    wrong: list[str] = []
    for chain in (*CHAINS, "PREROUTING", "OUTPUT"):
        want = [rule for rule in expected if rule.startswith(f"-A {chain} ")]
        have = [line for line in saved.splitlines() if line.startswith(f"-A {chain} ")]
        if chain in CHAINS:
            if [_meaning(rule) for rule in want] != [_meaning(line) for line in have]:
                wrong.extend(want)
        else:
            wrong.extend(rule for rule in want if _meaning(rule) not in map(_meaning, have))
    return tuple(wrong)


def _deletions(saved: str) -> list[str]:
    return [line.replace("-A ", "-D ", 1) for line in saved.splitlines() if _JUMP.match(line)]


def _meaning(rule: str) -> tuple[str, ...]:
    """The options of a rule in an order of their own: iptables versions print the same rule differently."""
    options: list[str] = []
    for word in rule.replace(" -m tcp ", " ").split():
        if word == "!" or (word.startswith("-") and not (options and options[-1] == "!")):
            options.append(word)
        else:
            options[-1] += f" {word}"
    return tuple(sorted(option for option in options if option not in _EVERYWHERE))


# Arguments of heddle-init.

_ANY = "*"


def arguments(spec: InterceptionSpec) -> list[str]:
    """The arguments with which `heddle-init` writes the rules of `spec`; all that every pod has are spelled out."""
    return [
        f"--inbound-ports={_list(spec.include_inbound_ports)}",
        f"--exclude-inbound-ports={_list(spec.exclude_inbound_ports)}",
        f"--outbound-cidrs={_list(spec.include_outbound_cidrs)}",
        f"--exclude-outbound-cidrs={_list(spec.exclude_outbound_cidrs)}",
        f"--outbound-ports={_list(spec.include_outbound_ports)}",
        f"--exclude-outbound-ports={_list(spec.exclude_outbound_ports)}",
        f"--exclude-interfaces={_list(spec.exclude_interfaces)}",
        *([f"--virtual-interfaces={_list(spec.virtual_interfaces)}"] if spec.virtual_interfaces else []),
        f"--proxy-uid={spec.proxy_uid}",
        f"--proxy-gid={spec.proxy_gid}",
        f"--outbound-port={spec.outbound_port}",
        f"--inbound-port={spec.inbound_port}",
    ]


def parse_arguments(words: Sequence[str]) -> InterceptionSpec:
    """The spec that `arguments` wrote; what is left out has its default. InvalidInput names the argument."""
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in _PARSERS:
            known = ", ".join(_PARSERS)
            raise InvalidInput(f"{word!r} is not an argument of heddle-init", hint=f"write name=value; known: {known}")
        given[name] = value
    chosen: dict[str, object] = {}
    for name, value in given.items():
        field, parse = _PARSERS[name]
        try:
            chosen[field] = parse(value)
        except InvalidInput as error:
            raise InvalidInput(error.message, field=name, hint=error.hint) from None
    return InterceptionSpec(**chosen)  # type: ignore[arg-type]  # each parser returns its field's type


def _list(values: Sequence[int] | Sequence[str] | None) -> str:
    return _ANY if values is None else ",".join(map(str, values))


def _identifier(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) < 2**32 - 1:
        raise InvalidInput(f"{text!r} is not a user or group id of a proxy", hint="use a number above 0, such as 1337")
    return int(text)


_PARSERS = {
    "--inbound-ports": ("include_inbound_ports", parse_ports_or_all),
    "--exclude-inbound-ports": ("exclude_inbound_ports", parse_ports),
    "--outbound-cidrs": ("include_outbound_cidrs", parse_cidrs_or_all),
    "--exclude-outbound-cidrs": ("exclude_outbound_cidrs", parse_cidrs),
    "--outbound-ports": ("include_outbound_ports", parse_ports),
    "--exclude-outbound-ports": ("exclude_outbound_ports", parse_ports),
    "--exclude-interfaces": ("exclude_interfaces", parse_interfaces),
    "--virtual-interfaces": ("virtual_interfaces", parse_interfaces),
    "--proxy-uid": ("proxy_uid", _identifier),
    "--proxy-gid": ("proxy_gid", _identifier),
    "--outbound-port": ("outbound_port", _port),
    "--inbound-port": ("inbound_port", _port),
}
