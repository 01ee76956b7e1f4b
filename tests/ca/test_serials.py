"""A serial fits one pod, and is as random as a serial must be."""

from __future__ import annotations

import secrets

import pytest

from ca.serials import RANDOM_BYTES, is_of_pod, leaf_serial

UIDS = ("", "0", "5f1c9d0e-7a53-4f26-9d8e-0c1d2e3f4a5b", "5f1c9d0e-7a53-4f26-9d8e-0c1d2e3f4a5c")


@pytest.mark.parametrize("uid", UIDS)
def test_it_fits_its_pod_and_no_other(uid: str) -> None:
    for random in (b"\x00" * RANDOM_BYTES, b"\xff" * RANDOM_BYTES, secrets.token_bytes(RANDOM_BYTES)):
        serial = leaf_serial(uid, random)
        assert [other for other in UIDS if is_of_pod(serial, other)] == [uid]
        assert serial > 0
        assert serial.bit_length() == 159  # 20 octets in DER, positive
        assert not any(is_of_pod(serial ^ 1 << bit, uid) for bit in range(159))


@pytest.mark.parametrize("serial", [0, -1, 1, 1 << 127, 1 << 159, 1 << 160, 1 << 4000])
def test_what_nobody_made(serial: int) -> None:
    assert not any(is_of_pod(serial, uid) for uid in UIDS)


def test_the_random_half_counts() -> None:
    made = {leaf_serial("uid", secrets.token_bytes(RANDOM_BYTES)) for _ in range(1000)}
    assert len({serial >> 80 for serial in made}) == len({serial & (1 << 80) - 1 for serial in made}) == 1000
