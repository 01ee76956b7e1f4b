"""Envoy's format of logs and tags: what is taken here, a real Envoy takes, and what is refused here, it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mesh.substitution import COMMANDS, format_errors
from tests.support import envoy

ARGUMENTS = {
    "CEL": "request.path",
    "TYPED_CEL": "request.path",
    "METADATA": "ROUTE:a:b",
    "COMMON_DURATION": "DS_RX_BEG:US_RX_END:ms",
    "COALESCE": '{"operators": ["REQUESTED_SERVER_NAME"]}',
    "GRPC_STATUS": "NUMBER",
    "REQUESTED_SERVER_NAME": "SNI_FIRST:HOST",
    "PATH": "NQ:ORIG",
    "QUERY_PARAMS": "DECODED",
    "FILTER_STATE": "a:FIELD:b",
}
GOOD = (
    "",
    "100%% of %%REQ%%",
    "%START_TIME(%Y/%m/%dT%H:%M:%S.%3f)%",
    "%REQ(X-A?:PATH):20% %RESP(b)%",
    "%REQ(?b)%",
    "%PROTOCOL()%",
    "%CEL(request.headers['a)']):3%",
)
BAD = {
    "%NO_SUCH_COMMAND%": "no command %NO_SUCH_COMMAND%",
    "a %RESPONSE_CODES%": "no command %RESPONSE_CODES% (column 3)",
    "100% of": "what begins with '% of' (column 4)",
    "%REQ(x": "what begins with '%REQ(x'",
    "%PROTOCOL%%": "what begins with '%' (column 11)",
    "%req(x)%": "what begins with '%req(x)%'",
    "%REQ(x):a%": "what begins with '%REQ(x):a%'",
    "%REQ%": "%REQ% needs an argument",
    "%REQ()%": "%REQ% needs an argument",
    "%REQ(a?b?c)%": "more than one other header",
    "%REQ(A B)%": "'A B' is not the name of a header",
    "%REQ(a:b)%": "'a:b' is not the name of a header",
    "%TRACE_ID(x)%": "%TRACE_ID% takes no argument",
    "%DURATION:3%": "%DURATION% takes no length",
    "%START_TIME(%n)%": "it breaks the line",
    "%FILTER_STATE(a:b)%": "'b' is no way to write it",
    "%GRPC_STATUS(x)%": "'x' is no option",
    "%PATH(NQ:y)%": "'y' is no option",
    "%METADATA(x:a)%": "'x' has no metadata",
    "%COMMON_DURATION(a:b:c)%": "'a:b:c' is no time between two points",
    "%COALESCE(a)%": "'a' is no JSON object",
    "%CEL(a +)%": "'a +' is not an expression of CEL",
    "%CEL(f(a))%": "Envoy has no function f here",
}


def _logging(*texts: str) -> dict[str, Any]:
    type_url = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
    logs = [
        {
            "name": "envoy.access_loggers.file",
            "typed_config": {"@type": type_url, "path": "/dev/null", "log_format": {"json_format": {"a": text}}},
        }
        for text in texts
    ]
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"admin": {"access_log": logs, "address": address}}


def _every_form() -> list[str]:
    """Each command with each of nothing, an argument and a length behind it, as far as it is taken here."""
    forms = []
    for name in sorted(COMMANDS):
        argument = ARGUMENTS.get(name, "a")
        forms += [f"%{name}%", f"%{name}({argument})%", f"%{name}:5%", f"%{name}({argument}):5%"]
    return [text for text in forms if not list(format_errors(text))]


def test_envoy_takes_what_is_taken_here(tmp_path: Path) -> None:
    texts = [*GOOD, *_every_form()]
    assert len(texts) > len(COMMANDS)
    assert not [error for text in texts for error in format_errors(text)]
    envoy.validate(_logging(*texts), tmp_path)


@pytest.mark.parametrize("text", BAD)
def test_envoy_refuses_what_is_refused_here(text: str, tmp_path: Path) -> None:
    first, *_ = format_errors(text)
    assert BAD[text] in first.message
    assert first.hint
    with pytest.raises(AssertionError, match="error initializing configuration"):
        envoy.validate(_logging(text), tmp_path)


def test_all_errors_come_at_once_and_a_near_name_is_proposed() -> None:
    found = list(format_errors("%RESPONSE_CODES% %REQ% 5 %"))
    assert [error.message.split("(column ")[1].split(")")[0] for error in found] == ["1", "18", "26"]
    assert found[0].hint == "did you mean %RESPONSE_CODE%?"
