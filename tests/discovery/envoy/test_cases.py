"""Golden cases: `cases/<feature>/in.yaml` (a plan) and `out.yaml` (what it adds to an empty plan's resources).

`HEDDLE_REGENERATE=1` writes the out files. Every resource also passes the strict parser and real Envoy.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from discovery.envoy.render import Resources, render
from mesh import sds
from mesh.wire import ResourceType
from mesh.xds import config_source
from tests.support import envoy, plans, protos
from tests.support.certificates import Authority

CASES = Path(__file__).parent / "cases"
NAMES = sorted(path.name for path in CASES.iterdir())


def _resources(name: str) -> tuple[Resources, Resources]:
    fields = yaml.safe_load((CASES / name / "in.yaml").read_text())
    kept = {key: fields[key] for key in ("proxy",) if key in fields}
    return render(plans.plan(fields)), render(plans.plan(kept))


def _readable(value: Any) -> Any:
    """Every ConfigSource is the same, and every access log: `agent` and `access log` stand for them."""
    if value in (config_source(), config_source(ResourceType.ROUTES)):
        return "agent"
    if isinstance(value, dict) and value.get("name") == "envoy.access_loggers.file":
        return {**value, "typed_config": "access log"}
    if isinstance(value, dict):
        return {key: _readable(each) for key, each in value.items()}
    return [_readable(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", NAMES)
def test_renders_as_written(name: str) -> None:
    resources, empty = _resources(name)
    added = {
        kind.value: {
            each: _readable(json.loads(text))
            for each, (version, text) in named.items()
            if empty[kind].get(each, ("",))[0] != version
        }
        for kind, named in resources.items()
    }
    path = CASES / name / "out.yaml"
    if os.environ.get("HEDDLE_REGENERATE"):
        path.write_text(yaml.safe_dump(added, sort_keys=False, width=120))
    assert added == yaml.safe_load(path.read_text()), f"{path} is stale: HEDDLE_REGENERATE=1 writes it anew"


@pytest.mark.parametrize("name", NAMES)
def test_has_in_and_out_and_nothing_else(name: str) -> None:
    assert sorted(path.name for path in (CASES / name).iterdir()) == ["in.yaml", "out.yaml"]


@pytest.mark.parametrize("name", NAMES)
def test_parses_strictly(name: str) -> None:
    for kind, named in _resources(name)[0].items():
        for _, text in named.values():
            protos.parse(text, protos.VIRTUAL_HOST if kind is ResourceType.VIRTUAL_HOSTS else "")


@pytest.mark.parametrize("name", NAMES)
def test_loads_in_envoy(name: str, tmp_path: Path) -> None:
    """Without a warning either: a deprecated field would be one."""
    authority = Authority()
    svid = authority.issue(uri="spiffe://cluster.local/ns/default/sa/app")
    secrets = [
        sds.tls_secret(secret, svid.chain_pem, svid.key_pem)
        for secret in (sds.DEFAULT, sds.credential_name("shop-cert"), sds.credential_name("admin-cert"))
    ]
    roots = [sds.ROOTCA, sds.credential_ca_name("admin-cert")]
    secrets += [sds.validation_secret(secret, [authority.root_pem]) for secret in roots]
    for secret in secrets:
        protos.parse(secret)
    resources, _ = _resources(name)
    log = envoy.validate(envoy.static_bootstrap(resources, secrets), tmp_path)
    assert "deprecated" not in log.lower(), log
