"""`python -m webhook`: the webhook for injection and validation, under gunicorn."""

from __future__ import annotations

import argparse
import os
import ssl
import sys
import time
from functools import partial

import structlog

from kube.client import connect
from kube.source import Event, Source
from mesh.errors import HeddleError, Unavailable
from mesh.identity import Identity
from mesh.ports import CA, DISCOVERY, WEBHOOK
from mesh.settings import MeshSettings
from serving import wsgi
from serving.certificate import Certificate, FileCertificate, SvidCertificate, client_context_from
from serving.gthread import InThreads, threaded_server
from serving.health import serve_in_threads
from serving.logs import configure
from serving.options import (
    add_certificate,
    add_listening,
    address,
    check_certificate,
    control_namespace,
    enrol,
    following,
)
from serving.server import Running
from svid.material import SvidMaterial
from svid.tls import client_context
from webhook import advice
from webhook.app import MOST_READ, Deps, create_app, health_app
from webhook.cluster import FOR_INJECTION, Cluster, watched
from webhook.config import DEFAULT_REVISION, InjectionConfig
from webhook.enforcement import SECONDS, Enforcement
from webhook.metrics import Metrics
from webhook.overrides import Recorder
from webhook.preflight import Asks, Preflight, not_asked
from webhook.registration import SETTLE_SECONDS, VALIDATING, Registration
from webhook.registration import watched as registered
from webhook.tls import context_from, context_of

THREADS = 2  # docs/adr/0073 says why
KEEPALIVE = 75  # seconds; API servers keep their connections

log = structlog.get_logger("webhook")


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; 2 when what was asked for is wrong."""
    configure()
    options = _parser().parse_args(arguments)
    try:
        config = _config(options)
        connect(options.kube_api)
        address(options.listen, "--listen")
        address(options.metrics_listen, "--metrics-listen")
        check_certificate(options)
    except HeddleError as error:
        log.error("cannot start", error=str(error))
        return 2
    begin = partial(_start, options, config)
    server = threaded_server(begin, options.listen, threads=options.threads, keepalive=KEEPALIVE, max_body=MOST_READ)
    server.run()
    return 0


def _start(options: argparse.Namespace, config: InjectionConfig) -> Running:
    client = connect(options.kube_api)
    metrics = Metrics()
    cluster = Cluster(config, client.get)
    source = Source(watched(config.control_namespace, config.revision), client)
    advised = Source(advice.watched(), client)
    adviser = advice.Advice(lambda: cluster.config.settings, lambda: source.synced() and advised.synced())

    def on_event(event: Event) -> None:
        cluster.on_event(event)
        if event.kind in FOR_INJECTION:
            adviser.on_event(event)

    source.start(on_event)
    advised.start(adviser.on_event)
    sources = [source]
    registration = None
    if not options.no_registration:
        registrations = Source(registered(config.revision), client)
        registration = Registration(
            client,
            config.revision,
            options.trust_bundle.read_text if options.certificate_file else lambda: "",
            cluster.set_tags,
            synced=registrations.synced,
            on_write=metrics.registration_written,
            settle=options.settle_seconds,
        )
        registrations.start(registration.on_event)
        registration.start()
        sources.append(registrations)
    asking = Asking(options)
    certificate = _certificate(options, metrics, registration, asking)
    if registration is not None:
        namespace, configurations = config.control_namespace, partial(registration.configurations, VALIDATING)
        seconds = options.probe_seconds
        Enforcement(client, config.revision, namespace, configurations, metrics.enforced, seconds=seconds).start()

    def not_ready() -> str:
        for each in sources:
            if not each.synced():
                return "not read yet: " + "; ".join(f"{kind}: {why}" for kind, why in each.troubles().items())
        return certificate.not_ready()

    leads_here = registration.leads_here if registration else lambda _revision: False
    deps = Deps(
        lambda: cluster.config,
        cluster.namespace_labels,
        leads_here,
        not_ready,
        metrics,
        adviser.advise,
        _preflight(options, config, asking, metrics),
        Recorder(client, os.environ.get("POD_NAME", ""), time.time).record,
    )
    serve_in_threads(address(options.metrics_listen, "--metrics-listen"), health_app(deps))
    log.info("serving", listen=options.listen, revision=config.revision)
    # The watches end with the process; waiting for a silent one would only delay that.
    return Running(InThreads(partial(wsgi.run, create_app(deps))), certificate.context, certificate.close)


class Asking:
    """The TLS context to ask discovery with: of the SVID as it is now, or of files."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._context: ssl.SSLContext | None = None

    def take(self, material: SvidMaterial) -> None:
        self._context = client_context(material.bundle.pem, material)

    def context(self) -> ssl.SSLContext:
        if self._options.certificate_file:
            files = (self._options.certificate_file, self._options.key_file, self._options.trust_bundle)
            return client_context_from(*files)
        if self._context is None:
            raise Unavailable("no certificate yet")
        return self._context


def _preflight(options: argparse.Namespace, config: InjectionConfig, asking: Asking, metrics: Metrics) -> Asks:
    if not options.discovery_address:
        log.info("objects are admitted without preflight", why="--discovery-address is not given")
        return not_asked
    host, port = address(options.discovery_address, "--discovery-address")
    discovery = Identity(config.settings.trust_domain, config.control_namespace, "heddle-discovery")
    return Preflight(host, port, asking.context, discovery, metrics.preflight)


def _certificate(
    options: argparse.Namespace, metrics: Metrics, registration: Registration | None, asking: Asking
) -> Certificate:
    if options.certificate_file:
        return FileCertificate((options.certificate_file, options.key_file), context_from)

    def trusted(material: SvidMaterial) -> ssl.SSLContext:
        if registration is not None:
            registration.trust(material)
        asking.take(material)
        return context_of(material)

    certificate = SvidCertificate(
        enrol(options), trusted, lambda material: metrics.certificate_ends(material.not_after), following(options)
    )
    certificate.start()
    return certificate


def _config(options: argparse.Namespace) -> InjectionConfig:
    return InjectionConfig(
        settings=MeshSettings(trust_domain=options.trust_domain, root_namespace=control_namespace()),
        revision=options.revision,
        control_namespace=control_namespace(),
        ca_address=options.pods_ca_address,
        discovery_address=options.pods_discovery_address,
        by_default=options.by_default,
        node_agent=not options.no_node_agent,
    )


def _parser() -> argparse.ArgumentParser:
    home = control_namespace()
    parser = argparse.ArgumentParser(prog="python -m webhook", description="Heddle's injection webhook")
    add_listening(parser, WEBHOOK)
    add_certificate(parser)
    add = parser.add_argument
    add("--revision", default=DEFAULT_REVISION, help="the istio.io/rev that this webhook serves")
    add("--by-default", action="store_true", help="inject in namespaces that say nothing, too")
    add("--pods-ca-address", default=f"heddle-ca.{home}.svc:{CA}", help="the ca, as injected pods reach it")
    of_discovery = f"heddle-discovery.{home}.svc:{DISCOVERY}"
    add("--pods-discovery-address", default=of_discovery, help="discovery, as injected pods reach it")
    add("--discovery-address", default="", help="discovery, which tries objects by an Envoy; not asked by default")
    add("--no-node-agent", action="store_true", help="no node has one: rules are always written by an init container")
    add("--no-registration", action="store_true", help="leave the caBundle of webhook configurations to somebody else")
    add(
        "--settle-seconds",
        type=float,
        default=SETTLE_SECONDS,
        help="how long after a new root was written to the API server a certificate of it is shown",
    )
    add(
        "--probe-seconds",
        type=float,
        default=SECONDS,
        help="how often it is proven that the API server gets this webhook's answers (failurePolicy Fail)",
    )
    add("--threads", type=int, default=THREADS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
