"""Builds the cluster's Go programs, once for each state of their sources; later runs find them in the cache."""

from __future__ import annotations

import functools
import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import cache, missing

SOURCES = Path(__file__).parent / "go"
OLDEST_GO = (1, 26)
NICENESS = "5"  # tests that need none of it run meanwhile


@dataclass(frozen=True)
class Build:
    """A Go module below go/, the packages in it that become programs, and flags of `go build`."""

    module: str
    packages: tuple[str, ...]
    flags: tuple[str, ...] = ()


_VERSION = "k8s.io/component-base/version"
KUBERNETES = Build(
    "kubernetes",
    (".",),
    (  # without a version, kubectl complains
        "-ldflags",
        f"-s -w -X {_VERSION}.gitVersion=v1.37.2 -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=37",
    ),
)
CONTAINERD = Build(
    "containerd",
    tuple(
        f"github.com/containerd/containerd/v2/cmd/{name}" for name in ("containerd", "ctr", "containerd-shim-runc-v2")
    ),
    ("-ldflags", "-s -w", "-tags", "no_btrfs,no_zfs,no_devmapper"),
)
PAUSE = Build("pause", (".",), ("-ldflags", "-s -w"))
SPIFFE = Build("spiffe", (".",))  # go-spiffe's verdict on certificates, for tests/ca
FEDERATION = Build("federation", (".",))
SIGNING = Build("signing", (".",))  # Go's standard library beside the ca's signing core, for tests/bench
COREDNS = Build("coredns", ("github.com/coredns/coredns",), ("-ldflags", "-s -w"))


@functools.cache
def built(build: Build) -> Path:
    """The directory with the programs of `build`. Missing without Go; CalledProcessError when it does not build."""
    go = missing.program("go", "golang, of version 1.26 or newer")
    target = cache.directory("programs") / f"{build.module}-{_key(build, go)}"
    if target.exists():
        return target
    with cache.locked(f"build-{build.module}"):
        if target.exists():
            return target
        print(f"tests/cluster: building {build.module} (minutes, only the first time) ...", file=sys.stderr, flush=True)
        unfinished = target.with_suffix(".unfinished")
        unfinished.mkdir(exist_ok=True)
        subprocess.run(
            ["nice", "-n", NICENESS, go, "build", "-trimpath", *build.flags, "-o", f"{unfinished}/", *build.packages],
            cwd=SOURCES / build.module,
            check=True,
        )
        unfinished.rename(target)
    return target


def _key(build: Build, go: str) -> str:
    version = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout.strip()
    numbers = version.removeprefix("go").split(".")[:2]
    if not all(number.isdecimal() for number in numbers) or tuple(map(int, numbers)) < OLDEST_GO:
        raise missing.Missing(f"{go} is {version}; Kubernetes needs go{OLDEST_GO[0]}.{OLDEST_GO[1]} or newer")
    digest = hashlib.sha256(repr((build, version)).encode())
    for file in sorted((SOURCES / build.module).iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
