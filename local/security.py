"""As whom and with what rights a container runs: the merge of pod and container `securityContext`. Pure.

Sources: Kubernetes "Configure a Security Context" and the Pod API; the default capabilities are containerd's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local.linux import CAPABILITIES
from mesh.errors import InvalidInput

DEFAULT_CAPABILITIES = frozenset(
    {
        "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
        "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
    }
)  # fmt: skip
_NUMBERS = {name: number for number, name in enumerate(CAPABILITIES)}


@dataclass(frozen=True, slots=True)
class Security:
    """Numeric user, group and further groups; capability bits (the bounding set); the switches."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    capabilities: tuple[int, ...]
    no_new_privs: bool
    read_only_root: bool
    privileged: bool


def security(pod: Mapping[str, Any], container: Mapping[str, Any], image_user: int, field: str) -> Security:
    """What `container` of `pod` runs as; InvalidInput, as the kubelet says it, if runAsNonRoot meets user 0."""
    of_pod = pod["spec"].get("securityContext") or {}
    own = container.get("securityContext") or {}
    uid = _first(own.get("runAsUser"), of_pod.get("runAsUser"), image_user)
    gid = _first(own.get("runAsGroup"), of_pod.get("runAsGroup"), 0)
    if uid == 0 and _first(own.get("runAsNonRoot"), of_pod.get("runAsNonRoot"), False):
        raise InvalidInput(
            "container has runAsNonRoot and would run as user 0",
            field=f"{field}.securityContext.runAsNonRoot",
            hint="set runAsUser to a user other than 0, or `user:` of the image in the images file",
        )
    groups = set(of_pod.get("supplementalGroups") or [])
    if of_pod.get("fsGroup") is not None:
        groups.add(of_pod["fsGroup"])
    privileged = bool(own.get("privileged"))
    return Security(
        uid=uid,
        gid=gid,
        groups=tuple(sorted(groups)),
        capabilities=_capabilities(own.get("capabilities") or {}, privileged, field),
        no_new_privs=own.get("allowPrivilegeEscalation") is False,
        read_only_root=bool(own.get("readOnlyRootFilesystem")),
        privileged=privileged,
    )


def _capabilities(wanted: Mapping[str, Any], privileged: bool, field: str) -> tuple[int, ...]:
    if privileged:
        return tuple(range(len(CAPABILITIES)))
    kept = set(DEFAULT_CAPABILITIES)
    # Runtimes drop first and then add, so that "drop ALL, add NET_ADMIN" leaves NET_ADMIN.
    for name in wanted.get("drop") or []:
        kept = set() if name.upper() == "ALL" else kept - {_plain(name, f"{field}.securityContext.capabilities.drop")}
    for name in wanted.get("add") or []:
        added = _NUMBERS if name.upper() == "ALL" else {_plain(name, f"{field}.securityContext.capabilities.add")}
        kept |= set(added)
    return tuple(sorted(_NUMBERS[name] for name in kept))


def _plain(name: str, field: str) -> str:
    plain = name.upper().removeprefix("CAP_")
    if plain not in _NUMBERS:
        raise InvalidInput(f"{name!r} is not a Linux capability", field=field, hint="see capabilities(7), without CAP_")
    return plain


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)
