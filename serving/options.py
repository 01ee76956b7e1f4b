"""Options that the services share, and what is made of them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from mesh.errors import InvalidInput
from mesh.identity import CONTROL_NAMESPACE, DEFAULT_TRUST_DOMAIN, Identity
from mesh.ports import CA, CONTROL_METRICS
from svid.client import CaAddress
from svid.follow import Follower
from svid.keeper import Keeper, Obtain, enrolment
from svid.material import PodRef
from svid.trust import News


def add_listening(parser: argparse.ArgumentParser, port: int) -> None:
    """`--listen`, `--metrics-listen`, `--kube-api`, `--trust-domain`."""
    add = parser.add_argument
    add("--listen", default=f"0.0.0.0:{port}", help="address of the HTTPS port")
    add("--metrics-listen", default=f"0.0.0.0:{CONTROL_METRICS}", help="address of /metrics, /healthz and /readyz")
    add("--kube-api", default="", help="URL of the API server; otherwise that of the cluster or of KUBECONFIG")
    add("--trust-domain", default=DEFAULT_TRUST_DOMAIN)


def add_certificate(parser: argparse.ArgumentParser) -> None:
    """Where the serving certificate comes from: the ca, unless files are named."""
    add = parser.add_argument
    add("--ca-address", default=f"heddle-ca.{control_namespace()}.svc:{CA}", help="where to get the own certificate")
    add("--trust-bundle", type=Path, default=Path("/var/run/secrets/istio/root-cert.pem"), help="the ca's roots (PEM)")
    add("--token-file", type=Path, default=Path("/var/run/secrets/tokens/istio-token"), help="token for the ca")
    add("--certificate-file", type=Path, default=None, help="serve this certificate (PEM) and ask no ca")
    add("--key-file", type=Path, default=None, help="the key of --certificate-file")


def check_certificate(options: argparse.Namespace) -> None:
    """InvalidInput when the options of `add_certificate` do not fit together."""
    address(options.ca_address, "--ca-address")
    if bool(options.certificate_file) != bool(options.key_file):
        raise InvalidInput("--certificate-file and --key-file go together")


def enrol(options: argparse.Namespace) -> Obtain:
    """How to get and renew the service's SVID, by the options of `add_certificate`."""
    return enrolment(
        ca_address(options),
        roots=options.trust_bundle.read_text,
        token_file=options.token_file,
        pod=own_pod(),
    )


def following(
    options: argparse.Namespace, on_news: Callable[[News], None] = lambda _: None
) -> Callable[[Keeper], Follower]:
    """What follows the ca's trust bundle for a keeper; `on_news` hears of everything new first."""
    return lambda keeper: Follower(
        keeper, ca_address(options), options.trust_bundle.read_text, own_pod(), on_news=on_news
    )


def control_namespace() -> str:
    """The control plane's namespace, which is the own: $POD_NAMESPACE; in `heddle local` there is none."""
    return os.environ.get("POD_NAMESPACE") or CONTROL_NAMESPACE


def ca_address(options: argparse.Namespace) -> CaAddress:
    """Where the ca is, and who it must be."""
    ca = Identity(options.trust_domain, control_namespace(), "heddle-ca")
    return CaAddress(*address(options.ca_address, "--ca-address"), ca)


def own_pod() -> PodRef | None:
    """The pod that this runs in; None outside of one, where the ca asks for none either (`heddle local`)."""
    names = [os.environ.get(name, "") for name in ("POD_NAMESPACE", "POD_NAME", "POD_UID")]
    return PodRef(*names) if all(names) else None


def address(text: str, option: str) -> tuple[str, int]:
    """`host:port` in two; InvalidInput, which names `option`, when it is not that."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise InvalidInput(f"{text!r} is not host:port", field=option)
    return host.removeprefix("[").removesuffix("]"), int(port)
