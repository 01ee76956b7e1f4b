"""Each rule of each kind refuses the object that breaks it, and says so at the field that is wrong."""

from __future__ import annotations

import pytest

from mesh.kinds import KINDS, parse_istio
from mesh.problems import ObjectErrors
from tests.mesh.refused import CASES, check_golden, objects
from tests.mesh.refused import KINDS as REFUSED


@pytest.mark.parametrize("kind", REFUSED)
def test_one_mistake_is_one_refusal(kind: str) -> None:
    verdicts = {}
    for name, raw in objects(kind):
        with pytest.raises(ObjectErrors) as caught:
            parse_istio(raw)
        assert all(each.hint for each in caught.value.problems), name
        verdicts[name] = "; ".join(str(each) for each in caught.value.problems)
    check_golden(CASES / f"{kind}.out.txt", verdicts)


def test_every_kind_of_istios_has_cases_and_every_file_is_a_case() -> None:
    assert {kind.kind.lower() for kind in KINDS if kind.of_istio} == set(REFUSED)
    expected = {f"{name}{end}" for name in REFUSED for end in (".in.yaml", ".out.txt")}
    assert {file.name for file in CASES.iterdir()} == expected
