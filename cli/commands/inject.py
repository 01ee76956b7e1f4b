"""`heddle inject`: puts the sidecar into manifests, by the code that the webhook runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import yaml

from cli.output import columns
from mesh.annotations import NAMESPACE_INJECTION
from mesh.errors import InvalidInput
from mesh.injector import NAME
from mesh.kinds import is_istio, parse_istio
from mesh.manifest import Document, documents
from mesh.proxy_configs import KIND as PROXY_CONFIG
from mesh.proxy_configs import ProxyConfigs, proxy_configs
from mesh.settings import MeshSettings, parse_mesh_settings
from webhook.config import DEFAULT_REVISION, InjectionConfig
from webhook.decision import Decision
from webhook.injector import InjectorSettings, injector_settings
from webhook.workloads import Injected, inject_object

Raw = dict[str, Any]

ASSUMED = {NAMESPACE_INJECTION: "enabled"}


@click.command("inject")
@click.option("-f", "--filename", "files", multiple=True, required=True, metavar="FILE|-", help="Can be repeated.")
@click.option("--explain", is_flag=True, help="Say for each pod whether it gets a sidecar, and why, instead.")
@click.option("--mesh-config", type=click.Path(dir_okay=False), help="The mesh's settings (meshConfig, YAML).")
@click.option(
    "--injector-config", type=click.Path(dir_okay=False), help="ConfigMap istio-sidecar-injector: templates and values."
)
@click.option("-n", "--namespace", default="default", show_default=True, help="Of objects that name none.")
@click.option(
    "--namespace-labels",
    multiple=True,
    metavar="KEY=VALUE",
    help="Labels of namespaces that are not in the input. Can be repeated. "
    f"Without it they are taken for labelled {NAMESPACE_INJECTION}=enabled.",
)
@click.option("--revision", default=DEFAULT_REVISION, show_default=True, help="The istio.io/rev to inject for.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
def command(
    files: tuple[str, ...],
    explain: bool,
    mesh_config: str | None,
    injector_config: str | None,
    namespace: str,
    namespace_labels: tuple[str, ...],
    revision: str,
    output: str,
) -> None:
    """Print manifests with the sidecar in each pod that gets one.

    The decision is the webhook's: labels of the pod and of its namespace, which is looked for in the input, as
    ProxyConfigs are. Objects without a pod come out as they went in; comments are lost.
    """
    settings = parse_mesh_settings(_read(mesh_config)) if mesh_config else MeshSettings()
    injector = _injector(injector_config) if injector_config else InjectorSettings()
    config = InjectionConfig(settings=settings, revision=revision, injector=injector)
    found = [document for file in files for document in documents(_read(file), file)]
    config = replace(config, proxy_configs=_proxy_configs(found, namespace, settings.root_namespace))
    results = [_inject(document, found, namespace, _labels(namespace_labels), config) for document in found]
    if explain:
        click.echo(explain_table([result for result in results if isinstance(result, Injected)]))
        return
    for result in results:
        if isinstance(result, Injected):
            for sentence in result.advice:
                click.echo(f"warning: {result.about}: {sentence}", err=True)
    click.echo(render([r.object if isinstance(r, Injected) else r for r in results], output), nl=False)


def _proxy_configs(found: list[Document], namespace: str, root_namespace: str) -> ProxyConfigs:
    chosen = [each.raw for each in found if each.kind == PROXY_CONFIG and is_istio(each.api_version)]
    return proxy_configs([parse_istio(raw, namespace) for raw in chosen], root_namespace)


def _injector(file: str) -> InjectorSettings:
    """The settings in a ConfigMap's manifest, the only ConfigMap in `file`."""
    for document in documents(_read(file), file):
        data = document.raw.get("data")
        if document.kind == "ConfigMap" and isinstance(data, dict):
            return injector_settings({name: text for name, text in data.items() if isinstance(text, str)})
    raise InvalidInput("it has no ConfigMap with data", field=file, hint=f"write the manifest of ConfigMap {NAME}")


def explain_table(results: list[Injected]) -> str:
    """One row for each pod."""
    rows = [(result.about, "yes" if result.decision.inject else "no", result.decision.reason) for result in results]
    return columns(("pod of", "inject", "because"), rows)


def render(objects: list[Raw], output: str) -> str:
    """The objects as one YAML stream, or as JSON: the object, or a List of several."""
    if output == "json":
        whole = objects[0] if len(objects) == 1 else {"apiVersion": "v1", "kind": "List", "items": objects}
        return json.dumps(whole, indent=2) + "\n"
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _inject(
    document: Document,
    all_documents: list[Document],
    default_namespace: str,
    given: Mapping[str, str] | None,
    config: InjectionConfig,
) -> Injected | Raw:
    namespace = document.namespace or default_namespace
    labels = _labels_in(all_documents, namespace)
    known = labels if labels is not None else given
    result = inject_object(document.raw, namespace, ASSUMED if known is None else known, config)
    if result is None:
        return document.raw
    if known is None and NAMESPACE_INJECTION in result.decision.reason and result.decision.inject:
        because = f"namespace {namespace} is not in the input, and taken for labelled {NAMESPACE_INJECTION}=enabled"
        return Injected(result.object, result.about, Decision(True, because), result.advice)
    return result


def _labels_in(all_documents: list[Document], namespace: str) -> Mapping[str, str] | None:
    for document in all_documents:
        if (document.api_version, document.kind, document.name) == ("v1", "Namespace", namespace):
            labels: Mapping[str, str] = document.raw["metadata"].get("labels") or {}
            return labels
    return None


def _labels(pairs: tuple[str, ...]) -> Mapping[str, str] | None:
    if not pairs:
        return None
    labels = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise InvalidInput(
                f"{pair!r} is not KEY=VALUE", field="--namespace-labels", hint="such as istio.io/rev=canary"
            )
        labels[key] = value
    return labels


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text()
    except UnicodeDecodeError:
        raise InvalidInput("it is not UTF-8 text", field=file) from None
    except OSError as error:
        raise InvalidInput(f"it cannot be read: {error.strerror}", field=file) from None


class _Dumper(yaml.SafeDumper):
    """Text that another YAML reader (YAML 1.2, Go's) might take for a number or a truth is put in quotes."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def text(self, value: str) -> yaml.ScalarNode:
        doubtful = value[:1] in "0123456789+-.=" or value.lower() in ("y", "n", "<<")
        return self.represent_scalar("tag:yaml.org,2002:str", value, "'" if value and doubtful else None)


_Dumper.add_representer(str, _Dumper.text)
