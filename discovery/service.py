"""Discovery as a process: its options, and how its parts are put together."""

from __future__ import annotations

import argparse
import datetime
import os
import secrets
import time
from pathlib import Path
from typing import Any

import structlog

from discovery.app import Deps, create_app, verified_peer
from discovery.bare import Bare, create_bare_app
from discovery.compiling import Compiler
from discovery.envoy.render import render
from discovery.feed import Feed
from discovery.health import create_health_app
from discovery.hub import Hub
from discovery.logs import configure
from discovery.metrics import Metrics
from discovery.plain import without_identity
from discovery.plan.model import Plan
from discovery.plan.plan import plan, proxy_of
from discovery.server import Running, Server, serve_plain
from discovery.serving import Certificate, FileCertificate, SvidCertificate
from discovery.sessions import Sessions, Tools
from discovery.snapshots import watches
from kube.client import connect
from kube.source import Source
from mesh.errors import HeddleError, InvalidInput
from mesh.identity import DEFAULT_TRUST_DOMAIN, Identity
from mesh.objects import Pod
from mesh.ports import CA, CONTROL_METRICS, DISCOVERY
from mesh.settings import CONTROL_NAMESPACE
from mesh.snapshot import Snapshot
from svid.client import CaAddress
from svid.keeper import Keeper, enrolment
from svid.material import PodRef

log = structlog.get_logger("discovery")


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; 2 when what was asked for is wrong."""
    configure()
    options = _parser().parse_args(arguments)
    try:
        connect(options.kube_api)
        for listen in (options.listen, options.metrics_listen, options.ca_address, options.bare_listen or ":0"):
            _address(listen)
        if bool(options.certificate_file) != bool(options.key_file):
            raise InvalidInput("--certificate-file and --key-file go together")
    except HeddleError as error:
        log.error("cannot start", error=str(error))
        return 2
    Server(lambda: _start(options), options.listen).run()
    return 0


def _start(options: argparse.Namespace) -> Running:
    """In the worker: connect, read, follow."""
    metrics, hub = Metrics(), Hub(time.monotonic)
    feed = Feed(Source(watches(), connect(options.kube_api)), hub, metrics, time.monotonic)
    sessions = Sessions(_tools(hub, metrics, Compiler(_plan, render)))
    bare = Bare(_tools(hub, metrics, Compiler(lambda *of: without_identity(_plan(*of)), render, with_secrets=False)))
    certificate = _certificate(options)
    metrics.connected(lambda: sum(member.connected for member in hub.members))

    def not_ready() -> str:
        if not feed.synced:
            said = "; ".join(finding.message for finding in feed.findings())
            return "the API server's objects are not read yet" + (f": {said}" if said else "")
        return "discovery is shutting down" if hub.closing else certificate.not_ready()

    hub.start()
    feed.start()
    serve_plain(_address(options.metrics_listen), create_health_app(metrics, not_ready))
    if options.bare_listen:
        serve_plain(_address(options.bare_listen), create_bare_app(bare))
    log.info("serving", listen=options.listen, bare=options.bare_listen, api_server=options.kube_api or "found")
    return Running(create_app(Deps(hub, sessions, feed, verified_peer, bare.status)), certificate, hub.close)


def _plan(snapshot: Snapshot, pod: Pod) -> Plan:
    return plan(snapshot, proxy_of(snapshot, pod.meta.key))


def _tools(hub: Hub, metrics: Metrics, compiler: Compiler) -> Tools:
    return Tools(hub, compiler, metrics, _now, lambda: secrets.token_urlsafe(12))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _certificate(options: argparse.Namespace) -> Certificate:
    if options.certificate_file:
        return FileCertificate(options.certificate_file, options.key_file, options.trust_bundle)
    ca = CaAddress(*_address(options.ca_address), Identity(options.trust_domain, CONTROL_NAMESPACE, "heddle-ca"))
    obtain = enrolment(ca, roots=options.trust_bundle.read_text, token_file=options.token_file, pod=_own_pod())
    certificate = SvidCertificate(lambda: keeper.last_error)
    keeper = Keeper(obtain, on_change=certificate.changed)
    keeper.start()
    return certificate


def _own_pod() -> PodRef | None:
    """The pod that this runs in; None outside of one, where the ca asks for none either (`heddle local`)."""
    names = [os.environ.get(name, "") for name in ("POD_NAMESPACE", "POD_NAME", "POD_UID")]
    return PodRef(*names) if all(names) else None


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdigit():
        raise InvalidInput(f"{text!r} is not host:port")
    return host.strip("[]"), int(port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m discovery", description="Heddle's discovery service")
    add: Any = parser.add_argument
    add("--listen", default=f"0.0.0.0:{DISCOVERY}", help="address of the agents' HTTPS port")
    add("--bare-listen", default="", help="address of the plain HTTP port for Envoys without an agent; none by default")
    add("--metrics-listen", default=f"0.0.0.0:{CONTROL_METRICS}", help="address of /metrics, /healthz and /readyz")
    add("--kube-api", default="", help="URL of the API server; otherwise that of the cluster or of KUBECONFIG")
    add("--trust-domain", default=DEFAULT_TRUST_DOMAIN)
    add("--ca-address", default=f"heddle-ca.{CONTROL_NAMESPACE}.svc:{CA}", help="where to get the own certificate")
    add("--trust-bundle", type=Path, default=Path("/var/run/secrets/istio/root-cert.pem"), help="the ca's roots (PEM)")
    add("--token-file", type=Path, default=Path("/var/run/secrets/tokens/istio-token"), help="token for the ca")
    add("--certificate-file", type=Path, default=None, help="serve this certificate (PEM) and ask no ca")
    add("--key-file", type=Path, default=None, help="the key of --certificate-file")
    return parser
