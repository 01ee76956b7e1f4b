"""Whether a text is an expression of CEL, and what it looks at: enough to refuse it with a reason before Envoy would.

Syntax and names of functions only, without types. Sources: https://github.com/google/cel-spec/blob/master/doc/langdef.md,
and for the attributes Envoy's page "Attributes".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

ATTRIBUTES = frozenset(
    {
        "connection", "destination", "filter_state", "metadata", "plugin_name", "plugin_root_id", "request", "response",
        "route_metadata", "source", "upstream", "upstream_filter_state", "xds",
    }
)  # fmt: skip
"""What Envoy knows, by the first part of its name."""

_TOKEN = re.compile(
    r"""(?P<space>[ \t\n\f\r]+|//[^\n]*)
    |(?P<text>[bB]?[rR]?(?:'''(?s:.*?)'''|\"\"\"(?s:.*?)\"\"\")|[bB]?[rR](?:'[^'\n]*'|"[^"\n]*")
        |[bB]?(?:'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"))
    |(?P<number>0[xX][0-9a-fA-F]+[uU]?|(?:\d+\.\d+|\.\d+|\d+)(?:[eE][+-]?\d+)?[uU]?)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<sign>&&|\|\||[<>=!]=|[-+*/%<>!?:.,()\[\]{}])""",
    re.VERBOSE,
)
_RESERVED = frozenset(
    {
        "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package",
        "namespace", "return", "var", "void", "while",
    }
)  # fmt: skip
_LITERALS = frozenset({"true", "false", "null"})
_RELATIONS = frozenset({"<", "<=", ">", ">=", "==", "!=", "in"})
_TRUTHS = frozenset({"startsWith", "endsWith", "contains", "matches", "has", "bool"})
_CONVERSIONS = dict.fromkeys(
    ("int", "uint", "double", "bytes", "bool", "dyn", "type", "duration", "timestamp", "has"), (1, 1)
)
_TIMES = dict.fromkeys(
    (
        "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours", "getMilliseconds",
        "getMinutes", "getMonth", "getSeconds",
    ),
    (0, 1),
)  # fmt: skip
_OF_TEXTS = dict.fromkeys(("matches", "contains", "startsWith", "endsWith"), 2)
_FUNCTIONS = {"size": (1, 1), **_CONVERSIONS, **{name: (count, count) for name, count in _OF_TEXTS.items()}}
_METHODS = {"size": (0, 0), **_TIMES, **{name: (count - 1, count - 1) for name, count in _OF_TEXTS.items()}}
"""Least and most arguments. As Envoy 1.40 has them: `string()` and the macros over lists (`all`, `exists`, `map` and
the like) it has not."""
_NAMESPACE, _MESSAGES = "re", "google.protobuf."
_BINARY = (frozenset({"||"}), frozenset({"&&"}), _RELATIONS, frozenset("+-"), frozenset("*/%"))
_DEEPEST = 60


class CelError(ValueError):
    """It does not parse: why, and where (from 1)."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(message)
        self.message, self.column = message, column


class _Token(NamedTuple):
    kind: str
    text: str
    column: int


@dataclass(frozen=True, slots=True)
class Cel:
    """An expression. `attributes`: what it looks at, dotted, such as `request.headers`, in the order of the text."""

    text: str
    """The same expression, spelled so that it can stand between Envoy's `%CEL(` and `)%`."""
    attributes: tuple[str, ...]
    few: int = 0
    """How many values it has, where they are few: 2 for what is true or false; else 0."""


def parse_cel(text: str) -> Cel:
    """CelError when `text` is no expression."""
    parser = _Parser(_tokens(text), len(text) + 1)
    few = parser.expression()
    if parser.next is not None:
        raise CelError(f"{parser.next.text!r} does not belong here", parser.next.column)
    return Cel(_joined(parser.tokens), tuple(dict.fromkeys(parser.attributes)), few)


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            what = "this text does not end" if text[at] in "'\"" else f"{text[at]!r} is no part of an expression"
            raise CelError(what, at + 1)
        if match.lastgroup != "space":
            found.append(_Token(str(match.lastgroup), match.group(), at + 1))
        at = match.end()
    return found


def _joined(tokens: list[_Token]) -> str:
    text, tight = "", True
    for token in tokens:
        sign = token.kind == "sign"
        text += _spelled(token) if tight or (sign and token.text in ".[(),]") else " " + _spelled(token)
        tight = sign and token.text in ".[(!"
    return text


def _spelled(token: _Token) -> str:
    """Envoy looks for the end of its command in the text, quoted or not."""
    raw = token.text[:2].lower().startswith(("r", "br"))
    if token.kind != "text" or ")" not in token.text or raw:
        return token.text
    return token.text.replace(")", "\\x29")


class _Parser:
    """Recursive descent. What rules return: how many values the expression has if they are few, else 0."""

    def __init__(self, tokens: list[_Token], end: int) -> None:
        self.tokens, self._end, self._at, self._depth = tokens, end, 0, 0
        self.attributes: list[str] = []

    @property
    def next(self) -> _Token | None:
        return self.tokens[self._at] if self._at < len(self.tokens) else None

    def expression(self) -> int:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise CelError("it is nested too deeply", self._column())
        few = self._binary(0)
        if self._take("?"):
            one = self._binary(0)
            self._expect(":")
            other = self.expression()
            few = one + other if one and other else 0
        self._depth -= 1
        return few

    def _binary(self, level: int) -> int:
        if level == len(_BINARY):
            return self._unary()
        few = self._binary(level + 1)
        while self.next is not None and self.next.text in _BINARY[level] and self.next.kind != "text":
            self._at += 1
            self._binary(level + 1)
            few = 2 if level <= 2 else 0
        return few

    def _unary(self) -> int:
        negated = False
        while self._take("!") or self._take("-"):
            negated = True
        few = self._member()
        return 2 if negated and few == 2 else few

    def _member(self) -> int:
        few, path = self._primary()
        while True:
            if self._take("."):
                token = self._name()
                if self._take("("):
                    count = self._list(")")
                    if path != _NAMESPACE:
                        _check_call(token, count, _METHODS)
                    few, path = (2 if token.text in _TRUTHS else 0), self._attribute(path)
                elif path:
                    path = f"{path}.{token.text}"
                else:
                    few = 0
            elif self._take("["):
                self.expression()
                self._expect("]")
                few, path = 0, self._attribute(path)
            elif path and self._take("{"):
                if not path.startswith(_MESSAGES):
                    raise CelError(f"there is no message {path}", self._column())
                self._fields()
                path = ""
            else:
                self._attribute(path)
                return few

    def _primary(self) -> tuple[int, str]:
        token = self.next
        if token is None:
            raise CelError("it ends too early", self._end)
        self._at += 1
        if token.kind in ("text", "number") or token.text in _LITERALS:
            return 1, ""
        if token.text == ".":
            token = self._name()
        if token.kind == "name":
            if token.text in _RESERVED or token.text == "in":
                raise CelError(f"{token.text!r} is reserved", token.column)
            if self._take("("):
                _check_call(token, self._list(")"), _FUNCTIONS)
                return (2 if token.text in _TRUTHS else 0), ""
            return 0, token.text
        if token.text == "(":
            few = self.expression()
            self._expect(")")
            return few, ""
        if token.text == "[":
            self._list("]")
            return 0, ""
        if token.text == "{":
            self._fields()
            return 0, ""
        raise CelError(f"{token.text!r} does not belong here", token.column)

    def _attribute(self, path: str) -> str:
        if path and path.partition(".")[0] in ATTRIBUTES:
            self.attributes.append(path)
        return ""

    def _list(self, closing: str) -> int:
        """How many expressions there are before `closing`."""
        count = 0
        while not self._take(closing):
            self.expression()
            count += 1
            if not self._take(","):
                self._expect(closing)
                break
        return count

    def _fields(self) -> None:
        while not self._take("}"):
            self.expression()
            self._expect(":")
            self.expression()
            if not self._take(","):
                self._expect("}")
                return

    def _name(self) -> _Token:
        token = self.next
        if token is None or token.kind != "name":
            raise CelError("a name is missing after the dot", self._column())
        self._at += 1
        return token

    def _take(self, sign: str) -> bool:
        token = self.next
        if token is None or token.kind != "sign" or token.text != sign:
            return False
        self._at += 1
        return True

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise CelError(f"{sign!r} is missing", self._column())

    def _column(self) -> int:
        return self.next.column if self.next is not None else self._end


def _check_call(name: _Token, count: int, known: Mapping[str, tuple[int, int]]) -> None:
    if name.text not in known:
        raise CelError(f"Envoy has no function {name.text} here", name.column)
    least, most = known[name.text]
    if not least <= count <= most:
        says = f"{least}" if least == most else f"{least} or {most}"
        raise CelError(f"{name.text} takes {says} here, and not {count}", name.column)
