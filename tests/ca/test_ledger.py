"""The ledger: written before the signature, by many threads, through kills."""

from __future__ import annotations

import json
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ca.audit import AuditLog
from ca.authority import Authority
from ca.issue import Issuance, Issued
from ca.ledger import Ledger, Record
from ca.policy import Caller
from ca.request import parse_request
from ca.settings import CaSettings
from ca.sign import Prepared, sign
from ca.store import DirectoryStore
from mesh.errors import HeddleError, Unavailable
from mesh.identity import Identity
from svid.client import Token, fetch
from svid.request import new_key_request
from tests.ca.harness import ApiServer, CaProcess, TokenMint

NOW = 1_800_000_000.0
RECORD = Record(
    "ab", "spiffe://cluster.local/ns/a/sa/b", "token", "a", "b-1", "u", "n", "P-256", "f" * 64, "1", "2", NOW, 10, 20
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite3")


def test_keeps_what_it_is_told(ledger: Ledger) -> None:
    ledger.record(RECORD)
    assert ledger.list() == [RECORD]
    ledger.mark("ab", issued=True)
    assert ledger.list() == [replace(RECORD, state="issued")]
    ledger.record(replace(RECORD, serial="cd"))
    ledger.mark("cd", issued=False)
    assert [(r.serial, r.state) for r in ledger.list()] == [("ab", "issued"), ("cd", "failed")]


def test_one_serial_is_one_certificate(ledger: Ledger) -> None:
    ledger.record(RECORD)
    with pytest.raises(Unavailable, match="UNIQUE"):
        ledger.record(RECORD)


def test_together_all_are_recorded_or_none(ledger: Ledger) -> None:
    some = [replace(RECORD, serial=f"s{n}", prepared_at=NOW + n) for n in range(4)]
    ledger.record(*some[:2])
    with pytest.raises(Unavailable, match="UNIQUE"):
        ledger.record(some[2], some[1], some[3])
    assert ledger.list() == some[:2]
    ledger.record(*some[2:])
    ledger.mark("s0", "s3", issued=True)
    assert [r.state for r in ledger.list()] == ["issued", "prepared", "prepared", "issued"]


def test_valid_ones_and_pruning(ledger: Ledger) -> None:
    for n in range(5):
        ledger.record(replace(RECORD, serial=f"s{n}", not_after=100 + n))
    assert [r.serial for r in ledger.list(valid_at=103)] == ["s3", "s4"]
    assert ledger.prune(102) == 2
    assert [r.serial for r in ledger.list()] == ["s2", "s3", "s4"]


def test_survives_reopening(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "l")
    first.record(RECORD)
    assert Ledger(tmp_path / "l").list() == [RECORD]  # a second process while the first has it open
    first.close()
    assert Ledger(tmp_path / "l").list() == [RECORD]


def test_many_threads(ledger: Ledger) -> None:
    def one(n: int) -> None:
        ledger.record(replace(RECORD, serial=f"{n:x}"))
        ledger.mark(f"{n:x}", issued=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(400)))
    assert len(ledger.list()) == 400
    assert {r.state for r in ledger.list()} == {"issued"}


def test_two_processes_worth_of_connections(tmp_path: Path) -> None:
    ledgers = [Ledger(tmp_path / "l") for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        work = [
            pool.submit(led.record, replace(RECORD, serial=f"{i}-{n}"))
            for n in range(100)
            for i, led in enumerate(ledgers)
        ]
    assert all(task.result() is None for task in work)
    assert len(ledgers[0].list()) == 200


def test_a_file_that_is_not_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "l").write_text("this is not a database, but long enough to look at" * 50)
    with pytest.raises(Unavailable, match="ledger cannot be used"):
        Ledger(tmp_path / "l")


def issuance(tmp_path: Path, ledger: Ledger) -> Issuance:
    authority = Authority(DirectoryStore(tmp_path), lambda: b"x" * 32, CaSettings(), lambda: NOW)
    return Issuance(authority, ledger, CaSettings(), lambda: NOW)


def test_nothing_is_signed_when_it_cannot_be_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "l")
    signed: list[object] = []
    monkeypatch.setattr("ca.issue.sign", lambda *arguments: signed.append(arguments))
    with sqlite3.connect(tmp_path / "l") as other:
        other.execute("DROP TABLE certificates")
    caller = Caller("token", Identity("cluster.local", "a", "b"))
    with pytest.raises(Unavailable, match="nothing is signed"):
        issuance(tmp_path, ledger).issue(caller, parse_request(new_key_request().csr_pem), None)
    assert not signed


def test_a_failed_signature_is_recorded_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "l")
    caller = Caller("token", Identity("cluster.local", "a", "b"))

    def broken(*_arguments: object) -> bytes:
        assert [r.state for r in ledger.list()] == ["prepared"]
        raise RuntimeError("the key is gone")

    monkeypatch.setattr("ca.issue.sign", broken)
    with pytest.raises(RuntimeError):
        issuance(tmp_path, ledger).issue(caller, parse_request(new_key_request().csr_pem), None)
    assert [r.state for r in ledger.list()] == ["failed"]


def test_of_several_one_signature_fails_and_the_others_are_issued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(tmp_path, lambda: NOW)
    ledger, told = Ledger(tmp_path / "l", log), []
    authority = Authority(DirectoryStore(tmp_path), lambda: b"x" * 32, CaSettings(), lambda: NOW)
    issuing = Issuance(authority, ledger, CaSettings(), lambda: NOW, told.append)
    begun = [
        issuing.begin(
            Caller("token", Identity("cluster.local", "a", name)), parse_request(new_key_request().csr_pem), None
        )
        for name in ("one", "two", "three")
    ]
    assert ledger.list() == []
    assert log.end.number == 0

    def signs(key: Any, prepared: Prepared) -> bytes:
        assert {r.serial for r in ledger.list()} == {each.record.serial for each in begun}, "all are recorded first"
        if prepared is begun[1].prepared:
            raise RuntimeError("the key is gone")
        return sign(key, prepared)

    monkeypatch.setattr("ca.issue.sign", signs)
    one, two, three = issuing.finish(begun)
    assert isinstance(two, RuntimeError)
    assert [isinstance(done, Issued) and done.caller.identity.service_account for done in (one, three)] == [
        "one",
        "three",
    ]
    states = {r.serial: r.state for r in ledger.list()}
    assert [states[each.record.serial] for each in begun] == ["issued", "failed", "issued"]
    assert told == [begun[0].record, begun[2].record]


def test_kill_during_issuance(tmp_path: Path) -> None:
    """Whatever a client holds is in the ledger after kill -9 in the middle of the work; the next start is clean."""
    mint = TokenMint()
    with ApiServer(mint) as api:
        pod = api.add_pod("default", "a", "uid", "a")
        received: list[str] = []
        with CaProcess(tmp_path / "state", api, "--token-issuer-keys", "api") as ca:
            enough = threading.Event()

            def ask() -> None:
                try:
                    while True:
                        token = Token(mint.token("default", "a", pod))
                        received.append(fetch(ca.address, roots, new_key_request(), token).serial)
                        if len(received) > 40:
                            enough.set()
                except HeddleError:
                    return

            roots = ca.roots
            clients = [threading.Thread(target=ask) for _ in range(4)]
            for client in clients:
                client.start()
            assert enough.wait(60)
            ca.kill()
            for client in clients:
                client.join()
        with CaProcess(tmp_path / "state", api, "--token-issuer-keys", "api") as again:
            assert again.roots == roots
            assert fetch(again.address, roots, new_key_request(), Token(mint.token("default", "a", pod))).serial
        records = {record.serial: record for record in Ledger(tmp_path / "state" / "ledger.sqlite3").list()}
        assert all(serial in records for serial in received)
        unfinished = [record for record in records.values() if record.state != "issued"]
        assert len(unfinished) <= 8
        assert all(record.state == "prepared" for record in unfinished)
        log = [json.loads(line) for line in again.log.read_text().splitlines()]
        assert not [line for line in log if line["level"] in ("error", "critical")]
