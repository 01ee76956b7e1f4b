"""A ca for the tests of a module: whoever issues tokens, an API server that knows pods, and the ca as a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from svid.material import PodRef
from tests.ca.harness import ISSUER, ApiServer, CaProcess, TokenMint


@pytest.fixture(scope="module")
def mint() -> TokenMint:
    return TokenMint()


@pytest.fixture(scope="module")
def api(mint: TokenMint) -> Iterator[ApiServer]:
    with ApiServer(mint) as server:
        yield server


@pytest.fixture(scope="module")
def ca(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaProcess]:
    state = tmp_path_factory.mktemp("ca") / "state"
    with CaProcess(state, api, "--token-issuer-keys", "api", "--token-issuer", ISSUER) as process:
        yield process


@pytest.fixture
def pod(api: ApiServer) -> PodRef:
    return api.add_pod("default", "reviews-1", "uid-1", "reviews")
