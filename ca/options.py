"""What `python -m ca` is told on its command line, and the settings that follow from it."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ca.pkcs11 import use_module
from ca.pod_certificates import SIGNER
from ca.settings import CALLER_RATE, DAY, TOTAL_RATE, CaSettings, Rate, RootToken
from mesh.errors import InvalidInput
from mesh.key_kinds import KEY_KINDS
from mesh.ports import CA
from serving.operator_socket import SOCKET
from serving.options import add_listening, control_namespace

THREADS = 8
JUDGED_HERE = "local"

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": DAY}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m ca", description="Heddle's certificate authority")
    add_listening(made, CA)
    add = made.add_argument
    add(
        "--state",
        type=Path,
        default=None,
        help="directory of the root key, the bundle and the ledger; with --root-secret, of the ledger alone",
    )
    add(
        "--root-secret",
        default="",
        help="on a cluster: the Secret of the root key and the bundle, in the own namespace ($POD_NAMESPACE), shared "
        "by all replicas and made by the first; certificates are then told of in WorkloadCertificates and events",
    )
    add("--leaf-ttl", default="24h", help="life of a certificate, such as 24h or 15m")
    add("--min-ttl", default="1m", help="the shortest life that a caller may ask for")
    add("--max-ttl", default="7d", help="the longest life that a caller may ask for")
    add(
        "--mesh-config",
        type=Path,
        default=None,
        help="file with meshConfig (YAML), such as a mounted key of ConfigMap istio: trustDomainAliases and "
        "caCertificates say which other trust domains proxies trust; read again when it changes",
    )
    add(
        "--leaf-keys",
        default=",".join(KEY_KINDS),
        help=f"the kinds of key that are certified, separated by commas, among {', '.join(KEY_KINDS)}",
    )
    add(
        "--token-verification",
        choices=("review", JUDGED_HERE),
        default="review",
        help="`review` sends each token to the API server (TokenReview); `local` judges it here, by the API server's "
        "keys and a watch of service accounts, and sends it only in doubt (docs/adr/0241)",
    )
    add(
        "--token-issuer-keys",
        default="",
        help="verify tokens by these keys alone: a file (JWKS or PEM), a URL, or `api` for those of the API server; "
        "for an API server without service accounts, such as that of `heddle local`",
    )
    add("--token-issuer", default=None, help="the issuer that tokens must name (with --token-issuer-keys)")
    add(
        "--discovery-address",
        default="",
        help="where discovery listens, which knows what agents trust; without it, its pods are asked",
    )
    add(
        "--root-passphrase-file",
        type=Path,
        default=None,
        help="passphrase of the root key; without it, root-passphrase in the state directory, made when missing "
        "(needed with --root-secret)",
    )
    add(
        "--rate",
        type=float,
        default=TOTAL_RATE.per_second,
        help="certificates a second, twice as many at once; who is refused is told when to come again; 0: no limit",
    )
    add(
        "--caller-rate",
        type=float,
        default=CALLER_RATE.per_second,
        help="the same for one pod, sixty times as many at once; 0: no limit",
    )
    add(
        "--intermediate-signer",
        default="",
        help="where the root's key is not here: the signer, such as example.com/mesh-root, that signs intermediates "
        "through the Kubernetes CSR API (with --roots-file)",
    )
    add("--roots-file", type=Path, default=None, help="the roots (PEM) that such intermediates lead to")
    add(
        "--root-pkcs11-module",
        default="",
        help="a PKCS #11 module (shared library): root keys are made and used in a token, and never leave it; "
        "--root-passphrase-file then holds the PIN",
    )
    add("--root-pkcs11-token", default="", help="the token's label")
    add(
        "--pod-certificates",
        action="store_true",
        help=f"answer PodCertificateRequests of the signer {SIGNER}: SVIDs in projected volumes (Kubernetes 1.37)",
    )
    add("--threads", type=int, default=THREADS)
    add(
        "--operator-socket",
        type=Path,
        default=None,
        help=f"Unix socket on which this user may do what an operator may, {SOCKET} in a pod; none by default",
    )
    return made


def check_place(options: argparse.Namespace) -> None:
    """InvalidInput unless it is said where the root is, and how it is opened."""
    if not options.state and not options.root_secret:
        raise InvalidInput("it is not said where the root key is", hint="name --state DIR, or --root-secret NAME")
    if bool(options.intermediate_signer) != bool(options.roots_file):
        raise InvalidInput(
            "a root that is kept elsewhere needs both, its certificate and a signer",
            field="--intermediate-signer",
            hint="name --intermediate-signer and --roots-file",
        )
    if options.root_secret and not options.root_passphrase_file and not options.intermediate_signer:
        raise InvalidInput(
            "the passphrase of a root in a Secret comes from a file",
            field="--root-passphrase-file",
            hint="mount the Secret heddle-ca-passphrase and name its file",
        )


def settings_of(options: argparse.Namespace) -> CaSettings:
    """InvalidInput, which names the option, when one is wrong."""
    return CaSettings(
        trust_domain=options.trust_domain,
        leaf_ttl=_seconds(options.leaf_ttl, "--leaf-ttl"),
        min_ttl=_seconds(options.min_ttl, "--min-ttl"),
        max_ttl=_seconds(options.max_ttl, "--max-ttl"),
        caller_rate=_rate(options.caller_rate, 60, "--caller-rate"),
        total_rate=_rate(options.rate, 2, "--rate"),
        root_token=_token(options),
        leaf_keys=frozenset(kind.strip() for kind in options.leaf_keys.split(",")),
        control_namespace=control_namespace(),
        in_pods=bool(options.root_secret),
    )


def _token(options: argparse.Namespace) -> RootToken | None:
    if not options.root_pkcs11_module and not options.root_pkcs11_token:
        return None
    if not (options.root_pkcs11_module and options.root_pkcs11_token and options.root_passphrase_file):
        raise InvalidInput(
            "a root in a PKCS #11 token needs the module, the token's label and its PIN",
            field="--root-pkcs11-token",
            hint="name --root-pkcs11-module, --root-pkcs11-token and, for the PIN, --root-passphrase-file",
        )
    use_module(options.root_pkcs11_module)
    return RootToken(options.root_pkcs11_module, options.root_pkcs11_token)


def _seconds(text: str, field: str) -> int:
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None:
        raise InvalidInput(f"{text!r} is not a duration", field=field, hint="such as 90s, 15m, 24h or 7d")
    return int(match[1]) * _UNITS[match[2]]


def _rate(per_second: float, seconds_at_once: int, field: str) -> Rate:
    if not 0 <= per_second < float("inf"):
        raise InvalidInput(f"{per_second} is not a number of certificates a second", field=field)
    return Rate(per_second, max(1, int(per_second * seconds_at_once)))
