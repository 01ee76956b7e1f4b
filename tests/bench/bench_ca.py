"""What the ca can do on one core: `python tests/bench/bench_ca.py [--seconds N] [--count N]`.

1. The signing core (key of a request -> signed leaf) beside the general builder of `cryptography`.
2. `POST /v1/certificates` over HTTPS: `python -m ca` pinned to one core, one gthread worker, P-256, ledger on, every
   token different and verified afresh, every pod looked up; eight kept-alive connections from a client on the other
   core. With tokens signed by ES256 (as `heddle local` does) and by RS256 (as Kubernetes mostly does). Beside it: each
   token sent to the API server (TokenReview), as istiod does; there the stand-in for that server costs the other core.

3. One replica and two side by side, each on a core of its own; the clients share those cores, so look at the CPU each.
4. The same as 2 at a real API server and etcd (which share the cores): the root in a Secret, tokens by its keys, and
   each pod's newest certificate told of in a WorkloadCertificate behind the requests, at most 100 a second; then what
   one such object costs, ca and API server, when it is made and when it is renewed.

On a busy machine look at the CPU time each: requests a second on one core are its inverse.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import selectors
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

sys.path.insert(0, str(Path(__file__).parents[2]))

from ca.issue import pem
from ca.ledger import Record
from ca.policy import Grant
from ca.profile import intermediate_certificate, root_certificate
from ca.request import parse_request
from ca.sign import issuer_of, prepare, sign
from ca.trust import new_serial
from ca.workload_certificate import essence, workload_certificate, write
from mesh.identity import Identity
from svid.request import new_key_request
from svid.tls import client_context
from tests.ca.harness import ISSUER, ApiServer, CaProcess, RunningCa, TokenMint
from tests.cluster import builds, missing
from tests.cluster.api_server import running
from tests.cluster.ca_replicas import Place, certificates_defined, place

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


def replicas(count: int) -> None:
    """What two issue beside what one does: they share nothing but an API server and, on a cluster, the root."""
    mint = TokenMint("RS256")
    options = ("--token-issuer-keys", "api", "--token-issuer", ISSUER, "--rate", "0", "--caller-rate", "0")
    for number in (1, 2):
        with contextlib.ExitStack() as stack:
            scratch = stack.enter_context(tempfile.TemporaryDirectory())
            api = stack.enter_context(ApiServer(mint))
            pods = [api.add_pod("default", f"reviews-{n}", f"uid-{n}", "bookinfo-reviews") for n in range(200)]
            tokens = [mint.token("default", "bookinfo-reviews", pods[n % len(pods)], jti=str(n)) for n in range(count)]
            orders = orders_by(tokens)
            running_cas = [
                stack.enter_context(CaProcess(Path(scratch) / f"state-{n}", api, *options)) for n in range(number)
            ]
            for core, ca in enumerate(running_cas):
                pin(ca, core)
            began, ended = multiprocessing.Barrier(number + 1), multiprocessing.Barrier(number + 1)
            clients = [
                multiprocessing.Process(target=ask, args=(ca.port, ca.roots, orders, began, ended), daemon=True)
                for ca in running_cas
            ]
            for client in clients:
                client.start()
            began.wait()
            before, started = sum(cpu_seconds(ca.process.pid) for ca in running_cas), time.perf_counter()
            ended.wait()
            wall = time.perf_counter() - started
            cpu = sum(cpu_seconds(ca.process.pid) for ca in running_cas) - before
            done = number * count
            print(f"{number} replica{'s' * (number - 1):37}{done / wall:9,.0f}/s   {cpu / done * 1000:.2f} ms CPU each")


def ask(port: int, roots: str, orders: list[bytes], began: Barrier, ended: Barrier) -> None:
    """Some orders to warm up, and all of them between the two barriers."""
    os.sched_setaffinity(0, {SERVER_CORE, CLIENT_CORE})
    client = Client(port, client_context(roots))
    client.run(orders[: len(orders) // 10])
    began.wait()
    client.run(orders)
    ended.wait()


def objects(own: Place, pods: list[dict[str, Any]]) -> None:
    """What an object that tells of a certificate costs, one after the other."""
    there: dict[str, Any] = {}

    def tell(record: Record, known: Any = None) -> None:
        body = workload_certificate(record, "heddle-ca-0")
        there[record.pod_name] = essence(write(own.api.client, body, known))

    records = [record_of(pod["metadata"]) for pod in pods]
    tell(records[0])  # warms up
    ways: dict[str, Callable[[Record], None]] = {
        "made": tell,
        "renewed, as it was left": lambda record: tell(record, there[record.pod_name]),
        "renewed, after reading it": tell,
    }
    for way, work in ways.items():
        before, started = api_server_seconds(own), time.thread_time()
        for record in records[1:]:
            work(record)
        ours = (time.thread_time() - started) / (len(records) - 1) * 1000
        theirs = (api_server_seconds(own) - before) / (len(records) - 1) * 1000
        print(f"    an object that is {way:27}{ours:.2f} ms CPU for the ca, {theirs:.2f} for the API server")
        records = [replace(each, caller="certificate", serial=f"{new_serial():x}", prepared_at=time.time())
                   for each in records]  # fmt: skip


def record_of(pod: Mapping[str, Any]) -> Record:
    """A certificate of this pod (its metadata)."""
    now = time.time()
    return Record(
        serial=f"{new_serial():x}",
        identity=f"spiffe://cluster.local/ns/{pod['namespace']}/sa/reviews",
        caller="token",
        pod_namespace=pod["namespace"],
        pod_name=pod["name"],
        pod_uid=pod["uid"],
        node="node-1",
        key_kind="P-256",
        key_fingerprint="ab" * 32,
        issuer="12" * 16,
        root="34" * 16,
        prepared_at=now,
        not_before=int(now),
        not_after=int(now) + 86400,
    )


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
                before = api_server_seconds(own)
                measure(f"  at an API server, {way}", ca, [tokens[n % len(tokens)] for n in range(count)])
                spent = (api_server_seconds(own) - before) / count * 1000
                print(f"    API server: {spent:.2f} ms CPU each, with the {written(ca)} objects that tell of them")
        objects(own, [own.add_pod(f"object-{n}") for n in range(200)])


def written(ca: RunningCa) -> int:
    """How many WorkloadCertificates it has written."""
    found = re.search(r'write_behind_total{outcome="written",what="certificates"} (\S+)', ca.plain("/metrics")[1])
    return int(float(found[1])) if found else 0


def api_server_seconds(own: Place) -> float:
    """CPU time so far of this very API server: another may run on this machine."""
    assert own.api.control_plane is not None
    words = ("kube-apiserver", str(own.api.control_plane.directory))
    total = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
            if all(word in command for word in words):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                total += int(stat[11]) + int(stat[12])
        except OSError:
            continue
    assert total
    return total / os.sysconf("SC_CLK_TCK")


def measure(label: str, ca: RunningCa, tokens: list[str]) -> None:
    """One request for each token, a tenth of them to warm up."""
    pin(ca, SERVER_CORE)
    requests = orders_by(tokens)
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


def pin(ca: RunningCa, core: int) -> None:
    """To one core, with all of its threads."""
    for task in Path("/proc").glob(f"{ca.process.pid}/task/*/children"):
        for child in [str(ca.process.pid), *task.read_text().split()]:
            subprocess.run(["taskset", "-acp", str(core), child], check=True, capture_output=True)


def orders_by(tokens: list[str]) -> list[bytes]:
    """One for each token, each with a key of its own."""
    orders = []
    for token in tokens:
        body = json.dumps({"csr": new_key_request().csr_pem}).encode()
        orders.append(
            b"POST /v1/certificates HTTP/1.1\r\nHost: ca\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s" % (token.encode(), len(body), body)
        )
    return orders


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
    replicas(options.count)
    at_an_api_server(options.count)


if __name__ == "__main__":
    main()
