"""`python -m ca`: the certificate authority under gunicorn (gthread, one worker: one intermediate, one ledger)."""

from __future__ import annotations

import argparse
import os
import re
import socket
import sys
import time
from pathlib import Path
from typing import Any

import structlog
from gunicorn.app.base import BaseApplication

from ca.app import Deps, create_app
from ca.authority import Authority, passphrase_from
from ca.callers import Callers
from ca.issue import Issuance
from ca.ledger import Ledger
from ca.logs import GunicornLog, configure
from ca.metrics import HealthServer, Metrics
from ca.pods import PodWatch, ask_api
from ca.serving import Serving
from ca.settings import DAY, CaSettings
from ca.worker import Worker
from kube.client import Client, connect
from kube.tokens import KeysVerifier, ReviewVerifier, TokenVerifier, read_keys
from mesh.errors import Conflict, HeddleError, InvalidInput
from mesh.identity import DEFAULT_TRUST_DOMAIN
from mesh.ports import CA, CONTROL_METRICS
from svid.material import SvidMaterial

THREADS = 8

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": DAY}


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; 2 when what was asked for is wrong."""
    configure()
    options = _parser().parse_args(arguments)
    try:
        settings = _settings(options)
        # Here too, not only in the worker, so that a wrong passphrase or directory ends the process.
        Authority(options.state, _passphrase(options), settings, time.time)
        connect(options.kube_api)
        for option in ("--listen", "--metrics-listen"):
            _check_free(option, vars(options)[option[2:].replace("-", "_")])
    except HeddleError as error:
        structlog.get_logger("ca").error("cannot start", error=str(error))
        return 2
    _Server(options, settings).run()
    return 0


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, options: argparse.Namespace, settings: CaSettings) -> None:
        self._options = options
        self._settings = settings
        self._serving: Serving | None = None
        super().__init__()

    def load_config(self) -> None:
        for name, value in {
            "bind": self._options.listen,
            "worker_class": Worker,
            "workers": 1,
            "threads": self._options.threads,
            "keepalive": 60,
            "graceful_timeout": 10,
            "logger_class": GunicornLog,
            "control_socket_disable": True,
            # gunicorn speaks TLS when there is a certificate file; the contexts are made by `ssl_context`, from memory.
            "certfile": os.devnull,
            "ssl_context": lambda _config, _default: self._current().context(),
            "worker_exit": lambda _server, _worker: self._stop(),
        }.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """In the worker: keys are made in the one process that uses them."""
        options, settings, metrics = self._options, self._settings, Metrics()
        authority = Authority(options.state, _passphrase(options), settings, time.time)
        self._ledger = Ledger(options.state / "ledger.sqlite3")
        pruned = self._ledger.prune(time.time() - settings.retention)
        issuance = Issuance(authority, self._ledger, settings, time.time)

        def changed(material: SvidMaterial) -> None:
            metrics.ends("serving", material.not_after)
            metrics.ends("root", authority.root_not_after)
            metrics.ends("intermediate", authority.issuer(settings.max_ttl).issuer.not_after)
            self._ledger.prune(time.time() - settings.retention)

        self._serving = Serving(issuance, settings, changed)
        self._serving.start()
        client = connect(options.kube_api)
        pods = PodWatch(ask_api(client))
        pods.start(client)
        HealthServer(_address(options.metrics_listen, "--metrics-listen"), metrics, lambda: None)
        structlog.get_logger("ca").info(
            "ready", listen=options.listen, trust_domain=settings.trust_domain, pruned=pruned
        )
        return create_app(
            Deps(
                settings=settings,
                callers=Callers(settings, _verifier(options, settings, client), pods),
                issuance=issuance,
                ledger=self._ledger,
                bundle=lambda: authority.bundle,
                metrics=metrics,
                now=time.time,
            )
        )

    def _current(self) -> Serving:
        assert self._serving is not None
        return self._serving

    def _stop(self) -> None:
        if self._serving is not None:
            self._serving.keeper.stop()
            self._ledger.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ca", description="Heddle's certificate authority")
    add = parser.add_argument
    add("--state", type=Path, required=True, help="directory of the root key, the bundle and the ledger")
    add("--listen", default=f"0.0.0.0:{CA}", help="address of the HTTPS port")
    add("--metrics-listen", default=f"0.0.0.0:{CONTROL_METRICS}", help="address of /metrics, /healthz and /readyz")
    add("--trust-domain", default=DEFAULT_TRUST_DOMAIN)
    add("--leaf-ttl", default="24h", help="life of a certificate, such as 24h or 15m")
    add("--min-ttl", default="1m", help="the shortest life that a caller may ask for")
    add("--max-ttl", default="7d", help="the longest life that a caller may ask for")
    add("--kube-api", default="", help="URL of the API server; otherwise that of the cluster or of KUBECONFIG")
    add(
        "--token-issuer-keys",
        default="",
        help="verify tokens by these keys: a file (JWKS or PEM), a URL, or `api` for those of the API server; "
        "without it each token is sent to the API server (TokenReview)",
    )
    add("--token-issuer", default=None, help="the issuer that tokens must name (with --token-issuer-keys)")
    add(
        "--root-passphrase-file",
        type=Path,
        default=None,
        help="passphrase of the root key; without it, root-passphrase in the state directory, made when missing",
    )
    add("--threads", type=int, default=THREADS)
    return parser


def _settings(options: argparse.Namespace) -> CaSettings:
    return CaSettings(
        trust_domain=options.trust_domain,
        leaf_ttl=_seconds(options.leaf_ttl, "--leaf-ttl"),
        min_ttl=_seconds(options.min_ttl, "--min-ttl"),
        max_ttl=_seconds(options.max_ttl, "--max-ttl"),
    )


def _passphrase(options: argparse.Namespace) -> Any:
    path: Path = options.root_passphrase_file or options.state / "root-passphrase"
    # A root that exists has its passphrase somewhere; making up another would hide that it is lost.
    return lambda: passphrase_from(path, create=not (options.state / "root.pem").exists())


def _verifier(options: argparse.Namespace, settings: CaSettings, client: Client) -> TokenVerifier:
    where: str = options.token_issuer_keys
    if not where:
        return ReviewVerifier(client.post, audience=settings.audience)
    return KeysVerifier(lambda: read_keys(where, client.get), issuer=options.token_issuer, audience=settings.audience)


def _seconds(text: str, field: str) -> int:
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None:
        raise InvalidInput(f"{text!r} is not a duration", field=field, hint="such as 90s, 15m, 24h or 7d")
    return int(match[1]) * _UNITS[match[2]]


def _address(text: str, field: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise InvalidInput(f"{text!r} is not host:port", field=field)
    return host.strip("[]"), int(port)


def _check_free(option: str, text: str) -> None:
    """Conflict when the address is taken: gunicorn would try for five seconds and then say less."""
    host, port = _address(text, option)
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
