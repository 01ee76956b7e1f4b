"""`heddle local`: a mesh on this machine, from manifests, without Kubernetes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import click

from cli.mesh_access import Mesh, connect, state_dir
from cli.output import age, columns, output_option, show
from cli.pod_names import the_one
from local import up
from local.exec_socket import call
from mesh.errors import NotFound, Unavailable
from mesh.objects import Key

DOWN_SECONDS = 60.0


@click.group("local")
def command() -> None:
    """A mesh on this machine, from Kubernetes manifests, without Kubernetes.

    Needs Linux, and root or a user with subordinate ids (newuidmap).
    """


@command.command("up")
@click.option("-f", "--file", "files", multiple=True, required=True, type=Path, help="Manifest file or directory.")
@click.option("--images", type=Path, help="Which local program stands for which image (samples/bookinfo/images.yaml).")
@click.option(
    "--http-port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port of 127.0.0.1 for the gateway's port 80; 0: none.",
)
@click.option(
    "--https-port",
    type=click.IntRange(0, 65535),
    default=8443,
    show_default=True,
    help="The same for its port 443; 0: none.",
)
@click.option("--certificate-ttl", default="24h", show_default=True, help="Life of the certificates of pods.")
@click.option("-d", "--detach", is_flag=True, help="Return when the mesh is up; `heddle local down` ends it.")
def up_command(
    files: tuple[Path, ...], images: Path | None, http_port: int, https_port: int, certificate_ttl: str, detach: bool
) -> None:
    """Start the mesh on the given manifests, and follow their changes, until Ctrl-C or `heddle local down`."""
    order = up.Order(
        state=state_dir(),
        manifests=tuple(path.absolute() for path in files),
        images=images.absolute() if images else None,
        http_port=http_port,
        https_port=https_port,
        certificate_ttl=certificate_ttl,
    )
    if detach:
        _detached(order)
    else:
        raise click.exceptions.Exit(up.run(order, click.echo))


def _detached(order: up.Order) -> None:
    """Run `heddle local up` in the background, and wait until it says that it is up."""
    up.check(order)
    output = order.state.with_name(order.state.name + ".log")
    try:
        order.state.parent.mkdir(parents=True, exist_ok=True)
        with output.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "local", "up", *_options(order)],
                env={**os.environ, "HEDDLE_STATE": str(order.state)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    except OSError as error:
        raise Unavailable(
            f"{output} cannot be written: {error.strerror}", hint="choose another HEDDLE_STATE"
        ) from error
    try:
        _wait_until_up(process, order.state / "ready", output)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise


def _options(order: up.Order) -> list[str]:
    """The command line that means the same order."""
    files = [word for path in order.manifests for word in ("-f", str(path))]
    images = ["--images", str(order.images)] if order.images else []
    ports = ["--http-port", str(order.http_port), "--https-port", str(order.https_port)]
    return [*files, *images, *ports, "--certificate-ttl", order.certificate_ttl]


def _wait_until_up(process: subprocess.Popen[bytes], ready: Path, output: Path) -> None:
    """Show what the background process says until it says that the mesh is up; Unavailable when it ends before."""
    with output.open("rb") as said:
        while process.poll() is None and not _is_ready(ready, process.pid):
            _echo_new(said)
            time.sleep(0.1)
        _echo_new(said)
    if process.poll() is not None:
        raise Unavailable("the mesh did not start", hint=f"the lines above, and {output}, say why")


def _is_ready(marker: Path, pid: int) -> bool:
    try:
        return marker.read_text() == str(pid)
    except FileNotFoundError:
        return False


def _echo_new(said: IO[bytes]) -> None:
    click.echo(said.read().decode(errors="replace"), nl=False)


@command.command("status")
@output_option
def status_command(output: str) -> None:
    """The pods and the control plane of the mesh on this machine. (`heddle status` shows the proxies.)"""
    show(connect().get("/status"), output, _status_table)


def _status_table(status: dict[str, Any]) -> str:
    pods = columns(
        ("namespace", "pod", "ready", "status", "restarts", "ip", "age"),
        [
            (p["namespace"], p["name"], p["ready"], p["status"], p["restarts"], p["ip"], age(p["created"]))
            for p in status["pods"]
        ],
    )
    parts = "  ".join(f"{name}: {state}" for name, state in status["components"].items())
    published = [
        f"http{'s' if p['servicePort'] == up.HTTPS else ''}://127.0.0.1:{p['hostPort']} -> port {p['servicePort']}"
        for p in status["published"]
    ]
    lines = [pods, "", f"control plane  {parts}"]
    lines += [f"ingress        {line}" for line in published]
    return "\n".join(lines + [f"PROBLEM {problem}" for problem in status["problems"]])


@command.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("pod")
@click.option("-n", "--namespace", default="", help="The pod's namespace, where POD does not name it.")
@click.option("-c", "--container", default="", help="The container; the app's first one by default.")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_command(pod: str, namespace: str, container: str, argv: tuple[str, ...]) -> None:
    """Run a command in a pod: `heddle local exec POD -- CMD ARGS`."""
    mesh = connect()
    found = find_pod(mesh, pod, namespace)
    code = call(mesh.state / "exec.sock", found.namespace, found.name, container, argv)
    raise click.exceptions.Exit(code)


@command.command("logs")
@click.argument("pod")
@click.option("-n", "--namespace", default="", help="The pod's namespace, where POD does not name it.")
@click.option("-c", "--container", default="", help="The container; the app's first one by default.")
@click.option("-f", "--follow", is_flag=True, help="Go on as the log grows.")
def logs_command(pod: str, namespace: str, container: str, follow: bool) -> None:
    """The output of a pod's container, or of `discovery`, `webhook` or `ca`."""
    mesh = connect()
    if pod in mesh.get("/status")["components"] and not namespace:
        path = mesh.state / "logs" / f"{pod}.log"
    else:
        found = find_pod(mesh, pod, namespace)
        query = f"/logs/{found.namespace}/{found.name}" + (f"/{quote(container, safe='')}" if container else "")
        path = Path(mesh.get(query)["path"])
    if not path.exists():
        raise NotFound(f"{pod} has written nothing yet")
    if follow:
        sys.stdout.flush()
        os.execvp("tail", ["tail", "-n", "+1", "-F", str(path)])  # noqa: S606 - so that its end is ours
    else:
        with path.open("rb") as log:
            shutil.copyfileobj(log, sys.stdout.buffer)


@command.command("control-plane")
@click.argument("verb", type=click.Choice(["start", "stop", "kill"]))
@click.argument("names", nargs=-1, required=True, type=click.Choice(["ca", "webhook", "discovery"]))
def control_plane_command(verb: str, names: tuple[str, ...]) -> None:
    """Start, stop or kill parts of the control plane, to see what the mesh does without them."""
    mesh = connect()
    for name in names:
        mesh.post(f"/components/{name}/{verb}")


@command.command("down")
def down_command() -> None:
    """End the mesh on this machine."""
    mesh = connect()
    mesh.post("/down")
    until = time.monotonic() + DOWN_SECONDS
    while up.is_running(mesh.state):
        if time.monotonic() > until:
            raise Unavailable("the mesh has not ended", hint=f"see {mesh.state}/logs")
        time.sleep(0.05)


def find_pod(mesh: Mesh, pod: str, namespace: str = "") -> Key:
    """The pod that a person means: `name`, `namespace/name`, or the beginning of one pod's name."""
    pods = [Key(p["namespace"], p["name"]) for p in mesh.get("/status")["pods"]]
    return the_one(pods, pod, namespace, "`heddle local status` lists them")


def run_in_pod(mesh: Mesh, pod: Key, container: str, argv: list[str]) -> str:
    """The standard output of a command in the pod; Unavailable with its words when it fails."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull, "rb") as nothing:
        stdio = (nothing.fileno(), out.fileno(), err.fileno())
        code = call(mesh.state / "exec.sock", pod.namespace, pod.name, container, argv, stdio)
        out.seek(0)
        err.seek(0)
        if code:
            said = (err.read() or out.read()).decode(errors="replace").strip()
            raise Unavailable(f"{argv[0]} in {pod} failed: {said}")
        return out.read().decode(errors="replace")
