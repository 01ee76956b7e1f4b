"""Container images built here, by buildah, without a container engine or a registry.

The base image that a Dockerfile names is made by debootstrap, from Debian's packages, under that name. buildah keeps
every step, so that a change of the sources repeats the last steps alone.
Sources: buildah-bud(1), containers-storage.conf(5), debootstrap(8).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import cache, missing

BASE = "docker.io/library/debian:bookworm-slim"
KEPT_SECONDS = 900.0
AUTHORITIES = "/etc/heddle-test-authorities.crt"  # the host's, while building


class BuildFailed(Exception):
    """An image was not built; the message ends with what buildah said."""


def requirements() -> None:
    """Missing where images cannot be built."""
    if os.geteuid() != 0:
        raise missing.Missing("images can be built by root alone")
    for name in ("buildah", "debootstrap"):
        missing.program(name, name)


def built(name: str, dockerfile: Path, context: Path) -> Path:
    """A docker-archive of the image called `name`, as `dockerfile` says; from the cache when nothing has changed."""
    with cache.locked("buildah"):
        _make_base()
        with _host_settings() as settings:
            ignored = [f"--ignorefile={context / '.dockerignore'}"] if (context / ".dockerignore").exists() else []
            _buildah(
                "bud", "--layers", "--isolation=chroot", "--network=host", "--pull-never", *settings, *ignored,
                f"--tag={name}", f"--file={dockerfile}", str(context),
            )  # fmt: skip
        identity = _buildah("inspect", "--type=image", "--format={{.FromImageID}}", name).strip()
        archive = cache.directory("images") / f"{identity.removeprefix('sha256:')[:16]}.tar"
        if archive.exists():
            archive.touch()
            return archive
        unfinished = archive.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        _buildah("push", name, f"docker-archive:{unfinished}:{name}")
        unfinished.rename(archive)
        _forget_old(archive.parent)
        return archive


def _forget_old(archives: Path) -> None:
    """Remove what no run has asked for lately: every change of the sources makes another archive."""
    for archive in archives.glob("*.tar"):
        if time.time() - archive.stat().st_mtime > KEPT_SECONDS:
            archive.unlink()
    _buildah("rm", "--all")  # of builds that were killed: whoever builds holds the lock
    _buildah("rmi", "--prune")


def _make_base() -> None:
    if BASE in _buildah("images", "--format={{.Name}}:{{.Tag}}").split():
        return
    print("tests/cluster: making the base image (a minute, only the first time) ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=cache.directory()) as scratch:
        root = Path(scratch) / "root"
        log = cache.directory() / "debootstrap.log"
        with log.open("wb") as output:
            subprocess.run(
                _unseen([missing.program("debootstrap", "debootstrap"), "--variant=minbase", "bookworm", str(root)]),
                stdout=output,
                stderr=output,
                check=True,
            )
        _slim(root)
        container = _buildah("from", "scratch").strip()
        _buildah("copy", "--quiet", container, str(root), "/")
        _buildah("config", "--cmd=bash", container)
        _buildah("commit", "--quiet", "--rm", container, BASE)


def _slim(root: Path) -> None:
    """Leave out what Debian's own images do, now and for packages added later: manuals, languages, apt's caches."""
    excluded = ("doc", "groff", "info", "locale", "man")
    (root / "etc/dpkg/dpkg.cfg.d/slim").write_text("".join(f"path-exclude /usr/share/{name}/*\n" for name in excluded))
    (root / "etc/apt/apt.conf.d/slim").write_text(
        'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
        'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };\n'
    )
    for place in (*(f"usr/share/{name}" for name in excluded), "var/lib/apt/lists", "var/cache/apt"):
        shutil.rmtree(root / place, ignore_errors=True)
        (root / place).mkdir()
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)


def _buildah(*arguments: str) -> str:
    """What buildah prints; its storage is in the cache, apart from any other on this machine."""
    storage = cache.directory("buildah")
    settings = storage / "storage.conf"
    settings.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{storage / "images"}"\nrunroot = "{storage / "run"}"\n'
    )
    log = cache.directory() / "buildah.log"
    with log.open("ab") as output:
        done = subprocess.run(
            _unseen([missing.program("buildah", "buildah"), *arguments]),
            env=os.environ | {"CONTAINERS_STORAGE_CONF": str(settings), "PATH": missing.SEARCH},
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            check=False,
        )
    if done.returncode:
        end = "\n".join([*done.stdout.splitlines(), *log.read_text(errors="replace").splitlines()][-30:])
        raise BuildFailed(f"buildah {arguments[0]} failed (see {log}):\n{end}")
    return done.stdout


def _unseen(argv: Sequence[str]) -> list[str]:
    """The command with mounts of its own, so that none is seen outside or stays."""
    return [missing.program("unshare", "util-linux"), "--mount", *argv]


@contextmanager
def _host_settings() -> Iterator[list[str]]:
    """Options of `buildah bud` with which pip in a build reaches what pip on this machine reaches."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings = [line.split("=", 1) for line in listed.splitlines() if "=" in line]
    chosen = {key.rpartition(".")[2]: value.strip("'") for key, value in reversed(settings)}  # :env: is first, and wins
    with tempfile.TemporaryDirectory() as scratch:
        options = []
        kept = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")
        lines = ["[global]", *(f"{key} = {chosen[key]}" for key in kept if key in chosen)]
        authorities = Path(chosen.get("cert", ""))
        if authorities.is_file():
            lines.append(f"cert = {AUTHORITIES}")
            options.append(f"--volume={authorities.resolve()}:{AUTHORITIES}:ro")
        file = Path(scratch) / "pip.conf"
        file.write_text("\n".join(lines) + "\n")
        yield [*options, f"--volume={file}:/etc/pip.conf:ro"]
