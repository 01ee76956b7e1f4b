"""A pod's volumes: directories on the engine's tmpfs, kept current, and where containers mount them.

Contents of configMap, secret, downwardAPI and projected volumes change in one step, as the kubelet does it: a new
timestamped directory, then the symbolic link `..data` replaced. Nothing of the machine is written: hostPath volumes are
read-only, whatever the pod says. Sources: Kubernetes "Volumes", "Projected Volumes", "Configure a Security Context".
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from local.container import Mount
from local.env import Lookup, expand
from local.payload import Payload, Token, payload
from mesh.errors import InvalidInput, Unsupported

KEPT_CURRENT = ("configMap", "secret", "downwardAPI", "projected")
SUPPORTED = ("emptyDir", "hostPath", *KEPT_CURRENT)

# (pod, audience, seconds of validity) -> token
TokenSource = Callable[[Mapping[str, Any], str, int], str]


class PodVolumes:
    """The volumes of one pod below `folder`. Thread-safe; methods do file I/O."""

    def __init__(
        self, pod: Mapping[str, Any], folder: Path, lookup: Lookup, token_for: TokenSource, now: Callable[[], float]
    ) -> None:
        self.pod = pod
        self._folder = folder
        self._lookup = lookup
        self._token_for = token_for
        self._now = now
        self._written: dict[str, Payload] = {}
        self._tokens: dict[tuple[str, int], Token] = {}
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Make every volume; errors name pod, volume and way out. Calling it again makes what is missing."""
        with self._lock:
            for volume in self._volumes():
                kind = kind_of(volume, self.pod)
                if kind == "emptyDir":
                    self._make_empty(volume["name"])
                elif kind in KEPT_CURRENT:
                    self._make_current(volume, kind)
                else:
                    host_source(volume, self.pod)

    def refresh(self) -> list[str]:
        """Bring contents up to date (changed objects, ageing tokens); the names of volumes that changed."""
        changed = []
        with self._lock:
            for volume in self._volumes():
                kind = kind_of(volume, self.pod)
                if kind in KEPT_CURRENT and self._make_current(volume, kind):
                    changed.append(volume["name"])
        return changed

    @property
    def refresh_at(self) -> float:
        """When the first token is due for replacement (in the units of `now`); never, if there are none."""
        return min((token.refresh_at for token in list(self._tokens.values())), default=math.inf)

    def mounts(self, container: Mapping[str, Any], env: Mapping[str, str]) -> list[Mount]:
        """What the container's `volumeMounts` ask for; InvalidInput for a volume or subPath that there is not."""
        volumes = {volume["name"]: volume for volume in self._volumes()}
        found = []
        for index, wanted in enumerate(container.get("volumeMounts") or []):
            field = f"{container['name']}.volumeMounts[{index}]"
            volume = volumes.get(wanted["name"])
            if volume is None:
                raise InvalidInput(
                    f"the pod has no volume {wanted['name']!r}", field=field, hint="add it to spec.volumes"
                )
            kind = kind_of(volume, self.pod)
            base = host_source(volume, self.pod) if kind == "hostPath" else self._folder / volume["name"]
            sub_path = wanted.get("subPath") or expand(wanted.get("subPathExpr") or "", env)
            source = self._inside(base, sub_path, field, make=kind == "emptyDir") if sub_path else base
            read_only = kind != "emptyDir" or bool(wanted.get("readOnly"))
            found.append(Mount(str(source), os.path.normpath(wanted["mountPath"]), read_only, not source.is_dir()))
        return found

    def _volumes(self) -> list[Mapping[str, Any]]:
        return self.pod["spec"].get("volumes") or []

    def _group(self) -> int | None:
        return (self.pod["spec"].get("securityContext") or {}).get("fsGroup")

    def _make_empty(self, name: str) -> None:
        folder = self._folder / name
        if folder.exists():
            return
        folder.mkdir(parents=True)
        group = self._group()
        if group is not None:
            os.chown(folder, -1, group)
        folder.chmod(0o777 if group is None else 0o2777)

    def _make_current(self, volume: Mapping[str, Any], kind: str) -> bool:
        name = volume["name"]
        wanted = payload(self.pod, name, kind, volume[kind], self._lookup, self._token)
        if self._written.get(name) == wanted:
            return False
        replace_contents(self._folder / name, wanted, self._group(), sole_user(self.pod))
        self._written[name] = wanted
        return True

    def _token(self, volume: str, index: int, audience: str, seconds: int) -> str:
        known = self._tokens.get((volume, index))
        if known is None or self._now() >= known.refresh_at:
            text = self._token_for(self.pod, audience, seconds)
            known = Token(text, refresh_at=self._now() + 0.8 * seconds)
            self._tokens[volume, index] = known
        return known.text

    def _inside(self, base: Path, sub_path: str, field: str, *, make: bool) -> Path:
        """`base/sub_path` with links resolved; it must not lead out of the volume."""
        pure = PurePosixPath(sub_path)
        if pure.is_absolute() or ".." in pure.parts:
            raise InvalidInput(f"{sub_path!r} is not a path inside the volume", field=f"{field}.subPath")
        target = (base / pure).resolve()
        if not target.is_relative_to(base.resolve()):
            raise InvalidInput(f"{sub_path!r} leads out of the volume", field=f"{field}.subPath")
        if make and not target.exists():
            target.mkdir(parents=True)
            target.chmod(0o777)
        if not target.exists():
            raise InvalidInput(f"the volume has no {sub_path!r}", field=f"{field}.subPath")
        return target


def kind_of(volume: Mapping[str, Any], pod: Mapping[str, Any]) -> str:
    """The volume's type; Unsupported, with pod, volume and way out, for one that is not served here."""
    kinds = [name for name in volume if name != "name"] or ["emptyDir"]
    if kinds[0] not in SUPPORTED:
        raise Unsupported(
            f"{_where(pod)}: volume {volume['name']!r} is of type {kinds[0]}, which is not available on one machine",
            field=f"spec.volumes[{volume['name']}].{kinds[0]}",
            hint=f"use one of {', '.join(SUPPORTED)}; for data that may be lost, emptyDir: {{}}",
        )
    return kinds[0]


def host_source(volume: Mapping[str, Any], pod: Mapping[str, Any]) -> Path:
    """The hostPath's path, which must exist and be of the wanted type: nothing is created on the machine."""
    wanted = volume["hostPath"]
    path, kind = Path(wanted["path"]), wanted.get("type") or ""
    right = {
        "Directory": path.is_dir,
        "DirectoryOrCreate": path.is_dir,
        "File": path.is_file,
        "FileOrCreate": path.is_file,
    }
    if not right.get(kind, path.exists)():
        raise InvalidInput(
            f"{_where(pod)}: hostPath {path} is not there, or not a {kind or 'path'}",
            field=f"spec.volumes[{volume['name']}].hostPath",
            hint="create it on this machine, or use emptyDir",
        )
    return path.resolve()


def sole_user(pod: Mapping[str, Any]) -> int | None:
    """The runAsUser that all containers share, to whom token files then belong; None if they differ or it is unset."""
    spec = pod["spec"]
    default = (spec.get("securityContext") or {}).get("runAsUser")
    users = {
        (one.get("securityContext") or {}).get("runAsUser", default)
        for one in [*(spec.get("initContainers") or []), *spec["containers"]]
    }
    return users.pop() if len(users) == 1 else None


def replace_contents(folder: Path, wanted: Payload, group: int | None, user: int | None) -> None:
    """Make `folder` show exactly these files, in one step for those who read it."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    fresh.chmod(0o755)
    for path, item in wanted.items():
        file = fresh / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(item.content)
        mode = item.mode
        if item.secret:
            # A token is for the pod's user alone, or its group, where there is one (the kubelet's rule).
            mode = 0o640 if group is not None else 0o600 if user is not None else 0o644
            os.chown(file, user if user is not None and group is None else -1, -1)
        if group is not None:
            os.chown(file, -1, group)
            mode |= 0o040
        file.chmod(mode)
    data, link = folder / "..data", folder / "..data_tmp"
    before = data.resolve() if data.is_symlink() else None
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.replace(data)
    tops = {PurePosixPath(path).parts[0] for path in wanted}
    for top in tops:
        if not (folder / top).is_symlink():
            (folder / top).symlink_to(f"..data/{top}")
    for entry in folder.iterdir():
        if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in tops:
            entry.unlink()
    if before is not None:
        shutil.rmtree(before, ignore_errors=True)


def _where(pod: Mapping[str, Any]) -> str:
    return f"pod {pod['metadata'].get('namespace', 'default')}/{pod['metadata']['name']}"
