"""Certificates, options and gunicorn's log, without a process."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any

import pytest
from gunicorn.config import Config

from mesh.errors import InvalidInput, Unavailable
from mesh.identity import Identity
from serving.certificate import FileCertificate, SvidCertificate
from serving.logs import GunicornLog
from serving.options import address, own_pod
from svid.material import PodRef, SvidMaterial, TrustBundle

CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def material(serial: str) -> SvidMaterial:
    identity = Identity("cluster.local", "istio-system", "heddle-x")
    return SvidMaterial(identity, serial, 0.0, 4e9, b"", b"", TrustBundle("cluster.local", 1, ()))


def test_an_svid_is_in_force_before_anyone_is_told() -> None:
    made = SvidCertificate(lambda _: material("1"), lambda _: CONTEXT, lambda _: told.append(made.context()))
    told: list[ssl.SSLContext] = []
    assert made.not_ready() == "no certificate yet: asking the ca"
    with pytest.raises(Unavailable, match="no certificate yet"):
        made.context()
    made.obtain_now()
    assert told == [CONTEXT]
    assert made.not_ready() == ""


def test_why_there_is_no_svid() -> None:
    def obtain(_: object) -> SvidMaterial:
        raise Unavailable("the ca is away")

    made = SvidCertificate(obtain, lambda _: CONTEXT)
    with pytest.raises(Unavailable):
        made.obtain_now()
    assert made.not_ready() == "no certificate yet: the ca is away"


def test_files_that_are_not_there_yet(tmp_path: Path) -> None:
    file = tmp_path / "tls.crt"
    loaded: list[Path] = []

    def load(path: Path) -> ssl.SSLContext:
        loaded.append(path)
        return CONTEXT

    made = FileCertificate((file,), load)
    assert "cannot be read" in made.not_ready()
    file.write_text("x")
    assert made.context() is made.context() is CONTEXT
    assert made.not_ready() == ""
    assert loaded == [file]
    file.unlink()
    assert made.context() is CONTEXT


@pytest.mark.parametrize(
    ("text", "found"), [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:80", ("::1", 80)), ("a.b:0", ("a.b", 0))]
)
def test_addresses(text: str, found: tuple[str, int]) -> None:
    assert address(text, "--listen") == found


@pytest.mark.parametrize("text", ["", "80", ":80", "host", "host:", "host:http", "host:65536", "host:²"])
def test_texts_that_are_no_addresses(text: str) -> None:
    with pytest.raises(InvalidInput, match="not host:port") as error:
        address(text, "--listen")
    assert error.value.field == "--listen"


def test_the_own_pod_is_all_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("POD_NAMESPACE", "a"), ("POD_NAME", "b"), ("POD_UID", "")):
        monkeypatch.setenv(name, value)
    assert own_pod() is None
    monkeypatch.setenv("POD_UID", "c")
    assert own_pod() == PodRef("a", "b", "c")


@pytest.mark.parametrize(
    ("message", "error", "level"),
    [
        ("Socket error processing request.", TimeoutError("timed out"), logging.INFO),
        ("Socket error processing request.", OSError(113, "No route to host"), logging.INFO),
        ("Socket error processing request.", RuntimeError("ours"), logging.ERROR),
        ("Exception in worker process", OSError(98, "Address already in use"), logging.ERROR),
    ],
)
def test_only_what_peers_do_is_no_error(
    caplog: pytest.LogCaptureFixture, message: str, error: Exception, level: int
) -> None:
    log: Any = GunicornLog(Config())
    with caplog.at_level(logging.INFO):
        try:
            raise error
        except Exception:
            log.exception(message)
    assert [record.levelno for record in caplog.records] == [level]
