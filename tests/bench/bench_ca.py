"""What the ca can do on one core: `python tests/bench/bench_ca.py [--seconds N] [--count N]`.

1. The signing core (key of a request -> signed leaf) beside the general builder of `cryptography`.
2. `POST /v1/certificates` over HTTPS: `python -m ca` pinned to one core, one gthread worker, P-256, ledger on, every
   token different and verified afresh, every pod looked up; eight kept-alive connections from a client on the other
   core. With tokens signed by ES256 (as `heddle local` does) and by RS256 (as Kubernetes mostly does). Beside it: each
   token sent to the API server (TokenReview), as istiod does; there the stand-in for that server costs the other core.

3. The same at a real API server and etcd (which share the cores, so look at the CPU time each): the root in a Secret,
   tokens by its keys, and each certificate told of in a WorkloadCertificate behind the requests.

On a busy machine look at the CPU time each: requests a second on one core are its inverse.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

sys.path.insert(0, str(Path(__file__).parents[2]))

from ca.issue import pem
from ca.policy import Grant
from ca.profile import intermediate_certificate, root_certificate
from ca.request import parse_request
from ca.sign import issuer_of, prepare, sign
from ca.trust import new_serial
from mesh.identity import Identity
from svid.request import new_key_request
from svid.tls import client_context
from tests.ca.harness import ISSUER, ApiServer, CaProcess, RunningCa, TokenMint
from tests.cluster import builds, missing
from tests.cluster.api_server import running
from tests.cluster.ca_replicas import certificates_defined, place

CONNECTIONS = 8
SERVER_CORE, CLIENT_CORE = 0, 1


def per_second(work: Callable[[], object], seconds: float) -> float:
    """Calls per second of CPU time of this thread."""
    work()
    done, started = 0, time.thread_time()
    while (spent := time.thread_time() - started) < seconds:
        for _ in range(50):
            work()
        done += 50
    return done / spent


def signing(seconds: float) -> None:
    now = int(time.time())
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = root_certificate(root_key, "cluster.local", new_serial(), now, now + 10_000_000)
    intermediate = intermediate_certificate(
        key.public_key(), root, root_key, "cluster.local", new_serial(), now, now + 1_000_000
    )
    issuer = issuer_of(intermediate)
    request = new_key_request()
    grant = Grant(Identity("cluster.local", "default", "bookinfo-reviews"), (), now, now + 86400)
    signable = parse_request(request.csr_pem)

    def naive() -> bytes:
        csr = x509.load_pem_x509_csr(request.csr_pem.encode())
        public = csr.public_key()
        start = datetime.fromtimestamp(now, UTC)
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign",
             "crl_sign", "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        uri = x509.UniformResourceIdentifier(str(grant.identity))
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(intermediate.subject)
            .public_key(public)
            .serial_number(new_serial())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=1))
            .add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.SubjectAlternativeName([uri]), critical=True)
            .sign(key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )

    core = per_second(lambda: pem(sign(key, prepare(issuer, grant, signable, new_serial()))), seconds)
    builder = per_second(naive, seconds)
    raw = per_second(lambda: key.sign(b"x" * 400, ec.ECDSA(hashes.SHA256())), seconds)
    reading = per_second(lambda: parse_request(request.csr_pem), seconds)
    print(f"signing core: prepare + sign + PEM          {core:9,.0f}/s   (to reach: 10,000/s)")
    print(f"  beside it: cryptography's builder         {builder:9,.0f}/s")
    print(f"  beside it: Go's standard library          {in_go():>9}/s")
    print(f"  beside it: one bare ECDSA P-256 signature {raw:9,.0f}/s")
    print(f"reading a request, its signature checked    {reading:9,.0f}/s")


def in_go() -> str:
    """What Go's crypto/x509 signs a second on one core; "no Go" where there is none."""
    try:
        program = builds.built(builds.SIGNING) / "signing"
    except missing.Missing:
        return "no Go"
    pinned = ["taskset", "-c", str(CLIENT_CORE), str(program)]
    return f"{int(subprocess.run(pinned, capture_output=True, text=True, check=True).stdout):,}"


class Client:
    """Eight kept-alive TLS connections, one request on the way on each; reads just enough to tell that it is a 201."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._selector = selectors.DefaultSelector()
        self._sockets = []
        for _ in range(CONNECTIONS):
            connection = context.wrap_socket(socket.create_connection(("127.0.0.1", port)))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(connection, selectors.EVENT_READ)
            self._sockets.append(connection)

    def run(self, requests: list[bytes]) -> tuple[float, list[float]]:
        """Seconds in all, and each request's seconds."""
        waiting = iter(requests)
        sent: dict[ssl.SSLSocket, float] = {}
        parts: dict[ssl.SSLSocket, bytes] = {}
        taken: list[float] = []
        started = time.perf_counter()

        def send(connection: ssl.SSLSocket) -> None:
            request = next(waiting, None)
            if request is not None:
                sent[connection] = time.perf_counter()
                parts[connection] = b""
                connection.sendall(request)

        for connection in self._sockets:
            send(connection)
        while len(taken) < len(requests):
            for key, _ in self._selector.select():
                connection = key.fileobj
                assert isinstance(connection, ssl.SSLSocket)
                data = parts[connection] + connection.recv(65536)
                parts[connection] = data
                head, found, body = data.partition(b"\r\n\r\n")
                if not found:
                    assert data, "the ca closed the connection"
                    continue
                assert head.startswith(b"HTTP/1.1 201"), data[:500]
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
                if len(body) == length:
                    taken.append(time.perf_counter() - sent[connection])
                    send(connection)
        return time.perf_counter() - started, taken


def cpu_seconds(group: int) -> float:
    """CPU time so far of all processes of one process group."""
    total = 0
    for entry in Path("/proc").iterdir():
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
        except OSError:
            continue
        if stat and int(stat[2]) == group:
            total += int(stat[11]) + int(stat[12])
    return total / os.sysconf("SC_CLK_TCK")


def service(label: str, count: int, algorithm: str, keys: str = "api", *more: str) -> None:
    mint = TokenMint(algorithm)
    with tempfile.TemporaryDirectory() as scratch, ApiServer(mint) as api:
        pods = [api.add_pod("default", f"reviews-{n}", f"uid-{n}", "bookinfo-reviews") for n in range(200)]
        options = ("--token-issuer-keys", keys, "--token-issuer", ISSUER, "--rate", "0", "--caller-rate", "0", *more)
        with CaProcess(Path(scratch) / "state", api, *options) as ca:
            tokens = [mint.token("default", "bookinfo-reviews", pods[n % len(pods)], jti=str(n)) for n in range(count)]
            measure(label, ca, tokens)


def at_an_api_server(count: int) -> None:
    """With each way to judge tokens, and what it costs the API server."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        running() as api,
        certificates_defined(api),
        place(api, Path(scratch)) as own,
    ):
        tokens = [own.token(own.add_pod(f"reviews-{n}")) for n in range(200)]
        for way in ("local", "review"):
            options = ("--token-verification", way, "--state", f"{scratch}/{way}", "--rate", "0", "--caller-rate", "0")
            with own.replica(f"heddle-ca-{way}", *options) as ca:
                before = cpu_of_program("kube-apiserver")
                measure(f"  at an API server, {way}", ca, [tokens[n % len(tokens)] for n in range(count)])
                spent = (cpu_of_program("kube-apiserver") - before) / count * 1000
                print(f"    API server: {spent:.2f} ms CPU each, with the objects that tell of them")


def cpu_of_program(word: str) -> float:
    """CPU time so far of all processes with `word` in the command line."""
    total = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if word in (entry / "cmdline").read_bytes().decode("utf-8", "replace"):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                total += int(stat[11]) + int(stat[12])
        except OSError:
            continue
    return total / os.sysconf("SC_CLK_TCK")


def measure(label: str, ca: RunningCa, tokens: list[str]) -> None:
    """One request for each token, a tenth of them to warm up."""
    for task in Path("/proc").glob(f"{ca.process.pid}/task/*/children"):
        for child in [str(ca.process.pid), *task.read_text().split()]:
            subprocess.run(["taskset", "-acp", str(SERVER_CORE), child], check=True, capture_output=True)
    requests = []
    for token in tokens:
        body = json.dumps({"csr": new_key_request().csr_pem}).encode()
        requests.append(
            b"POST /v1/certificates HTTP/1.1\r\nHost: ca\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s" % (token.encode(), len(body), body)
        )
    client = Client(ca.port, client_context(ca.roots))
    client.run(requests[: len(requests) // 10])
    before = cpu_seconds(ca.process.pid)
    wall, taken = client.run(requests[len(requests) // 10 :])
    cpu = cpu_seconds(ca.process.pid) - before
    taken.sort()
    done = len(taken)
    print(
        f"{label:44}{done / wall:9,.0f}/s   p50 {taken[done // 2] * 1000:.1f} ms, "
        f"p99 {taken[done * 99 // 100] * 1000:.1f} ms, {cpu / done * 1000:.2f} ms CPU each"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--count", type=int, default=5000)
    options = parser.parse_args()
    os.sched_setaffinity(0, {CLIENT_CORE})
    signing(options.seconds)
    service("POST /v1/certificates, token ES256", options.count, "ES256")
    service("POST /v1/certificates, token RS256", options.count, "RS256")
    service("  beside it: by TokenReview", options.count // 5, "RS256", "")
    at_an_api_server(options.count)


if __name__ == "__main__":
    main()
