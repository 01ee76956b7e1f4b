"""Discovery as a process: its options, and how its parts are put together."""

from __future__ import annotations

import argparse
import datetime
import os
import secrets
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import gevent
import structlog

from discovery.app import OPERATOR_ACCOUNT, Deps, create_app
from discovery.bare import Bare, create_bare_app
from discovery.compiling import Compiler
from discovery.envoy.render import render
from discovery.feed import Feed
from discovery.findings import Finding
from discovery.gate import Gate
from discovery.gateway_secrets import GatewaySecrets
from discovery.hub import Hub
from discovery.metrics import Metrics
from discovery.peers import Peers
from discovery.plain import without_identity
from discovery.plan.model import Plan
from discovery.plan.plan import plan, proxy_of
from discovery.polls import Polls
from discovery.preflight.desk import PreflightDesk
from discovery.server import create_server, serve_on_socket, serve_plain
from discovery.sessions import Sessions, Tools
from discovery.snapshots import DEFAULT_REVISION, SnapshotBuilder, settings_of, watches
from discovery.status_writer import StatusWriter, Tallies
from discovery.tally import Member
from discovery.tls import Rotating, context_from
from discovery.trust import TrustDesk
from discovery.views import member_of
from kube.client import connect
from kube.leader import Leader
from kube.source import Source
from mesh.errors import HeddleError, Unavailable
from mesh.identity import Identity
from mesh.objects import Pod
from mesh.ports import DISCOVERY
from mesh.rbac import STATUS_LEASE
from mesh.snapshot import Snapshot
from serving import wsgi
from serving.certificate import Certificate, FileCertificate, SvidCertificate, client_context_from
from serving.health import create_health_app
from serving.logs import configure
from serving.operator_socket import SOCKET
from serving.options import (
    add_certificate,
    add_listening,
    address,
    check_certificate,
    control_namespace,
    enrol,
    following,
    own_pod,
)
from serving.server import Running
from svid.material import SvidMaterial
from svid.tls import client_context, server_context
from svid.trust import News

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
    metrics = Metrics()
    hub = Hub(time.monotonic, metrics.dequeued)
    home = control_namespace()
    settings = settings_of(options.revision, home)
    client = connect(options.kube_api)
    feed = Feed(
        Source(watches(settings), client),
        partial(GatewaySecrets, client, clock=time.monotonic, control_namespace=home),
        hub,
        metrics,
        time.monotonic,
        SnapshotBuilder(settings),
    )
    trust = TrustDesk(lambda: sessions.wake())
    sessions = Sessions(replace(_tools(hub, metrics, Compiler(_plan, render)), trust=trust.for_agent))
    bare = Bare(_tools(hub, metrics, Compiler(lambda *of: without_identity(_plan(*of)), render, with_secrets=False)))
    certificate, context = _certificate(options, trust)
    members = partial(_members, sessions)
    tallies = Tallies(hub, feed, members)
    pod = own_pod()
    writer = None
    if pod is not None:  # on a cluster; the engine of `heddle local` shows the same by `heddle status`
        leader = Leader(client, pod.namespace, STATUS_LEASE, pod.name)
        writer = StatusWriter(hub, feed, tallies, Peers(pod, context), client, leader, _now)
    metrics.connected(lambda: [member.version for member in hub.members if member.connected])
    metrics.known(lambda: hub.moment.snapshot if hub.moment else None)

    def not_ready() -> str:
        if not feed.synced:
            said = "; ".join(finding.message for finding in feed.findings())
            return "the API server's objects are not read yet" + (f": {said}" if said else "")
        return "discovery is shutting down" if hub.closing else certificate.not_ready()

    hub.start()
    feed.start()
    if writer is not None:
        writer.start()
    health = create_health_app("discovery.health", metrics.text, not_ready)
    serve_plain(address(options.metrics_listen, "--metrics-listen"), health)
    if options.bare_listen:
        serve_plain(address(options.bare_listen, "--bare-listen"), create_bare_app(bare))
    log.info("serving", listen=options.listen, bare=options.bare_listen, api_server=options.kube_api or "found")
    gate = Gate(ANSWER_BYTES, ANSWER_PATIENCE, time.monotonic)
    preflight = PreflightDesk(lambda: hub.moment.snapshot if hub.moment else None, options.envoy, _pause)
    deps = Deps(hub, sessions, feed, wsgi.caller_of, bare.status, tallies, home, preflight)
    if options.operator_socket:
        operator = Identity(options.trust_domain, home, OPERATOR_ACCOUNT)
        serve_on_socket(options.operator_socket, create_app(replace(deps, peer=lambda _: operator)))

    def close() -> None:
        hub.close()
        if writer is not None:
            writer.stop()

    return Running(Polls(sessions, gate, partial(wsgi.run, create_app(deps))), lambda: Rotating(certificate), close)


def _members(sessions: Sessions) -> list[tuple[Member, tuple[Finding, ...]]]:
    return [found for found in map(member_of, sessions) if found is not None]


def _plan(snapshot: Snapshot, pod: Pod) -> Plan:
    return plan(snapshot, proxy_of(snapshot, pod.meta.key))


def _tools(hub: Hub, metrics: Metrics, compiler: Compiler) -> Tools:
    return Tools(hub, compiler, metrics, _now, lambda: secrets.token_urlsafe(12))


def _pause() -> None:
    gevent.sleep(0)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _certificate(options: argparse.Namespace, trust: TrustDesk) -> tuple[Certificate, Callable[[], ssl.SSLContext]]:
    """The certificate to serve with, and the TLS context to ask other replicas with."""
    if options.certificate_file:
        files = (options.certificate_file, options.key_file, options.trust_bundle)
        return FileCertificate(files, context_from), FileCertificate(files, client_context_from).context
    asking: list[ssl.SSLContext] = []

    def changed(material: SvidMaterial) -> None:
        asking[:] = [client_context(material.bundle.pem, material)]
        trust.take(News(material.bundle))

    def context() -> ssl.SSLContext:
        if not asking:
            raise Unavailable("no certificate yet")
        return asking[0]

    certificate = SvidCertificate(enrol(options), server_context, changed, following(options, trust.take))
    certificate.start()
    return certificate, context


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m discovery", description="Heddle's discovery service")
    add_listening(parser, DISCOVERY)
    add_certificate(parser)
    revision = "the revision of the control plane that this belongs to: its mesh settings are followed"
    parser.add_argument("--revision", default=DEFAULT_REVISION, help=revision)
    bare = "address of the plain HTTP port for Envoys without an agent; none by default"
    parser.add_argument("--bare-listen", default="", help=bare)
    envoy = "the Envoy that loads what an object would lead to before it is admitted; otherwise the one that is found"
    parser.add_argument("--envoy", default=os.environ.get("ENVOY_PATH", ""), help=envoy)
    socket = f"Unix socket on which this user may read status and plans, {SOCKET} in a pod; none by default"
    parser.add_argument("--operator-socket", type=Path, default=None, help=socket)
    return parser
