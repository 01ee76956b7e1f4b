"""A container's environment, decided without a container."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.env import environment, expand, field_value, quantity_value, resource_value, service_variables
from mesh.errors import InvalidInput, NotFound

POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "shop", "uid": "u", "labels": {"a": "1", "b": 'x"y'}, "annotations": {}},
    "spec": {"serviceAccountName": "sa", "nodeName": "node", "containers": [{"name": "main"}]},
    "status": {"podIP": "10.244.1.2", "podIPs": [{"ip": "10.244.1.2"}], "hostIP": "10.244.0.1"},
}


def build(container: dict[str, Any], objects: dict[tuple[str, str, str], Any] | None = None) -> dict[str, str]:
    return environment(POD, {"name": "main", **container}, {"PATH": "/bin"}, [], lambda *key: (objects or {}).get(key))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)-$(A)", "1-1"),
        ("$$(A)", "$(A)"),
        ("$(NONE)", "$(NONE)"),
        ("$A $(A", "$A $(A"),
        ("$$$(A)", "$1"),
        ("$(A) costs 5$", "1 costs 5$"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}) == expected


@given(st.text(alphabet="$()AB x"))
def test_expansion_never_fails_and_is_the_identity_without_dollars(text: str) -> None:
    result = expand(text, {"A": "$(B)", "B": "2"})
    assert result == text or "$" in text


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u"),
        ("metadata.labels['a']", "1"),
        ("metadata.labels['none']", ""),
        ("metadata.labels", 'a="1"\nb="x\\"y"'),
        ("spec.nodeName", "node"),
        ("spec.serviceAccountName", "sa"),
        ("status.podIP", "10.244.1.2"),
        ("status.podIPs", "10.244.1.2"),
        ("status.hostIP", "10.244.0.1"),
    ],
)
def test_fields(path: str, value: str) -> None:
    assert field_value(POD, path, "f") == value


def test_an_unknown_field_is_named_with_those_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"status.phase.*metadata.name"):
        field_value(POD, "status.phase", "env[X].valueFrom")


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.cpu", None, "2"),
        ("limits.cpu", "1m", "1500"),
        ("limits.memory", "1Mi", "64"),
        ("requests.memory", None, "0"),
    ],
)
def test_resources_are_rounded_up_to_the_divisor(resource: str, divisor: str | None, value: str) -> None:
    container = {"resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}
    assert resource_value(container, {"resource": resource, "divisor": divisor}, "f") == value


def test_a_strange_quantity_is_refused() -> None:
    with pytest.raises(InvalidInput, match="is not a quantity"):
        quantity_value("much", "limits.cpu")


def test_later_values_see_earlier_ones_and_config_comes_first() -> None:
    objects = {
        ("ConfigMap", "shop", "c"): {"data": {"A": "1", "bad key": "x"}, "binaryData": {"B": "Mg=="}},
        ("Secret", "shop", "s"): {"data": {"C": "Mw=="}, "stringData": {"D": "4"}},
    }
    container = {
        "envFrom": [{"configMapRef": {"name": "c"}}, {"prefix": "S_", "secretRef": {"name": "s"}}],
        "env": [
            {"name": "X", "value": "$(A)$(B)$(S_C)$(S_D)$(Y)"},
            {"name": "Y", "value": "late"},
            {"name": "A", "value": "own"},
            {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "A"}}},
            {"name": "O", "valueFrom": {"secretKeyRef": {"name": "none", "key": "A", "optional": True}}},
        ],
    }
    found = build(container, objects)
    assert found["X"] == "1234$(Y)"
    assert (found["A"], found["K"], found["HOSTNAME"], found["PATH"]) == ("own", "1", "p", "/bin")
    assert not {"O", "bad key"} & found.keys()


@pytest.mark.parametrize(
    ("container", "part"),
    [
        ({"envFrom": [{"configMapRef": {"name": "c"}}]}, "ConfigMap shop/c does not exist"),
        ({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}, "Secret shop/s does not"),
        ({"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "e", "key": "k"}}}]}, "has no key 'k'"),
    ],
)
def test_what_is_missing_is_named(container: dict[str, Any], part: str) -> None:
    with pytest.raises(NotFound, match="container main") as caught:
        build(container, {("ConfigMap", "shop", "e"): {}})
    assert part in str(caught.value)


def test_service_variables_are_the_kubelets() -> None:
    services = [
        {
            "metadata": {"name": "my-db", "namespace": "shop"},
            "spec": {"clusterIP": "10.96.0.5", "ports": [{"name": "sql", "port": 5432}]},
        },
        {"metadata": {"name": "far", "namespace": "x"}, "spec": {"clusterIP": "10.96.0.6", "ports": [{"port": 1}]}},
        {"metadata": {"name": "headless", "namespace": "shop"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}},
        {
            "metadata": {"name": "kubernetes"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]},
        },
    ]
    found = service_variables("shop", services, links=True)
    assert {name: value for name, value in found.items() if name.startswith("MY_DB")} == {
        "MY_DB_SERVICE_HOST": "10.96.0.5",
        "MY_DB_SERVICE_PORT": "5432",
        "MY_DB_SERVICE_PORT_SQL": "5432",
        "MY_DB_PORT": "tcp://10.96.0.5:5432",
        "MY_DB_PORT_5432_TCP": "tcp://10.96.0.5:5432",
        "MY_DB_PORT_5432_TCP_PROTO": "tcp",
        "MY_DB_PORT_5432_TCP_PORT": "5432",
        "MY_DB_PORT_5432_TCP_ADDR": "10.96.0.5",
    }
    assert found["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    assert not any(name.startswith(("FAR", "HEADLESS")) for name in found)
    assert set(service_variables("shop", services, links=False)) <= {n for n in found if n.startswith("KUBERNETES")}
