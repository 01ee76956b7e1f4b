"""Every golden case rendered: Envoy's protobufs parse it strictly, and real Envoy loads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from discovery.envoy.render import render
from discovery.plan.memo import Scopes
from discovery.plan.plan import plan, proxy_of
from mesh import sds
from mesh.objects import Key
from mesh.wire import ResourceType
from tests.support import envoy, protos
from tests.support.certificates import Authority
from tests.support.snapshots import snapshot_of

CASES = sorted((Path(__file__).parent / "cases").glob("*.in.yaml"))


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name.removesuffix(".in.yaml"))
def test_envoy_loads(case: Path, tmp_path: Path) -> None:
    header, *documents = [document for document in yaml.safe_load_all(case.read_text()) if document]
    snapshot = snapshot_of(documents)
    resources = render(plan(snapshot, proxy_of(snapshot, Key(*header["for"].split("/"))), Scopes()))
    for kind, named in resources.items():
        for _, text in named.values():
            protos.parse(text, protos.VIRTUAL_HOST if kind is ResourceType.VIRTUAL_HOSTS else "")
    bootstrap = json.dumps(envoy.static_bootstrap(resources, _secrets()))
    authority = Authority()
    svid = authority.issue(uri="spiffe://cluster.local/ns/default/sa/any")
    for name, text in (("ca", authority.root_pem), ("c", svid.chain_pem), ("k", svid.key_pem)):
        (tmp_path / f"{name}.pem").write_text(text)  # the files that case client_tls names
        bootstrap = bootstrap.replace(f'"/{name}.pem"', f'"{tmp_path}/{name}.pem"')
    envoy.validate(json.loads(bootstrap), tmp_path)


def _secrets() -> list[dict[str, Any]]:
    """All that the cases refer to."""
    authority = Authority()
    svid = authority.issue(uri="spiffe://cluster.local/ns/default/sa/any")
    credentials = [sds.credential_name(name) for name in ("shop-cert", "gone-cert", "c")]
    roots = (sds.ROOTCA, sds.credential_ca_name("gone-cert"))
    return [
        *(sds.tls_secret(name, svid.chain_pem, svid.key_pem) for name in (sds.DEFAULT, *credentials)),
        *(sds.validation_secret(name, [authority.root_pem]) for name in roots),
    ]
