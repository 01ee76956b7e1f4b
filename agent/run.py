"""The agent itself: puts the parts together, and takes them through a pod's life."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import orjson

from agent import VERSION
from agent.bootstrap import bootstrap, environment
from agent.bundle import Part
from agent.children import Children
from agent.client import DiscoveryClient
from agent.control import Control
from agent.drain import drain, drain_seconds
from agent.envoy import LOG_FORMAT, Envoy
from agent.health import Health
from agent.http_server import HttpServer, serve_tcp, serve_unix
from agent.identity import IdentityKeeper, Orders
from agent.log import now_text
from agent.metrics import Metrics
from agent.probes import AppProbes, parse_probes
from agent.relay import Relay
from agent.settings import ENVOY_LOG_LEVELS, Settings
from agent.store import Store
from agent.workload import own_workload
from agent.xds_server import XdsServer
from mesh.envoy_binary import find_envoy
from mesh.errors import Conflict, InvalidInput
from mesh.identity import Identity
from mesh.sds import DEFAULT, ROOTCA, federated_validation_secret, tls_secret, validation_secret
from mesh.wire import ProxyInfo, ResourceType, TrustReport
from svid.material import PodRef, SvidMaterial, TrustBundle

log = logging.getLogger("agent")

STALE_START = 0.5  # seconds that discovery is waited for before Envoy starts with the configuration kept on disk
SAVE_AFTER = 1.0  # seconds after a change was applied: many changes make one file


class Agent:
    """One sidecar. Build it inside the event loop, then `await run()`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._children = Children()
        self._store = Store(settings.data_dir)
        self._workload = own_workload(settings)
        self._relay = Relay(now_text)
        self._fresh = asyncio.Event()
        self._end = asyncio.Event()
        self._hurry = asyncio.Event()
        self._draining = False
        self._failure: BaseException | None = None
        self._save_timer: asyncio.TimerHandle | None = None
        self._servers: list[HttpServer] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._identity = IdentityKeeper(self._children, self._orders(), self._identity_changed)
        self._envoy = Envoy(
            self._children,
            self._envoy_command(),
            settings.admin_port,
            environment(self._workload, os.environ),
            on_start=self._relay.envoy_started,
            on_refusal=self._relay.heard_refusal,
            on_acceptance=self._heard_acceptance,
        )
        self._xds = XdsServer(
            self._relay,
            is_warming=self._envoy.is_warming,
            before_poll=self._envoy.read_log,
            on_applied=self._applied,
        )
        self._discovery = DiscoveryClient(
            settings.discovery,
            self._server("heddle-discovery"),
            self._proxy_info,
            self._relay,
            material=self._current_svid,
            roots=Path(settings.root_cert_file).read_text,
            on_untrusted=self._identity.refused,
            on_update=self._updated,
            trust=self._trust_report,
            on_trust=self._identity.tell,
        )

    # ---- the life

    async def run(self) -> None:
        """Until SIGTERM, SIGINT or /quitquitquit. Raises Conflict when a port is taken."""
        _raise_file_limit()
        self._children.start()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        await self._serve()
        kept = self._store.load_config()
        if kept is not None:
            self._relay.load(kept)
        svid = self._store.load_svid()
        if svid is not None and svid.not_after > time.time() and svid.identity == self._settings.identity:
            self._identity.adopt(svid)
        self._start(self._identity.run())
        self._start(self._configure_and_run_envoy())
        await self._end.wait()
        await self._drain()
        await self._envoy.stop()
        for task in tuple(self._tasks):
            task.cancel()
        for server in self._servers:
            server.close()
        self._save()
        if self._failure is not None:
            raise self._failure

    async def _configure_and_run_envoy(self) -> None:
        await self._identity.ready()
        self._start(self._discovery.run())
        if self._relay.configured:
            try:
                async with asyncio.timeout(STALE_START):
                    await self._fresh.wait()
            except TimeoutError:
                log.warning("discovery does not answer, Envoy starts with the last good configuration")
        else:
            await self._fresh.wait()
        if not self._end.is_set():
            self._write_bootstrap()
            await self._envoy.run()

    def _start(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("a part of the agent failed, stopping: %r", error, exc_info=error)
            self._failure = error
            self._end.set()

    def _stop(self) -> None:
        """The first signal drains, the second one does not wait."""
        if self._end.is_set():
            self._hurry.set()
        self._end.set()

    async def _drain(self) -> None:
        self._draining = True
        seconds = drain_seconds(self._settings.proxy.drain, self._settings.grace_period)
        await drain(self._envoy, seconds, self._hurry, now=time.monotonic, least=self._settings.minimum_drain)

    # ---- what happens

    def _identity_changed(self, material: SvidMaterial) -> None:
        default = tls_secret(DEFAULT, material.chain_pem.decode(), material.key_pem.decode())
        bundle = material.bundle
        if bundle.federated:
            roots = federated_validation_secret(ROOTCA, bundle.by_trust_domain, bundle.crls_by_trust_domain)
        else:
            roots = validation_secret(ROOTCA, bundle.roots, bundle.crls)
        self._relay.set_own_secret(DEFAULT, Part(material.serial, orjson.dumps(default)))
        self._relay.set_own_secret(ROOTCA, Part(_version(bundle), orjson.dumps(roots)))
        self._xds.pass_on()
        try:
            self._store.save_svid(material)
        except OSError as error:
            log.warning("the certificate is not kept for the next start: %s", error)

    def _heard_acceptance(self, kind: ResourceType, name: str) -> None:
        self._relay.heard_acceptance((kind, name))
        self._xds.pass_on()

    def _updated(self) -> None:
        self._xds.pass_on()
        self._fresh.set()

    def _applied(self) -> None:
        self._discovery.applied_changed()
        if self._relay.is_applied and self._save_timer is None:
            self._save_timer = asyncio.get_running_loop().call_later(SAVE_AFTER, self._save)

    def _save(self) -> None:
        self._save_timer = None
        if not self._relay.configured:
            return
        try:
            self._store.save_config(self._relay.good())
        except OSError as error:
            log.warning("the configuration is not kept for the next start: %s", error)

    # ---- what is asked

    async def _serve(self) -> None:
        control = Control(self._xds, self._envoy, self._identity, status=self._status, drain=self._drain)
        health = Health(
            not_ready=self._not_ready,
            metrics=Metrics(
                self._metrics,
                self._settings.admin_port,
                self._settings.scrape,
                self._settings.instance_ip,
                self._workload,
            ),
            probes=AppProbes(parse_probes(self._settings.app_probers), self._settings.instance_ip),
            quit=self._stop,
        )
        ipv6 = any(":" in ip for ip in self._settings.instance_ips)
        everywhere = ("0.0.0.0", "::") if ipv6 else ("0.0.0.0",)
        try:
            self._servers.append(await serve_unix(self._settings.socket, control.handle))
        except OSError as error:
            raise InvalidInput(
                f"{self._settings.socket} cannot be made: {error.strerror}", field="SOCKET_DIR"
            ) from None
        ports = {
            self._settings.health_port: health.readiness_only,
            self._settings.proxy.status_port: health.everything,
        }
        for port, handler in ports.items():
            try:
                self._servers.append(await serve_tcp(everywhere, port, handler))
            except OSError as error:
                raise Conflict(
                    f"port {port} cannot be listened on: {error.strerror}",
                    hint="does the app listen on a port of the sidecar's, or does it run on the host's network?",
                ) from None

    async def _not_ready(self) -> str:
        if self._draining:
            return "draining"
        if self._identity.material is None:
            return f"no certificate yet: {self._identity.last_error or 'asked for'}"
        if not self._relay.configured:
            return f"no configuration yet: {self._discovery.last_error or 'asked for'}"
        if not self._relay.serving:
            return "Envoy has not taken its first configuration yet"
        return "" if await self._envoy.is_live() else "Envoy is not live"

    def _status(self) -> dict[str, Any]:
        material, relay = self._identity.material, self._relay
        return {
            "identity": str(self._settings.identity),
            "certificate": None
            if material is None
            else {
                "serial": material.serial,
                "notBefore": material.not_before,
                "notAfter": material.not_after,
                "renewAt": self._identity.renew_at,
                "bundleSequence": material.bundle.sequence,
            },
            "certificateError": str(self._identity.last_error or ""),
            "discovery": {
                "connected": self._discovery.connected,
                "session": relay.session,
                "sequence": relay.sequence,
                "error": str(self._discovery.last_error or ""),
            },
            "stage": relay.stage.value,
            "applied": {kind: state.as_json() for kind, state in relay.applied.items()},
            "resources": {kind.value: len(parts) for kind, parts in relay.wanted.items()},
            "envoy": {
                "pid": self._envoy.child.pid if self._envoy.child else 0,
                "running": self._envoy.running,
                "restarts": self._envoy.restarts,
                "version": self._xds.envoy_version,
            },
            "draining": self._draining,
            "version": VERSION,
        }

    def _metrics(self) -> str:
        material = self._identity.material
        rejected = sum(len(state.rejected) for state in self._relay.applied.values())
        values = (
            ("heddle_agent_certificate_expiry_timestamp_seconds", "gauge", material.not_after if material else 0),
            ("heddle_agent_discovery_connected", "gauge", int(self._discovery.connected)),
            ("heddle_agent_rejected_resources", "gauge", rejected),
            ("heddle_agent_envoy_restarts_total", "counter", self._envoy.restarts),
        )
        return "".join(f"# TYPE {name} {kind}\n{name} {value}\n" for name, kind, value in values)

    # ---- what the parts are told

    def _current_svid(self) -> SvidMaterial:
        assert self._identity.material is not None
        return self._identity.material

    def _trust_report(self) -> TrustReport:
        material = self._current_svid()
        sequence, _, revision = self._relay.own_in_use(ROOTCA).partition(".")
        leaf = self._relay.own_in_use(DEFAULT)
        return TrustReport(
            sequence=int(sequence or 0),
            revision=int(revision or 0),
            order=self._identity.order.number,
            # While another certificate is on its way, signed perhaps before the last order, nothing is certain.
            root=material.root if leaf == material.serial and not self._identity.renewing else "",
            serial=leaf,
            known=material.bundle.stamp,
        )

    def _server(self, account: str) -> Identity:
        return Identity(self._settings.identity.trust_domain, self._settings.control_namespace, account)

    def _orders(self) -> Orders:
        settings = self._settings
        ttl = settings.certificate_ttl
        return Orders(
            ca=settings.ca,
            ca_identity=self._server("heddle-ca"),
            root_cert_file=settings.root_cert_file,
            token_file=settings.token_file,
            pod=PodRef(settings.pod_namespace, settings.pod_name, settings.pod_uid),
            ttl_seconds=int(ttl) if ttl else None,
            key_kind=settings.key_kind,
        )

    def _proxy_info(self) -> ProxyInfo:
        settings = self._settings
        return ProxyInfo(
            settings.pod_namespace, settings.pod_name, settings.instance_ip, self._xds.envoy_version, VERSION
        )

    def _bootstrap_path(self) -> Path:
        return Path(self._settings.data_dir) / "envoy.json"

    def _write_bootstrap(self) -> None:
        settings = self._settings
        config = bootstrap(
            namespace=settings.pod_namespace,
            pod=settings.pod_name,
            ips=settings.instance_ips,
            workload=self._workload,
            socket=settings.socket,
            admin_port=settings.admin_port,
            stats_port=settings.stats_port,
            buckets=settings.histogram_buckets,
            runtime=settings.proxy.runtime,
        )
        self._bootstrap_path().write_bytes(orjson.dumps(config))

    def _envoy_command(self) -> list[str]:
        settings = self._settings
        command = [find_envoy(settings.envoy_path), "-c", str(self._bootstrap_path())]
        if settings.proxy.concurrency:
            command += ["--concurrency", str(settings.proxy.concurrency)]
        # At SIGTERM every answer says `connection: close` at once: `gradual` would take the whole drain time for it.
        command += [
            "--drain-strategy",
            "immediate",
            "--drain-time-s",
            str(max(1, round(settings.proxy.listener_drain))),
        ]
        command += ["--disable-hot-restart", "--log-format", LOG_FORMAT, "--log-level", settings.envoy_log_level]
        if settings.bootstrap_override:
            command += ["--config-yaml", _override(settings.bootstrap_override)]
        return [*command, "--component-log-level", component_levels(settings.envoy_component_levels)]


def _version(bundle: TrustBundle) -> str:
    """Of the secret that a bundle makes."""
    return f"{bundle.sequence}.{bundle.revision}" if bundle.revision else str(bundle.sequence)


def component_levels(wanted: str) -> str:
    """For `--component-log-level`: what is refused, and which route configuration is taken, is read from the log,
    whatever else of it is `wanted` (`component:level,...`)."""
    levels = dict(part.split(":", 1) for part in wanted.split(",") if ":" in part)
    if levels.get("config") not in ENVOY_LOG_LEVELS[: ENVOY_LOG_LEVELS.index("warning") + 1]:
        levels["config"] = "warning"
    levels["rds"] = "debug"
    return ",".join(f"{component}:{level}" for component, level in levels.items())


def _override(path: str) -> str:
    """The text for `--config-yaml`, which Envoy merges over its configuration (JSON is YAML)."""
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{path} cannot be read: {error}",
            field="ISTIO_BOOTSTRAP_OVERRIDE",
            hint="does the ConfigMap of sidecar.istio.io/bootstrapOverride have the key custom_bootstrap.json?",
        ) from None


def _raise_file_limit() -> None:
    """Envoy holds a connection for each subscription, and so do we; it inherits the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run(settings: Settings) -> None:
    """Run the agent of this pod until it is told to stop."""
    if os.getpid() == 1:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    asyncio.run(_main(settings))


async def _main(settings: Settings) -> None:
    await Agent(settings).run()
