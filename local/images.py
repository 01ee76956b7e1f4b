"""The images file: which local command stands for which container image. Pure but for `load_images`.

    images:
      - match: "docker.io/istio/examples-bookinfo-productpage-v1:*"
        command: [python, productpage.py]     # the image's entry point; `python` is this Python
        args: ["9080"]                        # optional: the image's default arguments
        env: {FLOOD_FACTOR: "0"}              # optional
        workingDir: apps                      # optional, relative to the file; its own folder otherwise
        user: 1000                            # optional: the image's user, 0 otherwise

`match` is a shell pattern against the image's full name: `nginx` is `docker.io/library/nginx:latest` (the rules of the
distribution reference format), and so is a pattern, unless it begins with `*`. The first entry that matches counts.
A pod's `command` and `args` override as usual.
"""

from __future__ import annotations

import fnmatch
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from mesh.errors import InvalidInput, NotFound

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FIELDS = {"match", "command", "args", "env", "workingDir", "user"}


@dataclass(frozen=True, slots=True)
class Image:
    """What an image would have brought: entry point, arguments, environment, working directory, user."""

    match: str
    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    directory: str = "/"
    user: int = 0


@dataclass(frozen=True, slots=True)
class Images:
    """The entries of the images file and those that Heddle brings; `source` is the file to name in errors."""

    entries: tuple[Image, ...] = ()
    source: str = ""

    @property
    def folders(self) -> tuple[Path, ...]:
        """The directories that containers must see: the images file's own."""
        return (Path(self.source).parent,) if self.source else ()

    def find(self, pod: Mapping[str, Any], container: Mapping[str, Any]) -> Image:
        """The entry for the container's image; NotFound, with the lines to add, if there is none."""
        name = full_name(container.get("image") or "")
        for entry in (*self.entries, own_image()):
            if fnmatch.fnmatchcase(name, entry.match):
                return entry
        metadata = pod["metadata"]
        where = self.source or "a file, and pass it with --images"
        raise NotFound(
            f"pod {metadata.get('namespace', 'default')}/{metadata['name']}, container {container['name']}: "
            f"image {container.get('image')!r} has no local command",
            hint=f'add to {where}:\nimages:\n  - match: "{_pattern(name)}"\n    command: [<program>, <arguments...>]',
        )


def load_images(path: Path | None) -> Images:
    """Read the images file; InvalidInput names the file and the field."""
    if path is None:
        return Images()
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InvalidInput(f"cannot read the images file {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise InvalidInput(f"{path} is not YAML: {error}") from error
    listed = document.get("images") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise InvalidInput(f"{path} has no list", field="images", hint='images: [{match: "...", command: [...]}]')
    folder = path.resolve().parent
    entries = tuple(parse_entry(item, folder, f"{path}: images[{index}]") for index, item in enumerate(listed))
    return Images(entries, str(path.resolve()))


def parse_entry(item: Any, folder: Path, where: str) -> Image:
    """One entry; relative paths are relative to `folder`."""
    if not isinstance(item, dict):
        raise InvalidInput("an entry is a mapping", field=where)
    for name in item:
        if name not in _FIELDS:
            raise InvalidInput("unknown field", field=f"{where}.{name}", hint=f"one of {', '.join(sorted(_FIELDS))}")
    match = item.get("match")
    if not isinstance(match, str) or not match:
        raise InvalidInput("a pattern is needed", field=f"{where}.match")
    command = _strings(item.get("command"), f"{where}.command")
    if not command:
        raise InvalidInput("a command is needed", field=f"{where}.command", hint="command: [python, app.py]")
    env = item.get("env") or {}
    if not isinstance(env, dict):
        raise InvalidInput("a mapping of names to strings is needed", field=f"{where}.env")
    user = item.get("user", 0)
    if not isinstance(user, int) or isinstance(user, bool) or user < 0:
        raise InvalidInput("a numeric user id is needed", field=f"{where}.user")
    directory = folder / str(item.get("workingDir") or ".")
    if not directory.is_dir():
        raise InvalidInput(f"{directory} is not a directory", field=f"{where}.workingDir")
    return Image(
        match=match if match.startswith("*") else full_name(match),
        entrypoint=(_program(command[0], folder), *command[1:]),
        arguments=tuple(_strings(item.get("args"), f"{where}.args")),
        env={"PATH": _SYSTEM_PATH, **{str(name): str(value) for name, value in env.items()}},
        directory=os.path.normpath(directory),
        user=user,
    )


def own_image() -> Image:
    """The image with Heddle's own commands, which here are those of this Python environment."""
    commands = f"{sys.prefix}/bin:{_SYSTEM_PATH}"
    return Image("docker.io/heddle/heddle:*", env={"PATH": commands, "PYTHONUNBUFFERED": "1"}, user=1337)


def full_name(image: str) -> str:
    """`nginx` -> `docker.io/library/nginx:latest`; a name with registry, path and tag stays as it is."""
    head, slash, rest = image.partition("/")
    is_registry = bool(slash) and ("." in head or ":" in head or head == "localhost")
    registry, path = (head, rest) if is_registry else ("docker.io", image)
    if registry == "index.docker.io":
        registry = "docker.io"
    if registry == "docker.io" and "/" not in path:
        path = f"library/{path}"
    last = path.rpartition("/")[2]
    if ":" not in last and "@" not in last and not last.endswith("*"):
        path += ":latest"
    return f"{registry}/{path}"


def command_line(image: Image, container: Mapping[str, Any]) -> list[str]:
    """Program and arguments, by Kubernetes' rules for `command`/`args` against ENTRYPOINT/CMD.

    `command` in the pod drops the image's arguments too. InvalidInput if nothing is left to run.
    """
    command, arguments = container.get("command") or [], container.get("args") or []
    if command:
        return [*command, *arguments]
    line = [*image.entrypoint, *(arguments or image.arguments)]
    if not line:
        raise InvalidInput(
            f"no command specified: image {container.get('image')!r} has no entry point", field="command"
        )
    return line


def with_working_directory(image: Image, container: Mapping[str, Any]) -> Image:
    """The image with the pod's own `workingDir`, if it has one."""
    directory = container.get("workingDir")
    return replace(image, directory=directory) if directory else image


def _pattern(name: str) -> str:
    repository, _, _ = name.partition("@")
    head, slash, last = repository.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}:*"


def _program(word: str, folder: Path) -> str:
    if word in ("python", "python3"):
        return sys.executable
    if "/" in word and not word.startswith("/"):
        return os.path.normpath(folder / word)
    return word


def _strings(value: Any, where: str) -> Sequence[str]:
    if value is None:
        return []
    if not isinstance(value, list) or any(isinstance(item, (dict, list)) for item in value):
        raise InvalidInput("a list of strings is needed", field=where)
    return [str(item) for item in value]
