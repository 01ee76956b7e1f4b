"""The mesh's settings in `heddle local`: the trust domain before the start, the ca's file afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local.mesh_config import SETTINGS, MeshConfig, file_of, trust_domain_in
from local.store import Raw, Store

OTHER = "{'trustDomain': 'west.example'}"


def settings(text: str, namespace: str = "istio-system") -> Raw:
    meta = {"name": "istio", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"mesh": text}}


@pytest.mark.parametrize(
    ("objects", "domain"),
    [
        ([], "cluster.local"),
        ([settings("{}")], "cluster.local"),
        ([settings(OTHER)], "west.example"),
        ([settings(OTHER, "default")], "cluster.local"),
        ([settings("trustDomain: [")], "cluster.local"),
        ([settings("{'trustDomain': 'UPPER'}")], "cluster.local"),
        ([settings(OTHER), settings("{'trustDomain': 'east.example'}")], "west.example"),
    ],
    ids=["nothing", "not-said", "said", "another-namespace", "broken", "no-trust-domain", "the-first-counts"],
)
def test_the_trust_domain_in_manifests(tmp_path: Path, objects: list[Raw], domain: str) -> None:
    (tmp_path / "a.yaml").write_text("\n---\n".join(map(json.dumps, objects)))
    (tmp_path / "b.yaml").write_bytes(b"\xff")
    assert trust_domain_in([tmp_path]) == domain


def test_the_file_follows_the_object(tmp_path: Path) -> None:
    said: list[str] = []
    store = Store(uid=lambda: "uid", now=lambda: "2026-01-01T00:00:00Z")
    config = MeshConfig(store, tmp_path, "cluster.local", said.append)
    config.look()
    assert not file_of(tmp_path).exists()
    store.put(settings("{}"))
    config.look()
    assert file_of(tmp_path).read_text() == "{}"
    store.put(settings(OTHER))
    config.look()
    config.look()
    assert file_of(tmp_path).read_text() == OTHER
    assert said == ["trustDomain is west.example now, and this mesh runs as cluster.local: start it again"]
    store.delete("ConfigMap", SETTINGS)
    config.look()
    assert file_of(tmp_path).read_text() == ""
    assert len(said) == 1
