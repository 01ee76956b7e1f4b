"""The CRDs at a real API server: they are taken whole, refuse what they say that they refuse, and keep what they store.

`cases/crds/<kind>.out.txt` says for each mistake of tests/mesh/cases/refused who finds it: the API server by the CRD,
or only those who know the models (`heddle validate` and the validating webhook). HEDDLE_REGENERATE=1 writes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kube.client import Refused
from mesh import crd
from mesh.errors import NotFound
from mesh.kinds import Kind, find_kind, parse_istio
from mesh.manifest import read_manifest
from mesh.problems import ObjectErrors
from tests.cluster.api_server import ApiServer
from tests.cluster.crds import DEFINITIONS, conditions, defined
from tests.cluster.kubectl import kubectl
from tests.mesh import refused
from tests.support.waiting import wait_for

CASES = Path(__file__).parent / "cases" / "crds"
VALIDATION = Path(__file__).parents[1] / "mesh" / "cases" / "validation"
BY_CRD, BY_MODELS = "the CRD refuses it", "only heddle validate and the webhook refuse it"
STRICT = {"fieldValidation": "Strict"}

Raw = dict[str, Any]


@pytest.fixture(scope="module")
def server(api_server: ApiServer) -> Iterator[ApiServer]:
    with defined(api_server):
        yield api_server


@pytest.fixture
def namespace(server: ApiServer) -> Iterator[str]:
    with server.namespace() as name:
        yield name


def path_of(kind: Kind, version: str, namespace: str) -> str:
    return f"/apis/{kind.group}/{version}/namespaces/{namespace}/{kind.plural}"


def create(server: ApiServer, raw: Raw, namespace: str, *, dry_run: bool) -> Raw:
    """What the API server makes of the object; Refused when it takes it not."""
    kind = find_kind(raw["apiVersion"], raw["kind"])
    assert kind is not None
    path = path_of(kind, raw["apiVersion"].rpartition("/")[2], namespace)
    query = {**STRICT, **({"dryRun": "All"} if dry_run else {})}
    metadata = {key: value for key, value in raw["metadata"].items() if key != "namespace"}
    # Through YAML, as kubectl sends it: 80.0 is 80 there.
    body = json.loads(json.dumps({**raw, "metadata": metadata}), parse_float=whole)
    answer: Raw = server.client.call("POST", path, query=query, body=body)
    return answer


def refusal_of(server: ApiServer, raw: Raw, namespace: str) -> str:
    """Why the API server does not take the object; "" when it does."""
    try:
        create(server, raw, namespace, dry_run=True)
    except Refused as refusal:
        said = refusal.message
        if refusal.status in (400, 422) and ("evaluating rule" not in said or "should match" in said):
            return said
        raise  # for example a CEL rule that failed instead of judging
    return ""


def whole(text: str) -> int | float:
    value = float(text)
    return int(value) if value.is_integer() else value


def documents(files: str) -> list[Raw]:
    """The objects of Istio's kinds in golden cases of validation."""
    found = [each for file in sorted(VALIDATION.glob(files)) for each in read_manifest(file.read_text(), "").documents]
    return [each.raw for each in found if (kind := find_kind(each.api_version, each.kind)) and kind.of_istio]


def is_valid(raw: Raw) -> bool:
    try:
        parse_istio(raw)
    except ObjectErrors:
        return False
    return True


VALID = [raw for raw in documents("*.in.yaml") if is_valid(raw)]
EXAMPLES = {raw["kind"].lower(): raw for raw in reversed(documents("valid*.in.yaml"))}
VIRTUAL_SERVICE = EXAMPLES["virtualservice"]


@pytest.mark.parametrize("kind", crd.defined(), ids=lambda kind: kind.kind)
def test_every_definition_is_established_and_structural(server: ApiServer, kind: Kind) -> None:
    assert conditions(server.client, kind) == {"NamesAccepted": "True", "Established": "True"}
    stored = server.client.get(f"{DEFINITIONS}/{kind.definition}")["spec"]["versions"]
    assert [each["name"] for each in stored if each["served"]] == list(kind.versions)
    assert [each["name"] for each in stored if each["storage"]] == [crd.stored_version(kind)]


@pytest.mark.parametrize("raw", VALID, ids=lambda raw: f"{raw['kind']}-{raw['metadata']['name']}")
def test_what_the_models_take_the_api_server_takes_and_gives_back(server: ApiServer, namespace: str, raw: Raw) -> None:
    kept = create(server, raw, namespace, dry_run=False)
    given = parse_istio(raw).spec
    assert parse_istio(kept).spec == given
    kind = find_kind(raw["apiVersion"], raw["kind"])
    assert kind is not None
    for version in kind.versions:
        read = server.client.get(f"{path_of(kind, version, namespace)}/{raw['metadata']['name']}")
        assert read["apiVersion"] == f"{kind.group}/{version}"
        assert parse_istio(read).spec == given


@pytest.mark.parametrize("kind", refused.KINDS)
def test_who_refuses_what(server: ApiServer, namespace: str, kind: str) -> None:
    verdicts = {}
    for name, raw in refused.objects(kind):
        verdicts[name] = BY_CRD if refusal_of(server, raw, namespace) else BY_MODELS
    refused.check_golden(CASES / f"{kind}.out.txt", verdicts)


def test_every_golden_file_is_of_a_kind() -> None:
    assert {file.name for file in CASES.iterdir()} == {f"{kind}.out.txt" for kind in refused.KINDS}


def test_an_unknown_field_is_refused_by_name(server: ApiServer, namespace: str) -> None:
    raw = {**VIRTUAL_SERVICE, "spec": {**VIRTUAL_SERVICE["spec"], "exportToo": ["*"]}}
    with pytest.raises(Refused, match=r'unknown field "spec.exportToo"'):
        create(server, raw, namespace, dry_run=True)


def test_a_cel_rule_says_the_way_out(server: ApiServer, namespace: str) -> None:
    policies = dict(refused.objects("authorizationpolicy"))
    with pytest.raises(Refused, match="without rules this action has no effect: add a rule"):
        create(server, policies["deny-without-rules"], namespace, dry_run=True)


COLUMNS = [
    ("virtualservice", "vs", ["GATEWAYS", "HOSTS", "AGE"], ['["mesh","istio-system/ingress"]']),
    ("destinationrule", "dr", ["HOST", "AGE"], ["*.default.svc.cluster.local"]),
    ("gateway", "gw", ["AGE"], []),
    ("serviceentry", "se", ["HOSTS", "LOCATION", "RESOLUTION", "AGE"], ["MESH_EXTERNAL", "STATIC"]),
    ("workloadentry", "we", ["ADDRESS", "AGE"], ["vm1.vpc01.corp.net"]),
    ("workloadgroup", "wg", ["AGE"], []),
    ("sidecar", "sidecars", ["AGE"], []),
    ("peerauthentication", "pa", ["MODE", "AGE"], ["STRICT"]),
    ("authorizationpolicy", "ap", ["ACTION", "AGE"], ["ALLOW"]),
    ("requestauthentication", "ra", ["AGE"], []),
    ("telemetry", "telemetry", ["AGE"], []),
]


@pytest.mark.parametrize(
    ("kind", "short", "columns", "shown"), COLUMNS, ids=lambda value: value if type(value) is str else ""
)
def test_kubectl_shows_what_istios_definitions_show(
    server: ApiServer, namespace: str, kind: str, short: str, columns: list[str], shown: list[str]
) -> None:
    raw = EXAMPLES[kind]
    create(server, raw, namespace, dry_run=False)
    header, row = kubectl(server, "get", short, "-n", namespace).splitlines()
    assert header.split() == ["NAME", *columns]
    assert all(value in row for value in shown), row
    wide = kubectl(server, "get", short, "-n", namespace, "-o", "wide").splitlines()[0].split()
    assert wide == ["NAME", *columns[:-1], "ACCEPTED", "APPLIED", "PROXIES", "AGE"]
    assert f"/{raw['metadata']['name']}" in kubectl(server, "get", "istio-io", "-n", namespace, "-o", "name")


def test_status_has_room_for_conditions_and_counts_and_is_apart_from_the_spec(
    server: ApiServer, namespace: str
) -> None:
    kind = find_kind("networking.istio.io/v1", "VirtualService")
    assert kind is not None
    name = create(server, VIRTUAL_SERVICE, namespace, dry_run=False)["metadata"]["name"]
    condition = {"type": "Accepted", "status": "True", "reason": "Valid", "message": "", "observedGeneration": 1}
    condition["lastTransitionTime"] = "2026-01-02T03:04:05Z"
    proxies = {"applied": 2, "total": 3, "refused": [{"pod": "a/b", "resource": "r", "message": "no"}]}
    status = {"conditions": [condition], "observedGeneration": 1, "heddle": {"proxies": proxies}}
    status["validationMessages"] = [{"type": {"code": "IST0101"}, "level": "WARNING", "anything": {"else": 1}}]
    raw = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "status": status}
    path = f"{path_of(kind, 'v1', namespace)}/{name}"
    query = {**STRICT, "fieldManager": "test"}
    content = "application/apply-patch+yaml"
    written = server.client.call("PATCH", f"{path}/status", query=query, body=raw, content_type=content)
    assert written["status"] == status
    assert written["metadata"]["generation"] == 1
    assert parse_istio(written).spec == parse_istio(VIRTUAL_SERVICE).spec
    wide = kubectl(server, "get", "vs", "-n", namespace, "-o", "wide").splitlines()
    assert wide[1].split()[-4:-1] == ["True", "2", "3"]


def test_a_workload_certificate_is_shown_to_people(server: ApiServer, namespace: str) -> None:
    spec = {
        "pod": "reviews-1",
        "identity": f"spiffe://cluster.local/ns/{namespace}/sa/reviews",
        "serial": "0a1b",
        "issued": "2026-01-02T03:04:05Z",
        "expires": "2026-01-03T03:04:05Z",
        "renewsAt": "2026-01-02T15:04:05Z",
        "root": "ff00",
        "issuer": "ee11",
        "node": "node-1",
        "key": {"kind": "P-256", "sha256": "0" * 64},
        "state": "Issued",
        "caller": "token",
        "replica": "heddle-ca-0",
    }
    raw = {
        "apiVersion": "heddle.dev/v1",
        "kind": "WorkloadCertificate",
        "metadata": {"name": "reviews-1"},
        "spec": spec,
    }
    create(server, raw, namespace, dry_run=False)
    header, row = kubectl(server, "get", "svid", "-n", namespace).splitlines()
    assert header.split("  ")[0] == "NAME"
    for column in ("POD", "IDENTITY", "SERIAL", "ISSUED", "EXPIRES", "RENEWS AT", "ROOT", "STATE", "AGE"):
        assert column in header
    assert row.split()[:4] == ["reviews-1", "reviews-1", spec["identity"], "0a1b"]
    assert row.split()[5:9] == [spec["expires"], spec["renewsAt"], "ff00", "Issued"]
    with pytest.raises(Refused, match=r"spec\.state: Unsupported value"):
        create(server, {**raw, "spec": {**spec, "state": "Lost"}}, namespace, dry_run=True)


def test_kubectl_explains_a_field_in_our_words(server: ApiServer) -> None:
    said = kubectl(server, "explain", "virtualservice.spec.http.timeout")
    assert "Time until the whole answer must be there; none by default." in " ".join(said.split())


def test_a_definition_of_istios_own_can_be_replaced(own_api_server: ApiServer) -> None:
    """One with other schemas and the same versions: objects stay, and nothing has to be deleted first."""
    kind = find_kind("security.istio.io/v1", "PeerAuthentication")
    assert kind is not None
    theirs = json.loads(json.dumps(crd.crd(kind)))
    for version in theirs["spec"]["versions"]:
        anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        version["schema"]["openAPIV3Schema"]["properties"]["spec"] = anything
    own_api_server.client.post(DEFINITIONS, theirs)
    wait_for(lambda: conditions(own_api_server.client, kind).get("Established") == "True")
    raw = EXAMPLES["peerauthentication"]
    wait_for(lambda: is_served(own_api_server, kind))
    create(own_api_server, raw, "default", dry_run=False)
    text = yaml.safe_dump(crd.crd(kind))
    kubectl(own_api_server, "apply", "--server-side", "--force-conflicts", "-f", "-", text=text)
    read = own_api_server.client.get(f"{path_of(kind, 'v1', 'default')}/{raw['metadata']['name']}")
    assert parse_istio(read).spec == parse_istio(raw).spec


def is_served(server: ApiServer, kind: Kind) -> bool:
    try:
        server.client.get(path_of(kind, kind.versions[0], "default"))
    except NotFound:
        return False
    return True
