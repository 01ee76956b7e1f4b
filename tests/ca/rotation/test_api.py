"""`GET` and `POST /v1/rotation` of a real ca."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from svid.material import PodRef
from tests.ca.harness import ISSUER, ApiServer, TokenMint
from tests.ca.rotation.operated import Operated


@pytest.fixture(scope="module")
def ca(api: ApiServer, mint: TokenMint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    state = tmp_path_factory.mktemp("ca") / "state"
    with Operated(state, api, "--token-issuer-keys", "api", "--token-issuer", ISSUER) as process:
        process.begin(mint)
        yield process


def test_only_operators_may_ask(ca: Operated, api: ApiServer, mint: TokenMint) -> None:
    assert ca.request("GET", "/v1/rotation")[0] == 401
    pod: PodRef = api.add_pod("default", "reviews-1", "uid-1", "reviews")
    workload = ca.enrol(mint.token("default", "reviews", pod))
    for method, body in (("GET", None), ("POST", b'{"do": "start"}')):
        headers = {"X-Heddle-Pod": str(pod), "Content-Type": "application/json"}
        assert ca.request(method, "/v1/rotation", body, headers, workload)[0] == 403
    assert ca.rotation()[1]["phase"] == "idle"


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"do": "dance"}, "do"),
        ({"do": "start", "window": 3}, "window"),
        ({"do": "start", "windowSeconds": 0}, "windowSeconds"),
        ({"do": "start", "windowSeconds": True}, "windowSeconds"),
        ({"do": "exclude", "pods": "default/a"}, "pods"),
        ({"do": "exclude", "pods": ["a"]}, "pods"),
        ({"do": "start", "dryRun": 1}, "dryRun"),
    ],
)
def test_a_wrong_wish_names_its_field(ca: Operated, wish: dict[str, Any], field: str) -> None:
    status, body = ca.rotation(**wish)
    assert (status, body["error"]["field"]) == (400, field)


@pytest.mark.parametrize("do", ["pause", "resume", "rollback", "finish", "exclude", "include"])
def test_what_does_not_fit_says_the_way_out(ca: Operated, do: str) -> None:
    status, body = ca.rotation(do=do, pods=["default/a"])
    assert status == 409
    assert "start" in body["error"]["hint"]


def test_a_dry_run_changes_nothing(ca: Operated) -> None:
    before = ca.rotation()[1]
    status, body = ca.rotation(do="start", dryRun=True)
    assert status == 200
    assert body["phase"] == "idle"
    assert body["would"] == {"phase": "distribute", "direction": "forward", "sequence": 2}
    assert ca.rotation()[1] == before


def test_whom_a_rotation_could_only_wait_for_is_said_beforehand(ca: Operated, api: ApiServer, mint: TokenMint) -> None:
    """The pod has no agent that would renew on order; one that has gone is not waited for."""
    for name in ("stays-1", "goes-1"):
        ca.enrol(mint.token("default", "reviews", api.add_pod("default", name, f"uid-{name}", "reviews")))
    api.remove_pod("default", "goes-1")
    lasting = {each["name"]: each["why"] for each in ca.rotation(do="start", dryRun=True)[1]["preflight"]["lasting"]}
    assert "it has one, of which no agent tells, of the root that leaves until" in lasting["default/stays-1"]
    assert "default/goes-1" not in lasting
