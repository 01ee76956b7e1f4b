"""What outlives a restart of the container: the last good configuration, and the SVID where that touches no disk.

Both are files in the data directory, replaced by rename, so that a reader sees the old or the new one whole. They are
not forced to the disk: after a crash of the node there is no pod to read them. Keys are written only where the
directory is memory (tmpfs); elsewhere a restarted agent makes a new key and asks the ca again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import orjson

from agent.bundle import part
from agent.relay import Wanted
from agent.svid_json import material_from_json, material_to_json
from mesh.errors import HeddleError
from mesh.wire import ResourceType
from svid.material import SvidMaterial

log = logging.getLogger("agent.store")

FORMAT = 1
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})


class Store:
    """`keeps_secrets`: the directory is memory, so that keys may be in it."""

    def __init__(self, directory: str) -> None:
        self._config = Path(directory) / "config.json"
        self._svid = Path(directory) / "svid.json"
        self.keeps_secrets = is_in_memory(directory, Path("/proc/self/mountinfo").read_text())

    def save_config(self, wanted: Wanted) -> None:
        """Replace the kept configuration. Raises OSError."""
        _replace(self._config, _config_chunks(wanted, self.keeps_secrets))

    def load_config(self) -> Wanted | None:
        """The configuration that was kept; None when there is none, or none that can be read."""
        try:
            raw = orjson.loads(self._config.read_bytes())
            if raw["format"] != FORMAT:
                return None
            return {
                ResourceType(kind): {name: part(version, data) for name, (version, data) in parts.items()}
                for kind, parts in raw["resources"].items()
            }
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("the kept configuration cannot be read, starting without it: %s", error)
            return None

    def save_svid(self, material: SvidMaterial) -> None:
        """Keep the SVID for the next start, if no disk is touched by it. Raises OSError."""
        if self.keeps_secrets:
            _replace(self._svid, iter((orjson.dumps(material_to_json(material)),)))

    def load_svid(self) -> SvidMaterial | None:
        """The SVID that was kept, valid or not; None when there is none, or none that can be read."""
        if not self.keeps_secrets:
            return None
        try:
            return material_from_json(orjson.loads(self._svid.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, HeddleError) as error:
            log.warning("the kept certificate cannot be read, asking for a new one: %s", type(error).__name__)
            return None


def is_in_memory(directory: str, mountinfo: str) -> bool:
    """Whether `directory` lies on a file system that is memory, by the text of /proc/self/mountinfo (proc(5))."""
    path = os.path.realpath(directory)
    found, kind = "", ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        mount = fields[4].encode().decode("unicode_escape")  # blanks are written \040
        covers = path == mount or path.startswith(mount.rstrip("/") + "/")
        if covers and len(mount) >= len(found):  # the last mount on a directory is the one that is seen
            found, kind = mount, after.split(" ")[0]
    return kind in _IN_MEMORY


def _config_chunks(wanted: Wanted, with_secrets: bool) -> Iterator[bytes]:
    yield b'{"format":%d,"resources":{' % FORMAT
    kinds = [kind for kind in wanted if with_secrets or kind is not ResourceType.SECRETS]
    for i, kind in enumerate(kinds):
        yield b'%s"%s":{' % (b"," if i else b"", kind.value.encode())
        for j, (name, kept) in enumerate(wanted[kind].items()):
            yield b"%s%s:[%s," % (b"," if j else b"", orjson.dumps(name), orjson.dumps(kept.version))
            yield kept.data
            yield b"]"
        yield b"}"
    yield b"}}"


def _replace(path: Path, chunks: Iterator[bytes]) -> None:
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.writelines(chunks)
    temporary.replace(path)
