"""`python -m ca`: the certificate authority under gunicorn (gthread, one worker: one intermediate, one ledger)."""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog

from ca import oldest
from ca.app import Deps, create_app, orders_of
from ca.audit import AuditLog
from ca.authority import Authority
from ca.callers import Callers
from ca.cluster import Cluster
from ca.federation_keeper import FederationKeeper
from ca.issue import Issuance
from ca.kubernetes_signer import KubernetesSigner
from ca.ledger import LEDGER, Ledger
from ca.limits import Limits
from ca.local_tokens import local_verifier
from ca.metrics import Metrics
from ca.operator_socket import serve_operators
from ca.options import JUDGED_HERE, check_place, parser, settings_of
from ca.orders import Door
from ca.own_certificate import own_certificate
from ca.passphrase import LEAST_BYTES, LEAST_OF_PIN, passphrase_from
from ca.pod_certificates import PodCertificates
from ca.pods import PodWatch, ask_api
from ca.revocation_api import MAX_BODY as LARGEST_BODY
from ca.revoking import Revoking
from ca.rotation.api import current_json
from ca.rotation.books import of_ledger, of_objects
from ca.rotation.desk import RootKeys
from ca.rotation.documents import rotation_of
from ca.rotation.service import LeadsInTurn, Shared, rotation_service
from ca.secret_store import SecretStore
from ca.settings import CaSettings
from ca.store import TRUST_FILE, DirectoryStore, Store, replace_file
from ca.trust import forget_key, new_trust
from ca.trust_domain_keeper import TrustDomainKeeper
from kube.client import Client, connect
from kube.tokens import KeysVerifier, ReviewVerifier, TokenVerifier, read_keys
from mesh.errors import Conflict, HeddleError, InvalidInput
from serving import wsgi
from serving.gthread import threaded_server
from serving.health import create_health_app, serve_in_threads
from serving.logs import configure
from serving.options import address, control_namespace, own_pod
from serving.server import Running
from svid.material import SvidMaterial, TrustBundle

REVIEW_SECONDS = 5.0
KEEPALIVE = 60  # seconds

log = structlog.get_logger("ca")


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; 2 when what was asked for is wrong."""
    configure()
    options = parser().parse_args(arguments)
    try:
        check_place(options)
        settings = settings_of(options)
        client = connect(options.kube_api)
        elsewhere = _elsewhere(options, settings, client)
        if elsewhere is None:
            # Here too, not only in the worker, so that a wrong passphrase or directory ends the process.
            Authority(_store(options, client), _passphrase(options), settings, time.time)
        else:
            # Here alone: gunicorn ends a worker that takes half a minute to begin, and a person may take longer.
            elsewhere.wait(time.sleep)
        _ledger(options).close()
        for option in ("--listen", "--metrics-listen"):
            _check_free(option, vars(options)[option[2:].replace("-", "_")])
    except HeddleError as error:
        log.error("cannot start", error=str(error))
        return 2
    begin = partial(_start, options, settings, elsewhere)
    server = threaded_server(begin, options.listen, threads=options.threads, keepalive=KEEPALIVE, max_body=LARGEST_BODY)
    server.run()
    return 0


def _start(options: argparse.Namespace, settings: CaSettings, elsewhere: KubernetesSigner | None) -> Running:
    """In the worker: keys are made in the one process that uses them."""
    metrics = Metrics()
    client = connect(options.kube_api)
    store = _store(options, client)
    authority = Authority(store, _passphrase(options), settings, time.time, elsewhere)
    _export_roots(options, authority.bundle)
    pod = own_pod()
    # On a cluster the disk is the pod's and goes with it; what standard output says is collected.
    ledger = _ledger(options, AuditLog(options.state, time.time, echo=pod is not None))
    pruned = ledger.prune(time.time() - settings.retention)
    ledger.begin(replica=pod.name if pod else socket.gethostname(), trustDomain=settings.trust_domain)
    cluster = None
    if isinstance(store, SecretStore):
        cluster = Cluster(client, authority, ledger, pod, store)
        metrics.written_behind(cluster.counts)
    issuance = Issuance(authority, ledger, settings, time.time, cluster.issued if cluster else nothing)

    def changed(_material: SvidMaterial) -> None:
        ledger.prune(time.time() - settings.retention)

    def ends() -> dict[str, float]:
        return {
            "root": authority.root_not_after,
            "intermediate": authority.issuer(settings.max_ttl).issuer.not_after,
            "serving": certificate.material.not_after,
        }

    certificate = own_certificate(issuance, settings, changed, pod)
    certificate.obtain_now()
    certificate.start()
    metrics.ends(ends)
    metrics.rotation(lambda: rotation_of(authority.trust))
    metrics.revoked(lambda: sum(1 for _ in authority.revocations.serials()), lambda: len(authority.bundle.crls))
    pods = PodWatch(ask_api(client))
    metrics.first_ends(cluster.first_ends if cluster else oldest.of_ledger(ledger, pods.known, time.time))
    lease = LeadsInTurn(client, pod) if cluster is not None and pod is not None else None
    leads: Callable[[], bool] = lease or (lambda: True)
    pod_certificates = None
    if options.pod_certificates:
        pod_certificates = PodCertificates(
            client, issuance, settings, pods, time.time, lambda: authority.bundle, metrics, leads
        )
    rotation = rotation_service(
        authority,
        store,
        certificate,
        settings,
        _root_keys(options, settings),
        pod=pod,
        pods=pods,
        read=of_objects(client, time.time) if cluster else of_ledger(ledger, time.time),
        shared=_shared(cluster, pod_certificates),
        leads=leads,
        discovery=address(options.discovery_address, "--discovery-address") if options.discovery_address else None,
    )
    told = None
    if cluster is None:
        authority.on_bundle(lambda bundle: _export_roots(options, bundle))
        pods.start(client, rotation.population.take)
    else:
        cluster.start(pods, rotation.population.take)
        told = TrustDomainKeeper(
            client, settings.trust_domain, lambda: current_json(rotation.desk, rotation.observer, time.time()), leads
        )
        authority.on_trust(lambda _: told.wake())
        told.start()
    rotation.start()
    serve_in_threads(_metrics_address(options), create_health_app("ca.health", metrics.text, lambda: ""))
    log.info("ready", listen=options.listen, trust_domain=settings.trust_domain, pruned=pruned)
    revoking = Revoking(authority, store, ledger, settings, time.time)
    authority.on_trust(revoking.complete)
    callers = Callers(settings, _verifier(options, settings, client), pods, pods.known)
    deps = Deps(
        settings=settings,
        callers=callers,
        authority=authority,
        issuance=issuance,
        ledger=ledger,
        revoking=revoking,
        news=rotation.news,
        desk=rotation.desk,
        observer=rotation.observer,
        acknowledgements=rotation.acknowledgements,
        metrics=metrics,
        limits=Limits(settings.caller_rate, settings.failure_rate, settings.total_rate),
        now=time.time,
        replica=pod.name if pod and cluster else "",
        refused=cluster.refused if cluster else nothing,
    )

    if options.operator_socket:
        serve_operators(options.operator_socket, deps)

    if pod_certificates is not None:
        pod_certificates.start()
    federation = None
    if options.mesh_config:
        federation = FederationKeeper(authority, store, options.mesh_config, settings.trust_domain, time.time)
        federation.start()

    def close() -> None:
        if told is not None:
            told.stop()
        rotation.stop()
        if lease is not None:
            lease.stop()
        if pod_certificates is not None:
            pod_certificates.stop()
        if federation is not None:
            federation.stop()
        certificate.close()
        if cluster is not None:
            cluster.stop()
        ledger.close()

    door = Door(orders_of(deps), callers, authority, settings, partial(wsgi.run, create_app(deps)))
    return Running(door, certificate.context, close)


def _shared(cluster: Cluster | None, pod_certificates: PodCertificates | None) -> Shared:
    if cluster is None:
        return Shared()
    published = (lambda: pod_certificates.published) if pod_certificates else (lambda: None)
    return Shared(cluster.unwritten, cluster.carriers, published)


def nothing(*_arguments: object) -> None:
    """Listens in the place of the cluster where there is none."""


def _elsewhere(options: argparse.Namespace, settings: CaSettings, client: Client) -> KubernetesSigner | None:
    if not options.intermediate_signer:
        return None
    try:
        roots = options.roots_file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the roots cannot be read: {error}", field="--roots-file") from None
    pod = own_pod()
    return KubernetesSigner(
        client, options.intermediate_signer, roots, settings, time.time, replica=pod.name if pod else ""
    )


def _store(options: argparse.Namespace, client: Client) -> Store:
    if options.root_secret:
        return SecretStore(client, control_namespace(), options.root_secret)
    return DirectoryStore(options.state)


def _ledger(options: argparse.Namespace, audit: AuditLog | None = None) -> Ledger:
    return Ledger(options.state / LEDGER if options.state else None, audit)


def _no_new_root() -> str:
    raise Conflict(
        "the root's key is not here, so that no new root can be made here",
        hint="make it where the root is, put both into --roots-file, and sign by the new one once all trust it",
    )


def _root_keys(options: argparse.Namespace, settings: CaSettings) -> RootKeys:
    """Of the roots of a rotation."""
    if options.intermediate_signer:
        return RootKeys(_no_new_root, lambda _document: None)
    passphrase = _passphrase(options)
    return RootKeys(
        lambda: new_trust(passphrase(), settings, int(time.time())).root_pem,
        lambda document: forget_key(document, passphrase),
    )


def _export_roots(options: argparse.Namespace, bundle: TrustBundle) -> None:
    """roots.pem, for those who have only a file to look at."""
    if not options.root_secret:
        replace_file(options.state / "roots.pem", bundle.pem.encode(), 0o644)


def _passphrase(options: argparse.Namespace) -> Callable[[], bytes]:
    if options.root_passphrase_file:
        least = LEAST_OF_PIN if options.root_pkcs11_token else LEAST_BYTES
        return lambda: passphrase_from(options.root_passphrase_file, create=False, least=least)
    state: Path = options.state
    # A root that exists has its passphrase somewhere; making up another would hide that it is lost.
    return lambda: passphrase_from(state / "root-passphrase", create=not (state / TRUST_FILE).exists())


def _verifier(options: argparse.Namespace, settings: CaSettings, client: Client) -> TokenVerifier:
    """Started, where it watches something."""
    where: str = options.token_issuer_keys
    if where:
        return KeysVerifier(
            lambda: read_keys(where, client.get), issuer=options.token_issuer, audience=settings.audience
        )
    review = ReviewVerifier(partial(client.post, timeout=REVIEW_SECONDS), audience=settings.audience)
    if options.token_verification != JUDGED_HERE:
        return review
    verifier, _ = local_verifier(client, review, settings.audience)
    return verifier


def _metrics_address(options: argparse.Namespace) -> tuple[str, int]:
    return address(options.metrics_listen, "--metrics-listen")


def _check_free(option: str, text: str) -> None:
    """Conflict when the address is taken: gunicorn would try for five seconds and then say less."""
    host, port = address(text, option)
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise Conflict(
            f"cannot listen on {text}: {error.strerror}", field=option, hint="is another ca running there?"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
