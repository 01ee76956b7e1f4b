"""The images that the test cluster's node has, as `docker-archive` tars, which containerd imports."""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from local.images import full_name
from local.sandbox import PROJECT_ROOT
from tests.cluster import builds, cache, image_builds

PAUSE = "registry.k8s.io/pause:heddle"
HEDDLE = "docker.io/heddle/heddle:0.1.0"
TOOLS = "docker.io/heddle/test-tools:1"  # python3, curl, ip, iptables, openssl; runs as user 1000; sleeps
SAMPLES = PROJECT_ROOT / "samples"

Config = dict[str, Any]


def all_archives() -> list[Path]:
    """Of every image that pods of the tests may name; builds what is not in the cache."""
    image_builds.requirements()
    heddle = image_builds.built(HEDDLE, PROJECT_ROOT / "Dockerfile", PROJECT_ROOT)
    archives = [pause(), heddle, samples()]
    for archive in archives:
        archive.touch()  # it is needed now; what is not is forgotten
    return archives


def pause() -> Path:
    """The image that holds a pod's namespaces: one static program."""
    programs = builds.built(builds.PAUSE)
    archive = cache.directory("images") / f"{programs.name}.tar"
    if not archive.exists():
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            tar.add(programs / "pause", "pause")
        content = layer.getvalue()
        config = {
            "architecture": _architecture(),
            "os": "linux",
            "config": {"Entrypoint": ["/pause"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"]},
        }
        _write(archive, {PAUSE: config}, {"layer.tar": content})
    return archive


def samples() -> Path:
    """The samples' images under their real names, and `TOOLS`: the same layers with different commands."""
    image = image_builds.built(TOOLS, Path(__file__).parent / "samples.Dockerfile", SAMPLES)
    variants: dict[str, Config] = {TOOLS: {}}
    for file in sorted(SAMPLES.glob("*/images.yaml")):
        variants.update(_sample(file))
    key = hashlib.sha256(json.dumps(variants, sort_keys=True).encode()).hexdigest()[:8]
    archive = image.with_name(f"{image.stem}-{key}.tar")
    if not archive.exists():
        with tarfile.open(image) as tar:
            (manifest,) = json.loads(_member(tar, "manifest.json"))
            config = json.loads(_member(tar, manifest["Config"]))
            configs = {name: config | {"config": config["config"] | settings} for name, settings in variants.items()}
            _write(archive, configs, {layer: _member(tar, layer) for layer in manifest["Layers"]})
    return archive


def _sample(images_file: Path) -> Iterator[tuple[str, Config]]:
    """Name and settings of each image that a sample's manifests name, by the sample's images file."""
    folder = images_file.parent
    manifests = "\n".join(path.read_text() for path in sorted((folder / "manifests").glob("*.yaml")))
    names = {full_name(name) for name in re.findall(r"^\s*(?:- )?image: (\S+)$", manifests, re.MULTILINE)}
    entries: list[dict[str, Any]] = yaml.safe_load(images_file.read_text())["images"]
    for name in sorted(names):
        for entry in entries:
            if fnmatch.fnmatchcase(name, full_name(entry["match"])):
                program, *arguments = entry["command"]
                yield (
                    name,
                    {
                        "Entrypoint": ["/usr/bin/python3" if program == "python" else program, *arguments],
                        "Cmd": None,
                        "WorkingDir": f"/samples/{folder.name}",
                        "Env": [
                            "PATH=/usr/bin:/bin",
                            *(f"{key}={value}" for key, value in entry.get("env", {}).items()),
                        ],
                    },
                )
                break


def _write(archive: Path, configs: Mapping[str, Config], layers: Mapping[str, bytes]) -> None:
    """An archive of one image a name, all of the same layers."""
    unfinished = archive.with_suffix(".unfinished")
    with tarfile.open(unfinished, "w") as tar:

        def add(name: str, content: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))

        manifest = []
        for number, (name, config) in enumerate(configs.items()):
            add(f"{number}.json", json.dumps(config).encode())
            manifest.append({"Config": f"{number}.json", "RepoTags": [name], "Layers": list(layers)})
        for layer, content in layers.items():
            add(layer, content)
        add("manifest.json", json.dumps(manifest).encode())
    unfinished.rename(archive)


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None, name
    return file.read()


def _architecture() -> str:
    """This machine's, by Go's name for it."""
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
