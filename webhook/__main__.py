"""`python -m webhook`: the injection webhook under gunicorn."""

from __future__ import annotations

import argparse
import os
import ssl
import sys
from pathlib import Path

import structlog

from kube.client import connect
from kube.source import Source
from mesh.errors import HeddleError, InvalidInput, Unavailable
from mesh.identity import DEFAULT_TRUST_DOMAIN, Identity
from mesh.ports import CA, CONTROL_METRICS, WEBHOOK
from mesh.settings import CONTROL_NAMESPACE, MeshSettings
from svid.client import CaAddress
from svid.keeper import Keeper, enrolment
from svid.material import PodRef, SvidMaterial
from webhook.app import Deps
from webhook.cluster import Cluster, watched
from webhook.config import DEFAULT_REVISION, InjectionConfig
from webhook.logs import configure
from webhook.metrics import Metrics
from webhook.server import THREADS, Running, Server, address
from webhook.serving import FileContext, context_of

log = structlog.get_logger("webhook")


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; 2 when what was asked for is wrong."""
    configure()
    options = _parser().parse_args(arguments)
    try:
        config = _config(options)
        connect(options.kube_api)
        for listen in (options.listen, options.metrics_listen, options.ca_address):
            address(listen)
        if bool(options.certificate_file) != bool(options.key_file):
            raise InvalidInput("--certificate-file and --key-file go together")
    except HeddleError as error:
        log.error("cannot start", error=str(error))
        return 2
    Server(lambda: _start(options, config), options.listen, options.metrics_listen, options.threads).run()
    return 0


def _start(options: argparse.Namespace, config: InjectionConfig) -> Running:
    client = connect(options.kube_api)
    cluster = Cluster(config, client.get)
    source = Source(watched(config.control_namespace), client)
    source.start(cluster.on_event)
    metrics = Metrics()
    certificate = _Files(options) if options.certificate_file else _Svid(options, config, metrics)

    def not_ready() -> str:
        if not source.synced():
            return "namespaces and settings are not read yet: " + "; ".join(map(str, source.troubles().values()))
        return certificate.not_ready()

    log.info("serving", listen=options.listen, revision=config.revision)
    # The watches end with the process; waiting for a silent one would only delay that.
    deps = Deps(lambda: cluster.config, cluster.namespace_labels, not_ready, metrics)
    return Running(deps, certificate.context, certificate.close)


class _Svid:
    """The serving certificate from the ca, renewed in a thread."""

    def __init__(self, options: argparse.Namespace, config: InjectionConfig, metrics: Metrics) -> None:
        self._metrics = metrics
        self._context: ssl.SSLContext | None = None
        host, port = address(options.ca_address)
        identity = Identity(config.settings.trust_domain, config.control_namespace, "heddle-ca")
        obtain = enrolment(
            CaAddress(host, port, identity),
            roots=options.trust_bundle.read_text,
            token_file=options.token_file,
            pod=_own_pod(),
        )
        self._keeper = Keeper(obtain, on_change=self._changed)
        self._keeper.start()

    def context(self) -> ssl.SSLContext:
        if self._context is None:
            raise Unavailable("the webhook has no certificate yet")
        return self._context

    def not_ready(self) -> str:
        return "" if self._context else f"no certificate yet: {self._keeper.last_error or 'asking the ca'}"

    def close(self) -> None:
        self._keeper.stop()

    def _changed(self, material: SvidMaterial) -> None:
        self._context = context_of(material)
        self._metrics.certificate_ends(material.not_after)


class _Files:
    """The serving certificate from files."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._files = FileContext(options.certificate_file, options.key_file)

    def context(self) -> ssl.SSLContext:
        return self._files.current()

    def not_ready(self) -> str:
        return ""

    def close(self) -> None:
        return None


def _own_pod() -> PodRef | None:
    """The pod that this runs in; None outside of one, where the ca asks for none either (`heddle local`)."""
    names = [os.environ.get(name, "") for name in ("POD_NAMESPACE", "POD_NAME", "POD_UID")]
    return PodRef(*names) if all(names) else None


def _config(options: argparse.Namespace) -> InjectionConfig:
    return InjectionConfig(
        settings=MeshSettings(trust_domain=options.trust_domain),
        revision=options.revision,
        ca_address=options.pods_ca_address,
        discovery_address=options.pods_discovery_address,
        by_default=options.by_default,
    )


def _parser() -> argparse.ArgumentParser:
    defaults = InjectionConfig()
    parser = argparse.ArgumentParser(prog="python -m webhook", description="Heddle's injection webhook")
    add = parser.add_argument
    add("--listen", default=f"0.0.0.0:{WEBHOOK}", help="address of the HTTPS port")
    add("--metrics-listen", default=f"0.0.0.0:{CONTROL_METRICS}", help="address of /metrics, /healthz and /readyz")
    add("--kube-api", default="", help="URL of the API server; otherwise that of the cluster or of KUBECONFIG")
    add("--trust-domain", default=DEFAULT_TRUST_DOMAIN)
    add("--revision", default=DEFAULT_REVISION, help="the istio.io/rev that this webhook serves")
    add("--by-default", action="store_true", help="inject in namespaces that say nothing, too")
    add("--ca-address", default=f"heddle-ca.{CONTROL_NAMESPACE}.svc:{CA}", help="where to get the own certificate")
    add("--trust-bundle", type=Path, default=Path("/var/run/secrets/istio/root-cert.pem"), help="the ca's roots (PEM)")
    add("--token-file", type=Path, default=Path("/var/run/secrets/tokens/istio-token"), help="token for the ca")
    add("--certificate-file", type=Path, default=None, help="serve this certificate (PEM) and ask no ca")
    add("--key-file", type=Path, default=None, help="the key of --certificate-file")
    add("--pods-ca-address", default=defaults.ca_address, help="the ca, as injected pods reach it")
    add("--pods-discovery-address", default=defaults.discovery_address, help="discovery, as injected pods reach it")
    add("--threads", type=int, default=THREADS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
