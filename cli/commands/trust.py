"""`heddle trust`: what the mesh trusts: bring a root of one's own, take the bundle elsewhere, see who would fail."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click

from ca.root_import import CERTIFICATE, CHAIN, KEY, ROOT, ImportedRoot, check_import
from ca.root_trial import try_out
from ca.rotation.documents import fingerprint
from cli.ca_access import reach
from cli.commands.rotate import PATH, WAITING, seconds_of, watch_options, watched
from cli.control_namespace import mesh_options
from cli.on_cluster import client_of, confirm, yes_option
from cli.output import columns, output_option, show
from cli.proxies import reach_proxies
from cli.reach import cluster_asked
from cli.root_files import from_directory, from_options, from_secret, read
from cli.root_importing import Step, carry_out, plan, stored_trust
from cli.root_store import RootStore, of_cluster, of_embedded
from cli.trust_check import choose
from cli.trust_checking import examine, verdict_table
from mesh.errors import InvalidInput
from mesh.identity import DEFAULT_TRUST_DOMAIN
from mesh.problems import FieldProblem, ObjectErrors
from svid.material import bundle_from_json


@click.group("trust")
def command() -> None:
    """What the mesh trusts: import a root, export the bundle, see who would fail without a root."""


@command.command("import")
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option("--from-secret", "secret", default="", metavar="NS/NAME", help="A Secret, such as istio-system/cacerts.")
@click.option("--root", "root", default="", metavar="FILE", help=f"The root's certificate (PEM), as {ROOT}.")
@click.option("--cert", "cert", default="", metavar="FILE", help=f"The certificate that signs, as {CERTIFICATE}.")
@click.option("--key", "key", default="", metavar="FILE", help=f"Its key, as {KEY}.")
@click.option("--chain", "chain", default="", metavar="FILE", help=f"What is between the two, as {CHAIN}.")
@click.option("--key-passphrase-file", default="", metavar="FILE", help="The passphrase of an encrypted key.")
@click.option("--trust-domain", default="", metavar="NAME", help="Of a mesh that has no root yet; cluster.local.")
@click.option(
    "--least-life",
    default="30d",
    callback=seconds_of,
    metavar="TIME",
    show_default=True,
    help="What it must have left.",
)
@click.option("--window", metavar="TIME", callback=seconds_of, help="Spread the renewals over this time, such as 10m.")
@click.option("--dry-run", is_flag=True, help="Only check it, and say what would be done.")
@watch_options
@yes_option
@mesh_options
def import_root(
    directory: Path | None,
    secret: str,
    root: str,
    cert: str,
    key: str,
    chain: str,
    key_passphrase_file: str,
    trust_domain: str,
    least_life: int,
    window: int | None,
    dry_run: bool,
    watch: bool,
    wait: int | None,
    yes: bool,
    kubeconfig: str,
) -> None:
    """Give the mesh a root of your own.

    \b
    DIRECTORY has the files of Istio's Secret `cacerts`:
      root-cert.pem   the root
      ca-cert.pem     the certificate whose key comes with it: the root itself, or an intermediate
      ca-key.pem      that key; the root's own key may stay where it is
      cert-chain.pem  what is between the two; may be missing

    All of it is checked, and tried in a handshake, before anything is written. A mesh that has another root is rotated
    to this one, step by step, as by `heddle rotate`; without a mesh, it becomes the first root.

    Exit codes: as of `heddle rotate`.
    """
    singles = {ROOT: root, CERTIFICATE: cert, KEY: key, CHAIN: chain}
    if sum((directory is not None, bool(secret), any(singles.values()))) != 1:
        raise click.UsageError("name a DIRECTORY, or --from-secret, or the files by --root, --cert, --key and --chain")
    cluster = client_of(kubeconfig) if kubeconfig or secret else cluster_asked("")
    place = of_cluster(cluster, _tell) if cluster else of_embedded()
    if directory is not None:
        files = from_directory(directory)
    else:
        files = from_secret(client_of(kubeconfig), secret) if secret else from_options(singles)
    passphrase = read(Path(key_passphrase_file), "--key-passphrase-file").strip() if key_passphrase_file else None

    trust = stored_trust(place.store, trust_domain)
    domain = trust.bundle.trust_domain if trust else trust_domain or DEFAULT_TRUST_DOMAIN
    imported = _checked(files, passphrase, domain, least_life)
    click.echo(describe(imported))
    todo = plan(imported, trust, place.read_passphrase() if trust else None)
    click.echo(f"{place.store.name}: {todo.says}")
    if dry_run or todo.step is Step.nothing:
        return
    if todo.step is not Step.follow:
        confirm("The root is written.", yes)
        _write(place, todo.step, imported, domain)
    _go_on(todo.step, imported, kubeconfig, window, watch=watch, wait=wait)


def _checked(files: dict[str, bytes], passphrase: bytes | None, domain: str, least_life: int) -> ImportedRoot:
    """What passed; everything that is wrong is printed, and then it leaves with 1."""
    now = time.time()
    try:
        imported = check_import(files, passphrase, domain, now, least_life)
    except ObjectErrors as error:
        for problem in error.problems:
            click.echo(f"refused: {_said(problem)}", err=True)
        raise click.exceptions.Exit(1) from None
    for warning in imported.warnings:
        click.echo(f"warning: {_said(warning)}", err=True)
    try_out(imported, domain, now)
    return imported


def _said(problem: FieldProblem) -> str:
    hint = f" ({problem.hint})" if problem.hint else ""
    return f"{problem.path[0]}: {problem.message}{hint}"


def _write(place: RootStore, step: Step, imported: ImportedRoot, domain: str) -> None:
    if step is Step.create:
        place.make_passphrase()
    # Read again: what was planned holds for this very state, and the write is refused if it has changed since.
    trust = stored_trust(place.store, domain)
    if plan(imported, trust, place.read_passphrase() if trust else None).step is not step:
        raise InvalidInput("the mesh's roots were changed meanwhile", hint="try again")
    carry_out(step, imported, trust, place.store, place.read_passphrase(), domain)


def _go_on(
    step: Step, imported: ImportedRoot, kubeconfig: str, window: int | None, *, watch: bool, wait: int | None
) -> None:
    if step is Step.create:
        click.echo("The ca takes it when it starts.")
        return
    ca = reach(kubeconfig)
    if step is Step.rotate:
        wish = {"do": "start", "root": fingerprint(imported.root)}
        body = ca.post(PATH, wish | ({"windowSeconds": window} if window is not None else {}))
    else:
        body = ca.get(PATH)  # by which the ca looks at what is stored
    if step is Step.resign:
        click.echo("It signs from now on.")
        return
    watched(ca, body, "table", watch=watch, wait=wait, goal="forward")


def describe(imported: ImportedRoot) -> str:
    """The root, and what signs in its name."""
    certificates = [("root", imported.root), *(("intermediate", each) for each in reversed(imported.chain))]
    rows = [
        (
            role,
            each.subject.rfc4514_string(),
            fingerprint(each)[:16],
            f"{each.not_valid_after_utc:%Y-%m-%d}",
            "here" if each == (imported.chain or (imported.root,))[0] else "not here",
        )
        for role, each in certificates
    ]
    return columns(("certificate", "subject", "fingerprint", "ends", "key"), rows)


@command.command("export")
@click.option("--format", "form", type=click.Choice(["pem", "jwks"]), default="pem", show_default=True, help="Of what.")
@click.option("--to", "to", default="-", metavar="FILE", show_default=True, help="Where to; - for standard output.")
@click.option("--dry-run", is_flag=True, help="Only say what would be written.")
@mesh_options
def export(form: str, to: str, dry_run: bool, kubeconfig: str) -> None:
    """The trust bundle: every root that the mesh trusts, as PEM or as a SPIFFE bundle (JWKS).

    During a rotation there are two. Nothing in it is secret. A file that has it already is left as it is.
    """
    ca = reach(kubeconfig)
    bundle = bundle_from_json(ca.get("/v1/bundle"))
    text = bundle.pem if form == "pem" else json.dumps(ca.get("/v1/spiffe-bundle"), indent=2) + "\n"
    says = (
        f"{len(bundle.roots)} root{'s' * (len(bundle.roots) != 1)} of {bundle.trust_domain}, bundle {bundle.sequence}"
    )
    if to == "-" and not dry_run:
        sys.stdout.write(text)
        return
    path = Path(to)
    same = to != "-" and path.is_file() and path.read_text() == text
    if not same and not dry_run:
        try:
            path.write_text(text)
        except OSError as error:
            raise InvalidInput(f"{to} cannot be written: {error.strerror}", field="--to") from None
    _tell(f"{says}: {'there already' if same else 'would be written' if dry_run else 'written'}: {to}")


@command.command("check")
@click.option("--without", default="", metavar="FINGERPRINT", help="The root that would go; else the outgoing one.")
@click.option("--dry-run", is_flag=True, help="Only say who would be asked. Nothing is changed either way.")
@mesh_options
@output_option
def check(without: str, dry_run: bool, kubeconfig: str, output: str) -> None:
    """Who would fail if a root went now.

    Each proxy's Envoy is asked what it serves and trusts at this moment, and a TLS handshake is made with each, and
    with the control plane, from one of the proxies, that trusts only what would be left. Without --without it is the
    root that the rotation under way takes away.

    Exit codes: 0 nobody would fail; 1 it could not be found out; 3 somebody would.
    """
    ca, proxies = reach(kubeconfig), reach_proxies(kubeconfig)
    bundle = bundle_from_json(ca.get("/v1/bundle"))
    roots = choose(bundle.roots, ca.get(PATH), without)
    listed = proxies.listed()
    if dry_run:
        click.echo("would ask: " + ", ".join(str(proxy.pod) for proxy in listed))
        return
    found = examine(proxies, listed, roots)
    show(found, output, lambda value: verdict_table(value, fingerprint(roots.leaving)))
    if found["failing"]:
        raise click.exceptions.Exit(WAITING)
    if found["unknown"]:
        raise click.exceptions.Exit(1)


def _tell(text: str) -> None:
    click.echo(text, err=True)
