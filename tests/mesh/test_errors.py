"""Errors are one sentence with field and way out, as text and as the body of an answer."""

from __future__ import annotations

import pytest

from mesh import errors
from mesh.errors import HeddleError, InvalidInput

ALL = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, HeddleError)]


def test_all_three_parts_in_one_sentence() -> None:
    error = InvalidInput("is 5", field="spec.x", hint="write 6")
    assert str(error) == "spec.x: is 5 (write 6)"
    assert error.as_json() == {"code": "invalid", "message": "is 5", "field": "spec.x", "hint": "write 6"}


def test_what_is_not_known_is_left_out() -> None:
    assert str(HeddleError("it broke")) == "it broke"
    assert HeddleError("it broke").as_json() == {"code": "internal", "message": "it broke"}
    assert InvalidInput("x", field="", hint="").as_json() == {"code": "invalid", "message": "x"}


@pytest.mark.parametrize("kind", ALL)
def test_every_error_has_a_status_of_http_and_a_code(kind: type[HeddleError]) -> None:
    assert 400 <= kind.status < 600
    assert kind.code
    assert kind.code == kind.code.lower()


def test_no_two_kinds_share_a_code() -> None:
    codes = [kind.code for kind in ALL]
    assert len(set(codes)) == len(codes)
