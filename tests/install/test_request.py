"""`--set`, and what wins when several say something."""

from __future__ import annotations

import pytest

from install.paths import Item, parse_assignment, parse_path
from install.request import read_operator, request
from mesh.errors import InvalidInput

HEAD = "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\n"


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("components.pilot.k8s.replicaCount", ("components", "pilot", "k8s", "replicaCount")),
        ("a[0].b", ("a", 0, "b")),
        ("containers.[name:istio-proxy].image", ("containers", Item("name", "istio-proxy"), "image")),
        ("args.[:--a=b]", ("args", Item("", "--a=b"))),
        (r"annotations.prometheus\.io/scrape", ("annotations", "prometheus.io/scrape")),
    ],
)
def test_paths(text: str, steps: tuple[object, ...]) -> None:
    assert parse_path(text) == steps


@pytest.mark.parametrize("text", ["", ".", "a.", "a[b", "a[x]"])
def test_no_paths(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_path(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=true", True),
        ("a.b=3", 3),
        ("a.b=", ""),
        ("a.b=[x, y]", ["x", "y"]),
        ("a.b=c=d", "c=d"),
        ("spec.tag=1.20", "1.20"),
        ("values.pilot.env.A=true", "true"),
    ],
)
def test_values(text: str, value: object) -> None:
    assert parse_assignment(text)[1] == value


def test_the_option_wins_over_set_and_set_over_files_and_the_last_file_over_the_first() -> None:
    first = read_operator(HEAD + "spec: {profile: demo, tag: a, hub: one}", "first")
    second = read_operator(HEAD + "spec: {tag: b, hub: two}", "second")
    spec = request([("first", first), ("second", second)], ["hub=three", "profile=demo"], profile="minimal").spec
    assert (spec.profile, spec.tag, spec.hub) == ("minimal", "b", "three")


def test_a_gateway_of_the_profile_is_changed_by_its_name() -> None:
    text = HEAD + "spec: {components: {ingressGateways: [{name: istio-ingressgateway, k8s: {replicaCount: 7}}]}}"
    (gateway,) = request([("file", read_operator(text, "file"))]).spec.components.ingress_gateways
    assert gateway.enabled is True
    assert gateway.k8s.replica_count == 7


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "file:2: "),
        ("[]", "an empty list"),
        ("kind: IstioOperator", "begin it with apiVersion: install.istio.io/v1alpha1"),
        ("apiVersion: install.istio.io/v1\nkind: IstioOperator", "write install.istio.io/v1alpha1"),
        (HEAD + "sepc: {}", "did you mean spec?"),
        (HEAD + "spec: []", "a mapping"),
    ],
)
def test_what_is_no_istio_operator_is_said_to_be_none(text: str, says: str) -> None:
    with pytest.raises(InvalidInput) as error:
        request([("file", read_operator(text, "file"))])
    assert says in str(error.value)


@pytest.mark.parametrize("text", ["a", "components.pilot.k8s.env[5].name=x", "profile.x=1"])
def test_wrong_assignments_are_named(text: str) -> None:
    with pytest.raises(InvalidInput) as error:
        request([], ["profile=demo", text])
    assert text in str(error.value)
