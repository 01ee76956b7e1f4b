"""The TrustDomain object of a rotation's state, held against its own schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ca.trust_domain import first_names, object_name, trust_domain_object
from mesh.heddle.trust_domain import TrustDomain, TrustDomainStatus

STATES = Path(__file__).parents[1] / "cli" / "cases" / "rotation"


def made(name: str) -> Any:
    body = {"since": None, "startedAt": None, **yaml.safe_load((STATES / f"{name}.in.yaml").read_text())}
    return trust_domain_object("cluster.local", body)


@pytest.mark.parametrize("name", sorted(path.name.removesuffix(".in.yaml") for path in STATES.glob("*.in.yaml")))
def test_every_state_fits_the_model(name: str) -> None:
    found = made(name)
    TrustDomain.model_validate(found["spec"])
    assert TrustDomainStatus.model_validate(found["status"]).phase == found["status"]["phase"]


def test_what_kubectl_shows() -> None:
    status = made("distribute-missing")["status"]
    assert status["acknowledged"] == "12/40"
    assert status["firstMissing"] == "bookinfo/details-v1-1, bookinfo/ratings-v1-1 and 26 more"
    assert status["activeRoot"] == "5f2a8c0d9e1b47a6"
    assert status["otherRoot"] == "0e9d8c7b6a5f4e3d"


@pytest.mark.parametrize(
    ("names", "unnamed", "said"),
    [([], 0, ""), (["a"], 0, "a"), (list("abcde"), 0, "a, b, c and 2 more"), (list("abcde"), 9, "a, b, c and 11 more")],
)
def test_first_names(names: list[str], unnamed: int, said: str) -> None:
    assert first_names(names, unnamed) == said


@pytest.mark.parametrize(
    ("trust_domain", "name"),
    [("cluster.local", "cluster.local"), ("my_mesh", "my-mesh"), ("a..b", "a-b"), ("_", "trust-domain")],
)
def test_a_name_that_kubernetes_takes(trust_domain: str, name: str) -> None:
    assert object_name(trust_domain) == name
