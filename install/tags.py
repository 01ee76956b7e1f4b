"""Tags: names such as `prod` that namespaces use in `istio.io/rev`, and that are pointed at a revision.

As in Istio, a tag is a webhook configuration of its own that sends to the revision's webhook. Source:
https://istio.io/latest/docs/setup/upgrade/canary/#stable-revision-labels
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from install.names import INJECTOR, REVISION_LABEL, of_revision
from install.operator import DEFAULT_REVISION
from install.render import OWNER_LABEL
from install.resources import MUTATING, NAMESPACE
from kube.client import Client
from mesh.errors import Conflict, InvalidInput, NotFound
from mesh.istio.rules import is_dns_label

TAG_LABEL = "istio.io/tag"
TAG_PREFIX = "heddle-revision-tag-"

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tag:
    name: str
    revision: str
    namespaces: tuple[str, ...]


def tag_configuration(revision_injector: Raw, tag: str) -> Raw:
    """The webhook configuration of `tag`, made from that of the revision that it points at: the same webhook, for those
    who write the tag. Pure."""
    revision = revision_injector["metadata"]["labels"][REVISION_LABEL]
    made = of_revision(copy.deepcopy(revision_injector), revision, TAG_PREFIX + tag)
    for entry in made["webhooks"]:
        for selector in ("namespaceSelector", "objectSelector"):
            for expression in entry[selector].get("matchExpressions") or ():
                if expression["key"] == REVISION_LABEL and "values" in expression:
                    expression["values"] = [tag]
    labels = {"app": "sidecar-injector", REVISION_LABEL: revision, TAG_LABEL: tag, OWNER_LABEL: revision}
    return {
        "apiVersion": MUTATING.api_version,
        "kind": MUTATING.kind,
        "metadata": {"name": made["metadata"]["name"], "labels": labels},
        "webhooks": made["webhooks"],
    }


def set_tag(client: Client, tag: str, revision: str, *, overwrite: bool) -> None:
    """Point `tag` at `revision`. NotFound without that revision, Conflict when it points elsewhere already."""
    if not is_dns_label(tag):
        raise InvalidInput(f"{tag!r} cannot be a tag", hint="use lower-case letters, digits and dashes")
    if tag == DEFAULT_REVISION:
        raise InvalidInput("the tag default is the revision default", hint="install without --revision, or use another")
    target = _injector_of(client, revision)
    path = MUTATING.path("", TAG_PREFIX + tag)
    try:
        present = client.get(path)["metadata"]["labels"].get(REVISION_LABEL)
    except NotFound:
        present = None
    if present not in (None, revision) and not overwrite:
        raise Conflict(f"tag {tag} points at revision {present}", hint="--overwrite points it elsewhere")
    if any(each["metadata"]["name"] == f"{INJECTOR}-{tag}" for each in _injectors(client)):
        raise Conflict(f"there is a revision {tag}; a tag of the same name would inject twice", hint="use another name")
    client.apply(path, tag_configuration(target, tag))


def list_tags(client: Client) -> list[Tag]:
    """Every tag, and the namespaces that use it."""
    users: dict[str, list[str]] = {}
    for page in client.list(NAMESPACE.path(), {"labelSelector": REVISION_LABEL}):
        for raw in page.items:
            users.setdefault(raw["metadata"]["labels"][REVISION_LABEL], []).append(raw["metadata"]["name"])
    tags = []
    for page in client.list(MUTATING.path(), {"labelSelector": TAG_LABEL}):
        for raw in page.items:
            labels = raw["metadata"]["labels"]
            if raw["metadata"]["name"] == TAG_PREFIX + labels[TAG_LABEL]:
                name = labels[TAG_LABEL]
                tags.append(Tag(name, labels.get(REVISION_LABEL, ""), tuple(sorted(users.get(name, ())))))
    return tags


def remove_tag(client: Client, tag: str, *, in_use: bool) -> None:
    """Conflict while namespaces use it, unless `in_use` says that this is meant."""
    found = next((each for each in list_tags(client) if each.name == tag), None)
    if found is None:
        raise NotFound(f"there is no tag {tag}", hint="heddle tag list")
    if found.namespaces and not in_use:
        names = ", ".join(found.namespaces)
        raise Conflict(
            f"tag {tag} is used by {names}, whose new pods would get no sidecar",
            hint="label them anew first, or say -y",
        )
    client.delete(MUTATING.path("", TAG_PREFIX + tag))


def _injector_of(client: Client, revision: str) -> Raw:
    name = INJECTOR if revision == DEFAULT_REVISION else f"{INJECTOR}-{revision}"
    try:
        found: Raw = client.get(MUTATING.path("", name))
    except NotFound:
        known = ", ".join(each["metadata"]["labels"][REVISION_LABEL] for each in _injectors(client)) or "none"
        raise NotFound(f"there is no revision {revision}", hint=f"installed: {known}") from None
    return found


def _injectors(client: Client) -> list[Raw]:
    """The webhook configurations of revisions."""
    query = {"labelSelector": f"app=sidecar-injector,{OWNER_LABEL},!{TAG_LABEL}"}
    return [raw for page in client.list(MUTATING.path(), query) for raw in page.items]
