"""What is written to the API server before the answer, what behind it, and what after a start."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from ca.authority import Authority
from ca.cluster import Cluster, newest
from ca.ledger import Ledger
from ca.rotation.books import BY_VOLUME
from ca.secret_store import SecretStore
from ca.settings import CaSettings
from ca.store import DirectoryStore
from kube.client import Client
from mesh.errors import Unavailable
from tests.ca.test_workload_certificate import RECORD, Place

BY_FILE = replace(RECORD, serial="cd", caller=BY_VOLUME)


class Away(Place):
    """An API server that does not answer."""

    def post(self, _path: str, body: Any) -> Any:
        raise Unavailable("it is away")


def cluster_at(place: Place, directory: Path, ledger: Ledger) -> Cluster:
    """Not started: whatever is queued stays there."""
    authority = Authority(DirectoryStore(directory), lambda: b"x" * 32, CaSettings(), time.time)
    client = cast(Client, place)
    return Cluster(client, authority, ledger, None, SecretStore(client, "istio-system", "heddle-ca-root"))


def test_that_of_a_volume_has_its_object_before_it_is_answered(tmp_path: Path) -> None:
    place = Place()
    cluster = cluster_at(place, tmp_path, Ledger(None))
    cluster.issued(BY_FILE)
    assert place.object is not None
    assert place.object["spec"]["serial"] == "cd"
    assert cluster.unwritten() == 0
    cluster.issued(RECORD)
    assert cluster.unwritten() == 1
    assert place.object["spec"]["serial"] == "cd"  # nobody has waited for the other


def test_an_api_server_that_is_away_costs_no_answer(tmp_path: Path) -> None:
    cluster = cluster_at(Away(), tmp_path, Ledger(None))
    cluster.issued(BY_FILE)
    assert cluster.unwritten() == 1


def test_each_certificate_of_a_pod_is_told_of(tmp_path: Path) -> None:
    cluster = cluster_at(Away(), tmp_path, Ledger(None))
    for serial in ("1", "2", "3"):
        cluster.issued(replace(RECORD, serial=serial))
    assert cluster.unwritten() == 3


@pytest.mark.parametrize(
    ("second", "left"),
    [
        (RECORD, ["2"]),
        (replace(RECORD, caller="certificate"), ["2"]),
        (BY_FILE, ["1", "2"]),
        (replace(RECORD, root="another"), ["1", "2"]),
        (replace(RECORD, pod_uid="another"), ["1", "2"]),
    ],
)
def test_after_a_start_the_newest_of_each_kind_counts(second: Any, left: list[str]) -> None:
    assert [each.serial for each in newest([replace(RECORD, serial="1"), replace(second, serial="2")])] == left
