from __future__ import annotations

import pytest

from discovery.envoy import values


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0s"), (1, "1s"), (0.25, "0.250s"), (1.5, "1.500s"), (0.0001, "0.001s"), (86400, "86400s")]
)
def test_seconds(value: float, text: str) -> None:
    assert values.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("100%", "100%%"),
        ("100%%", "100%%"),
        ("%START_TIME(%s)%", "%START_TIME(%s)%"),
        ("a%20b %PROTOCOL% %", "a%%20b %PROTOCOL% %%"),
        ("%REQ(X-A):10%", "%REQ(X-A):10%"),
    ],
)
def test_format_text(value: str, text: str) -> None:
    assert values.format_text(value) == text


@pytest.mark.parametrize(("value", "millionths"), [(0, 0), (0.5, 5000), (100, 1_000_000), (33.3333, 333_333)])
def test_percent(value: float, millionths: int) -> None:
    assert values.percent(value) == {"numerator": millionths, "denominator": "MILLION"}
