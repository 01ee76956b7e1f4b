"""Origins and problems: how the plan says where something comes from and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from discovery.plan.model import Origin, Problem
from mesh.istio.base import IstioObject, Model, messages
from mesh.istio.destination_rule import (
    ClientTLSSettings,
    HTTPSettings,
    OutlierDetection,
    TcpKeepalive,
    TCPSettings,
)
from mesh.istio.gateway import ServerTLSSettings
from mesh.problems import Path, spell


def origin_of(thing: IstioObject[Any], field: str = "") -> Origin:
    return Origin(thing.kind, thing.namespace, thing.name, field)


def problem_with(thing: IstioObject[Any], field: str, message: str, hint: str) -> Problem:
    return Problem(origin_of(thing, field), message, hint)


# Read and checked by the models, and without a counterpart in the plan so far.
_WITHOUT_COUNTERPART: Mapping[type[Model], tuple[str, ...]] = {
    TCPSettings: ("max_connection_duration", "idle_timeout"),
    TcpKeepalive: ("probes", "interval"),
    HTTPSettings: ("h2_upgrade_policy", "use_client_protocol", "max_concurrent_streams"),
    OutlierDetection: ("split_external_local_origin_errors", "consecutive_local_origin_failures"),
    ClientTLSSettings: ("credential_name",),
    ServerTLSSettings: ("subject_alt_names", "cipher_suites"),
}


def without_counterpart(thing: IstioObject[Any]) -> tuple[Problem, ...]:
    """A problem for each field in use that the plan has no room for.

    Fields that the models mark as planned are not among them: whoever reads the object names those.
    """
    return tuple(
        problem_with(thing, spell(path), "Heddle does not act upon this field yet", "remove it, or accept its absence")
        for path in _paths(thing)
    )


def _paths(thing: IstioObject[Any]) -> Iterator[Path]:
    for path, message in messages(thing.spec, ("spec",)):
        for name in _WITHOUT_COUNTERPART.get(type(message), ()):
            info = type(message).model_fields[name]
            if getattr(message, name) != info.get_default():
                yield (*path, info.alias or name)


def age(thing: IstioObject[Any]) -> tuple[str, str, str]:
    """Sorts the oldest first; objects without a time (from files) by name, then namespace, as in Istio."""
    return (thing.created, thing.name, thing.namespace)


def unique(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Each problem once, sorted."""
    return tuple(sorted(set(problems), key=lambda p: (p.origin, p.message, p.hint)))
