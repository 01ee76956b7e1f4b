"""The demo's six chapters. Each does something to the running mesh, and says what was measured."""

from __future__ import annotations

import json
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cli.commands.certificates import current, pod_of
from cli.commands.local import find_pod, run_in_pod
from cli.commands.status import read as read_status
from cli.load import Counts, Load
from cli.mesh_access import Mesh
from cli.output import columns, duration
from mesh.errors import HeddleError, Unavailable
from mesh.objects import Key

NAMESPACE = "bookinfo"
PRODUCT = "/api/v1/products/0"
OUTSIDE = Key("outside", "legacy")
REQUESTS = 1000
# Run inside the pod outside the mesh, which has no curl: says what a plain-text call gets.
PLAIN_CALL = (
    "import urllib.request, sys\n"
    "try:\n    print(urllib.request.urlopen(sys.argv[1], timeout=5).status)\n"
    "except OSError as error:\n    print('refused:', getattr(error, 'reason', error))"
)


class Story:
    """`manifests` is a copy that may be edited; `port` leads to the ingress gateway."""

    def __init__(self, mesh: Mesh, manifests: Path, port: int) -> None:
        self._mesh, self._manifests, self._port = mesh, manifests, port

    def tell(self) -> None:
        """All chapters; HeddleError when something did not go as it must."""
        self._await_ready()
        for number, chapter in enumerate(
            (self.pods, self.request, self.wire, self.routing, self.renewal, self.without_control_plane), 1
        ):
            title = (chapter.__doc__ or "").splitlines()[0].rstrip(".")
            click.echo(f"\n{number}. {title}\n")
            chapter()

    def pods(self) -> None:
        """The pods of namespace bookinfo, what the webhook added to each, and who they are."""
        certificates = {pod_of(c): c for c in current(self._mesh.ca("/v1/certificates")["certificates"])}
        rows = []
        for pod in self._mesh.get("/objects/Pod")["items"]:
            meta = pod["metadata"]
            added = json.loads(meta.get("annotations", {}).get("sidecar.istio.io/status", "{}"))
            names = [*(added.get("initContainers") or ()), *(added.get("containers") or ())]
            certificate = certificates.get(f"{meta['namespace']}/{meta['name']}")
            rows.append(
                (
                    f"{meta['namespace']}/{meta['name']}",
                    ", ".join(names) or "nothing (not in the mesh)",
                    certificate["identity"] if certificate else "-",
                    certificate["serial"][:12] + "…" if certificate else "-",
                    duration(certificate["secondsToExpiry"]) if certificate else "-",
                )
            )
        click.echo(_indented(columns(("pod", "the webhook added", "identity", "serial", "expires in"), sorted(rows))))

    def request(self) -> None:
        """A request through the ingress gateway, and the way it took."""
        # The first request opens the connections, whose handshakes the next chapter shows.
        self._capture = Capture(self._mesh, self._pod("details-v1"))
        began = time.perf_counter()
        answer = self._get(PRODUCT, {"end-user": "jason"})
        took = time.perf_counter() - began
        click.echo(
            f"   GET http://127.0.0.1:{self._port}{PRODUCT} as user jason, whom a VirtualService sends to reviews v2"
        )
        click.echo(f"   200 in {took * 1000:.1f} ms")
        click.echo("   client -> ingress gateway")
        for hop in answer["hops"]:
            peers = _peers(hop["peers"])
            click.echo(f"     {_account(peers.get('URI', '?')):>42} -> {hop['pod']}")

    def wire(self) -> None:
        """What is on the wire between productpage and details, and what a caller outside the mesh gets."""
        details = self._pod("details-v1")
        answer = self._get(PRODUCT)
        seen = self._capture.finish()
        click.echo(f"   captured at the network interface of {details}: {seen['packets']} packets to port 9080")
        readable = "readable" if seen["plainText"] else "not readable"
        click.echo(f"     server's handshake: {seen['tlsVersion'] or 'no TLS'}; the HTTP in them: {readable}")
        if seen["tlsVersion"] != "TLS 1.3" or seen["plainText"]:
            raise HeddleError("the bytes on the wire are not TLS 1.3")
        hop = next(hop for hop in answer["hops"] if hop["pod"] == details.name)
        peers = _peers(hop["peers"])
        click.echo(f"     the caller proved to be  {peers['URI']}")
        click.echo(f"     the server proved to be  {peers['By']}")
        service = f"http://details.{NAMESPACE}.svc.cluster.local:9080/details/0"
        said = run_in_pod(self._mesh, OUTSIDE, "", [sys.executable, "-c", PLAIN_CALL, service]).strip()
        click.echo(f"   plain text from {OUTSIDE}, which has no sidecar: {said}")
        if not said.startswith("refused"):
            raise HeddleError("a plain-text call came through although the namespace is STRICT")

    def routing(self) -> None:
        """A VirtualService edited under traffic: reviews v1 90, v3 10."""
        file = self._manifests / "routing.yaml"
        load = Load("127.0.0.1", self._port, PRODUCT, _version).start()
        time.sleep(1)
        before = max((change["number"] for change in self._changes()), default=0)
        edited = file.read_text().replace(
            "subset: v1\n          weight: 100",
            "subset: v1\n          weight: 90\n        - destination:\n            host: reviews\n"
            "            subset: v3\n          weight: 10",
        )
        began = time.monotonic()
        file.write_text(edited)
        change = self._applied_after(before, began)
        time.sleep(1)
        during = load.stop()
        _expect_no_failures(during)
        click.echo(
            f"   written -> applied by all {change['proxies']} proxies, acknowledged by their Envoys: "
            f"{change['seconds'] * 1000:.0f} ms"
        )
        click.echo(f"   {during.total} requests while it went in: {len(during.failures)} failures")
        counts = Load("127.0.0.1", self._port, PRODUCT, _version, requests=REQUESTS).start().wait()
        _expect_no_failures(counts)
        shares = ", ".join(f"reviews {version} {count}" for version, count in sorted(counts.answers.items()))
        click.echo(f"   {REQUESTS} requests after it: {shares}; {len(counts.failures)} failures")

    def renewal(self) -> None:
        """A certificate renewed while requests flow."""
        pod = self._pod("reviews-v1")
        load = Load("127.0.0.1", self._port, PRODUCT, _version).start()
        time.sleep(1)
        renewed = json.loads(run_in_pod(self._mesh, pod, "istio-proxy", ["heddle-agent", "renew"]))
        time.sleep(1)
        counts = load.stop()
        _expect_no_failures(counts)
        click.echo(f"   {pod}: serial {renewed['old']} -> {renewed['new']}")
        click.echo(f"   {counts.total} requests meanwhile: {len(counts.failures)} failures")

    def without_control_plane(self) -> None:
        """Discovery and ca killed; an Envoy restarted all the same."""
        for name in ("discovery", "ca"):
            self._mesh.post(f"/components/{name}/kill")
        states = self._mesh.get("/status")["components"]
        click.echo("   " + ", ".join(f"{name} is {state}" for name, state in sorted(states.items())))
        counts = Load("127.0.0.1", self._port, PRODUCT, _version, requests=200).start().wait()
        _expect_no_failures(counts)
        click.echo(f"   {counts.total} requests: {len(counts.failures)} failures")
        pod = self._pod("details-v1")
        began = time.monotonic()
        run_in_pod(self._mesh, pod, "istio-proxy", ["heddle-agent", "restart-envoy"])
        self._await_details()
        click.echo(
            f"   Envoy of {pod} killed: it answers again after {time.monotonic() - began:.1f} s, "
            "from its last good configuration"
        )
        counts = Load("127.0.0.1", self._port, PRODUCT, _version, requests=200).start().wait()
        _expect_no_failures(counts)
        click.echo(f"   {counts.total} requests: {len(counts.failures)} failures")
        for name in ("ca", "discovery"):
            self._mesh.post(f"/components/{name}/start")
        self._await_ready()
        click.echo("   ca and discovery started again: every proxy is current")

    def _await_details(self) -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                if "title" in self._get(PRODUCT)["details"]:
                    return
            except Unavailable:
                pass
            time.sleep(0.05)
        raise Unavailable("details does not answer again")

    def _await_ready(self) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if read_status(self._mesh, 5)["ready"]:
                return
            time.sleep(0.2)
        raise Unavailable("not every proxy has applied what is current", hint="`heddle status` says which")

    def _applied_after(self, before: int, began: float) -> dict[str, Any]:
        """The engine's record of the first change of a VirtualService after change `before`, once it is applied."""
        until = began + 30
        while time.monotonic() < until:
            for change in self._changes():
                if (
                    change["number"] > before
                    and "VirtualService" in change["versions"]
                    and change["seconds"] is not None
                ):
                    return change
            time.sleep(0.02)
        raise Unavailable("the change was not applied within 30 s", hint="`heddle status` says by whom not")

    def _changes(self) -> list[dict[str, Any]]:
        changes: list[dict[str, Any]] = self._mesh.get("/status")["changes"]
        return changes

    def _pod(self, prefix: str) -> Key:
        return find_pod(self._mesh, prefix, NAMESPACE)

    def _get(self, path: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}{path}", headers=dict(headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 # http by construction
                body: dict[str, Any] = json.load(answer)
                return body
        except (OSError, ValueError) as error:
            raise Unavailable(f"GET {path}: {error}") from error


class Capture:
    """Packets at a pod's network interface while something happens; the engine's side is local.capture."""

    def __init__(self, mesh: Mesh, pod: Key) -> None:
        self._mesh, self._pod = mesh, pod
        mesh.post(f"/capture/{pod.namespace}/{pod.name}/start")

    def finish(self) -> dict[str, Any]:
        """`packets`, `tlsVersion` (of the server's hello, or empty) and `plainText` (HTTP was readable)."""
        seen: dict[str, Any] = self._mesh.post(f"/capture/{self._pod.namespace}/{self._pod.name}/stop")
        return seen


def _version(answer: dict[str, Any]) -> str:
    return str(answer["reviews"].get("version", "none"))


def _peers(text: str) -> dict[str, str]:
    """`By=a;Hash=b;URI=c` as a mapping (Envoy: x-forwarded-client-cert)."""
    return dict(part.split("=", 1) for part in re.split(r";(?=\w+=)", text) if "=" in part)


def _account(identity: str) -> str:
    return identity.partition("/ns/")[2].replace("/sa/", "/") or identity


def _expect_no_failures(counts: Counts) -> None:
    if counts.failures:
        raise HeddleError(f"requests failed: {dict(counts.failures.most_common(5))}")


def _indented(text: str) -> str:
    return "\n".join(f"   {line}" for line in text.splitlines())
