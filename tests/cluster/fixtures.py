"""The fixtures `api_server`, `own_api_server`, `cluster`, `go_spiffe`, `go_federation`, `fuzzer` and others.

What takes minutes (Go builds, images) is made before the first test that needs it, and outside of that test's time
limit; other processes of the same run go on meanwhile. Where a level cannot run its tests are skipped and the end of
the run says so; with CI=true that is a failure.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.cluster import api_server as api_servers
from tests.cluster import builds, missing
from tests.cluster import cluster as clusters
from tests.cluster.api_server import ApiServer
from tests.cluster.cluster import Cluster
from tests.cluster.image_builds import BuildFailed

EXISTING = "HEDDLE_TEST_KUBECONFIG"

# Of each fixture that was made ready in this process, or not: what is wrong.
_prepared: dict[str, Exception | None] = {}
NOT_COVERED = "not covered"


def prepare_api_server() -> None:
    """Everything that an API server needs, or Missing."""
    missing.program("etcd", "etcd-server")
    builds.built(builds.KUBERNETES)


def prepare_fuzzer() -> None:
    """atheris, or Missing."""
    if importlib.util.find_spec("atheris") is None:
        raise missing.Missing("atheris is not installed: it has wheels for Linux on x86-64, and Python 3.11 to 3.13")


def softhsm_module() -> str:
    """The PKCS #11 module of SoftHSM, or Missing."""
    missing.program("softhsm2-util", "softhsm2")
    for folder in ("/usr/lib/softhsm", "/usr/lib64/softhsm", "/usr/lib64/pkcs11", "/usr/local/lib/softhsm"):
        if Path(folder, "libsofthsm2.so").exists():
            return f"{folder}/libsofthsm2.so"
    raise missing.Missing("softhsm2-util is there and libsofthsm2.so is not")


def refuse_existing() -> None:
    """Missing where the tests were told to use a cluster."""
    if existing() is not None:
        raise missing.Missing(f"the cluster of {EXISTING} does not call this process, and is not the tests' to stop")


# What is made ready for each fixture that a collected test uses.
PREPARATIONS: dict[str, Callable[[], object]] = {
    "api_server": prepare_api_server,
    "own_api_server": prepare_api_server,
    "module_api_server": prepare_api_server,
    "install_server": prepare_api_server,
    "cluster": clusters.requirements,
    "cluster_is_ours": refuse_existing,
    "go_spiffe": lambda: builds.built(builds.SPIFFE),
    "fuzzer": prepare_fuzzer,
    "softhsm": softhsm_module,
    "chromium": lambda: missing.program("chromium", "chromium"),
    "go_federation": lambda: builds.built(builds.FEDERATION),
}


HERE = (
    "own_api_server",
    "module_api_server",
    "install_server",
    "cluster_is_ours",
    "go_spiffe",
    "go_federation",
    "fuzzer",
    "softhsm",
    "chromium",
)
"""What is asked for here although the tests use a cluster that exists."""


def existing() -> Path | None:
    """The kubeconfig of the cluster that the tests were told to use."""
    path = os.environ.get(EXISTING)
    return Path(path).resolve() if path else None


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before the plugin that limits a test's time
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Make ready what the test needs and no test before it did."""
    capture = item.config.pluginmanager.getplugin("capturemanager")
    for name in _needed(item):
        if name not in _prepared and (name in HERE or existing() is None):
            with capture.global_and_fixture_disabled() if capture else nullcontext():  # somebody waits, and reads
                _prepared[name] = _problem(PREPARATIONS[name])
    return (yield)


def _needed(item: pytest.Item) -> list[str]:
    """Those of this module: a folder may have a fixture of its own with the same name."""
    used = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    return [name for name in PREPARATIONS if name in used and used[name][-1].func.__module__ == __name__]


def _problem(prepare: Callable[[], object]) -> Exception | None:
    try:
        prepare()
    except (missing.Missing, BuildFailed, subprocess.CalledProcessError) as error:
        return error
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, and remember, a test that needs what cannot be had here; before any of its fixtures starts."""
    for name in _needed(item):
        problem = _prepared.get(name)
        if problem is None:
            continue
        if not isinstance(problem, missing.Missing) or os.environ.get("CI") == "true":
            pytest.fail(f"{name}: {problem}", pytrace=False)
        item.user_properties.append((NOT_COVERED, [name, str(problem)]))  # part of the report, also between processes
        pytest.skip(f"{name}: {problem}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tests: dict[str, set[str]] = {}
    reasons: dict[str, str] = {}
    for report in terminalreporter.getreports("skipped"):
        for name, reason in (value for key, value in report.user_properties if key == NOT_COVERED):
            tests.setdefault(name, set()).add(report.nodeid)
            reasons[name] = reason
    for name, skipped in tests.items():
        terminalreporter.section(f"NOT COVERED: {len(skipped)} tests that need {name}", sep="!", red=True)
        terminalreporter.write_line(reasons[name])
        for test in sorted(skipped):
            terminalreporter.write_line(f"  {test}")


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    """One for the whole run. Tests keep apart by namespaces, and clean up what is of the whole cluster."""
    chosen = existing()
    if chosen is not None:
        yield ApiServer(chosen)
        return
    with api_servers.running() as started:
        yield started


@pytest.fixture(scope="session")
def fuzzer() -> None:
    """Where there is atheris."""


@pytest.fixture(scope="session")
def go_spiffe() -> Path:
    """The program of go/spiffe."""
    return builds.built(builds.SPIFFE) / "spiffe"


@pytest.fixture(scope="module")
def module_api_server() -> Iterator[ApiServer]:
    """One for the tests of a file, which make what there is once in a cluster, and may kill what they start again."""
    with api_servers.running() as started:
        yield started


@pytest.fixture
def own_api_server() -> Iterator[ApiServer]:
    """One for a single test, which may kill what it likes in it."""
    with api_servers.running() as started:
        yield started


@pytest.fixture(scope="session")
def install_server() -> Iterator[ApiServer]:
    """One for all tests of what `heddle install` does to an API server."""
    with api_servers.running() as started:
        yield started


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One for the whole run: an API server of its own, and a node that has the images of `images.all_archives`."""
    chosen = existing()
    if chosen is not None:
        yield Cluster(chosen)
        return
    with clusters.running() as started:
        yield started


@pytest.fixture(scope="session")
def cluster_is_ours() -> None:
    """Beside `cluster` or `api_server`: where it calls webhooks of this process, and may be looked into and stopped."""


@pytest.fixture(scope="session")
def go_federation() -> Path:
    """The program of go/federation: go-spiffe as a judge of bundles and their endpoints."""
    return builds.built(builds.FEDERATION) / "federation"


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the browser."""
    return missing.program("chromium", "chromium")


@pytest.fixture(scope="session")
def softhsm() -> str:
    """The path of SoftHSM's module."""
    return softhsm_module()
