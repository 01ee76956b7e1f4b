"""Discovery as a process: its options, and how its parts are put together."""

from __future__ import annotations

import argparse
import datetime
import secrets
import time

import structlog

from discovery.app import Deps, create_app
from discovery.bare import Bare, create_bare_app
from discovery.compiling import Compiler
from discovery.envoy.render import render
from discovery.feed import Feed
from discovery.gate import Gate
from discovery.hub import Hub
from discovery.metrics import Metrics
from discovery.plain import without_identity
from discovery.plan.model import Plan
from discovery.plan.plan import plan, proxy_of
from discovery.polls import Polls, VerifiedPeers
from discovery.server import create_server, serve_plain
from discovery.sessions import Sessions, Tools
from discovery.snapshots import DEFAULT_REVISION, SnapshotBuilder, settings_of, watches
from discovery.tls import Rotating, context_from
from kube.client import connect
from kube.source import Source
from mesh.errors import HeddleError
from mesh.objects import Pod
from mesh.ports import DISCOVERY
from mesh.snapshot import Snapshot
from serving.certificate import Certificate, FileCertificate, SvidCertificate
from serving.health import create_health_app
from serving.logs import configure
from serving.options import add_certificate, add_listening, address, check_certificate, enrol
from serving.server import Running
from svid.tls import server_context

ANSWER_BYTES = 64 << 20
ANSWER_PATIENCE = 10.0

log = structlog.get_logger("discovery")


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; 2 when what was asked for is wrong."""
    configure()
    options = _parser().parse_args(arguments)
    try:
        connect(options.kube_api)
        address(options.listen, "--listen")
        address(options.metrics_listen, "--metrics-listen")
        if options.bare_listen:
            address(options.bare_listen, "--bare-listen")
        check_certificate(options)
    except HeddleError as error:
        log.error("cannot start", error=str(error))
        return 2
    create_server(lambda: _start(options), options.listen).run()
    return 0


def _start(options: argparse.Namespace) -> Running:
    """In the worker: connect, read, follow."""
    metrics, hub = Metrics(), Hub(time.monotonic)
    settings = settings_of(options.revision)
    source = Source(watches(settings), connect(options.kube_api))
    feed = Feed(source, hub, metrics, time.monotonic, SnapshotBuilder(settings))
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
    health = create_health_app("discovery.health", metrics.text, not_ready)
    serve_plain(address(options.metrics_listen, "--metrics-listen"), health)
    if options.bare_listen:
        serve_plain(address(options.bare_listen, "--bare-listen"), create_bare_app(bare))
    log.info("serving", listen=options.listen, bare=options.bare_listen, api_server=options.kube_api or "found")
    gate = Gate(ANSWER_BYTES, ANSWER_PATIENCE, time.monotonic)
    peers = VerifiedPeers()
    app = create_app(Deps(hub, sessions, feed, peers, bare.status))
    return Running(Polls(sessions, gate, peers, app), lambda: Rotating(certificate), hub.close)


def _plan(snapshot: Snapshot, pod: Pod) -> Plan:
    return plan(snapshot, proxy_of(snapshot, pod.meta.key))


def _tools(hub: Hub, metrics: Metrics, compiler: Compiler) -> Tools:
    return Tools(hub, compiler, metrics, _now, lambda: secrets.token_urlsafe(12))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _certificate(options: argparse.Namespace) -> Certificate:
    if options.certificate_file:
        return FileCertificate((options.certificate_file, options.key_file, options.trust_bundle), context_from)
    certificate = SvidCertificate(enrol(options), server_context)
    certificate.start()
    return certificate


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m discovery", description="Heddle's discovery service")
    add_listening(parser, DISCOVERY)
    add_certificate(parser)
    revision = "the revision of the control plane that this belongs to: its mesh settings are followed"
    parser.add_argument("--revision", default=DEFAULT_REVISION, help=revision)
    bare = "address of the plain HTTP port for Envoys without an agent; none by default"
    parser.add_argument("--bare-listen", default="", help=bare)
    return parser
