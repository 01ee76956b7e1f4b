"""The sample, from its manifests to resources: for every pod of it, parsed strictly and loaded by real Envoy."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from discovery.envoy.render import render
from discovery.plan.model import Role
from discovery.plan.plan import plan, proxy_of
from mesh import sds
from mesh.wire import ResourceType
from tests.support import envoy, protos
from tests.support.certificates import Authority
from tests.support.snapshots import snapshot_of

MANIFESTS = Path(__file__).parents[3] / "samples" / "bookinfo" / "manifests"


def test_every_pod(tmp_path: Path) -> None:
    texts = [path.read_text() for path in sorted(MANIFESTS.glob("*.yaml"))]
    snapshot = snapshot_of(document for text in texts for document in yaml.safe_load_all(text) if document)
    authority = Authority()
    svid = authority.issue(uri="spiffe://cluster.local/ns/default/sa/any")
    roles = set()
    for key in sorted(snapshot.pods):
        resources = render(plan(snapshot, proxy_of(snapshot, key)))
        roles.add(proxy_of(snapshot, key).role)
        for kind, named in resources.items():
            for _, text in named.values():
                protos.parse(text, protos.VIRTUAL_HOST if kind is ResourceType.VIRTUAL_HOSTS else "")
        credentials = {
            name
            for _, text in resources[ResourceType.LISTENERS].values()
            for name in _secret_names(json.loads(text))
            if name not in (sds.DEFAULT, sds.ROOTCA)
        }
        secrets = [sds.tls_secret(name, svid.chain_pem, svid.key_pem) for name in (sds.DEFAULT, *sorted(credentials))]
        secrets.append(sds.validation_secret(sds.ROOTCA, [authority.root_pem]))
        envoy.validate(envoy.static_bootstrap(resources, secrets), tmp_path)
    assert roles == {Role.SIDECAR, Role.GATEWAY}


def _secret_names(value: object) -> set[str]:
    if isinstance(value, list):
        return {name for each in value for name in _secret_names(each)}
    if not isinstance(value, dict):
        return set()
    own = {value["name"]} if "sds_config" in value else set()
    return own | {name for each in value.values() for name in _secret_names(each)}
