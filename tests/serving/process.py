"""The small service of service.py as a real process."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from local.linux import die_with_parent
from tests.support.certificates import Authority
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]


class Service:
    """Serves with a certificate of `authority` for the name `service`. `small`: within narrow limits."""

    def __init__(self, directory: Path, *, small: bool = False) -> None:
        self.authority = Authority()
        self.port, self.health_port = free_port(), free_port()
        self.certificate, self.key = directory / "tls.crt", directory / "tls.key"
        self.log = directory / "log"
        self.show(self.authority)
        command = [sys.executable, "-m", "tests.serving.service", str(self.port), str(self.health_port)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, str(self.certificate), str(self.key), *["small"] * small],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )
        until = time.monotonic() + 120
        while self.health("/readyz")[0] != 200:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)

    def show(self, authority: Authority) -> None:
        """From now on, a certificate of `authority`."""
        made = authority.issue(dns="service")
        self.certificate.write_text(made.chain_pem)
        self.key.write_text(made.key_pem)

    def connect(self, authority: Authority | None = None) -> ssl.SSLSocket:
        context = ssl.create_default_context(cadata=(authority or self.authority).root_pem)
        plain = socket.create_connection(("127.0.0.1", self.port), 10)
        return context.wrap_socket(plain, server_hostname="service")

    def health(self, path: str) -> tuple[int, str]:
        """Status and text; 0 when there is no answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}{path}", timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def lines(self) -> list[dict[str, Any]]:
        """What it logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)
