"""CEL: what parses, what does not, and what an expression looks at. Envoy's own parser agrees."""

from __future__ import annotations

from pathlib import Path

import pytest

from discovery.envoy.render import render
from mesh.istio.cel import CelError, parse_cel
from tests.support import envoy, plans
from tests.support.ports import free_port

GOOD = {
    "response.code >= 400": (("response.code",), 2),
    "request.headers['x'].startsWith('a)') ": (("request.headers",), 2),
    "has(request.headers.x) ? request.headers.x : 'none'": (("request.headers.x",), 0),
    "'a' in request.headers ? 'b' : \"c\"": (("request.headers",), 2),
    "!(response.code == 200) && connection.mtls || false": (("response.code", "connection.mtls"), 2),
    "[1, 2u, 0x1f, 1.5e3][0] == -1 // a comment": ((), 2),
    "{'a': 1, 'b': 2}.size() % 2": ((), 0),
    "request.path": (("request.path",), 0),
    "request.host.endsWith('a') ? (request.method == 'GET' ? 'x' : 'y'):'z'": (("request.host", "request.method"), 3),
    r"request.path.matches(r'\d+')": (("request.path",), 2),
    "re.extract(request.path, 'a', 'b')": (("request.path",), 0),
    "request.time.getHours('UTC') < 6 && matches(request.path, 'a')": (("request.time", "request.path"), 2),
    "int(request.headers['x']) + size(request.path)": (("request.headers", "request.path"), 0),
}
BAD = {
    "": ("ends too early", 1),
    "response.code >=": ("ends too early", 17),
    "request.size(": ("ends too early", 14),
    "request.": ("a name is missing", 9),
    "request.headers['x": ("does not end", 17),
    "response.code @ 1": ("no part of an expression", 15),
    "a b": ("does not belong here", 3),
    "(a": ("')' is missing", 3),
    "a ? b": ("':' is missing", 6),
    "for + 1": ("reserved", 1),
    "f(request.path)": ("no function f", 1),
    "request.path.lower() == 'a'": ("no function lower", 14),
    "request.path.startsWith('a', 'b')": ("startsWith takes 1", 14),
    "[1].all(x, x > 0)": ("no function all", 5),
    "Foo{a: 1}": ("no message Foo", 5),
    "(" * 100 + "a" + ")" * 100: ("too deeply", 61),
}


@pytest.mark.parametrize("text", GOOD)
def test_parses(text: str) -> None:
    found = parse_cel(text)
    assert (found.attributes, found.few) == GOOD[text]
    assert parse_cel(found.text) == found


@pytest.mark.parametrize("text", BAD)
def test_says_why_not_and_where(text: str) -> None:
    with pytest.raises(CelError) as caught:
        parse_cel(text)
    message, column = BAD[text]
    assert message in caught.value.message
    assert caught.value.column == column


def test_envoy_takes_them_as_filters_and_as_labels(tmp_path: Path) -> None:
    texts = [parse_cel(text).text for text in GOOD]
    plan = plans.plan(
        {
            "outbound": [{"name": "o", "address": "0.0.0.0", "port": 80, "protocol": "http", "route_table": "80"}],
            "route_tables": [{"name": "80", "virtual_hosts": []}],
            "reporting": {
                "client_logs": [{"path": "/dev/null", "expression": text} for text in texts],
                "client_metrics": [
                    {"name": "requests_total", "added": [[f"l{n}", text] for n, text in enumerate(texts)]}
                ],
            },
        }
    )
    bootstrap = envoy.bind_listeners(envoy.static_bootstrap(render(plan)), {"o": [free_port()]})
    envoy.validate(bootstrap, tmp_path)
