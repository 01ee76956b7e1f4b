"""Whether an expression compiles under RE2, which Envoy matches with (https://github.com/google/re2/wiki/Syntax).

RE2 is no subset of Python's `re` and no superset: it has no look-around, back-references or possessive repeats, but
`(?i)` in the middle, `\\pL`, `\\Q..\\E` and `\\z`. So the syntax is read here, once, without compiling anything.
"""

from __future__ import annotations

import re

LARGEST_REPEAT = 1000
DEEPEST = 1000

_FLAGS = re.compile(r"\(\?([imsU]*)(-[imsU]+)?([:)])")
_NAMED = re.compile(r"\(\?(?:P<|<)([^>]*)>")
_REPEAT = re.compile(r"\{([0-9]+)(?:(,)([0-9]*))?\}")
_CLASS_NAME = re.compile(r"\[:\^?([a-z]*):\]")
_POSIX = frozenset(
    "alnum alpha ascii blank cntrl digit graph lower print punct space upper word xdigit".split()  # noqa: SIM905
)
_LETTERS = frozenset("abefnrtvzABDQSWdswCEpPx")
_LETTERS_IN_CLASS = frozenset("afnrtvDSWdswpPx")
_HEX = re.compile(r"x(?:[0-9A-Fa-f]{2}|\{([0-9A-Fa-f]{1,6})\})")
_PROPERTY = re.compile(r"[pP](?:[A-Za-z]|\{\^?[A-Za-z_]+\})")
_OCTAL = re.compile(r"0[0-7]{0,2}|[1-7][0-7]{1,2}")


class _Refused(Exception):
    """Why RE2 refuses; caught in `regex_error`."""


def regex_error(pattern: str) -> str:
    """Why RE2 would refuse `pattern`; "" when it would not."""
    try:
        _read(pattern)
    except _Refused as refused:
        return str(refused)
    return ""


def _read(pattern: str) -> None:
    depth = 0
    position = 0
    names: set[str] = set()
    repeatable = False  # whether something stands before this place that a repeat can apply to
    while position < len(pattern):
        char = pattern[position]
        if char == "(":
            position, opened = _open(pattern, position, names)
            depth += opened
            if depth > DEEPEST:
                raise _Refused(f"groups are nested more than {DEEPEST} deep")
            repeatable = False
        elif char == ")":
            depth -= 1
            if depth < 0:
                raise _Refused("a ) has no (")
            position, repeatable = position + 1, True
        elif char == "[":
            position, repeatable = _class(pattern, position), True
        elif char == "|":
            position, repeatable = position + 1, False
        elif char in "*+?" or (char == "{" and _REPEAT.match(pattern, position)):
            if not repeatable:
                raise _Refused(f"nothing stands before {char}")
            position = _repeat(pattern, position)
            if position < len(pattern) and (pattern[position] in "*+?" or _REPEAT.match(pattern, position)):
                raise _Refused("a repeat is repeated, which RE2 does not have")
        elif char == "\\":
            position, repeatable = _escape(pattern, position + 1, in_class=False), True
        else:
            position, repeatable = position + 1, True
    if depth:
        raise _Refused("a ( has no )")


def _open(pattern: str, position: int, names: set[str]) -> tuple[int, int]:
    """Where the group's content begins, and whether a group was opened (`(?i)` opens none)."""
    if not pattern.startswith("(?", position):
        return position + 1, 1
    if flags := _FLAGS.match(pattern, position):
        return flags.end(), int(flags[3] == ":")
    for start, what in (("(?=", "look-ahead"), ("(?!", "look-ahead"), ("(?<=", "look-behind"), ("(?<!", "look-behind")):
        if pattern.startswith(start, position):
            raise _Refused(f"RE2 has no {what} {start}...)")
    if named := _NAMED.match(pattern, position):
        if not re.fullmatch(r"\w+", named[1]):
            raise _Refused(f"{named[1]!r} is not a group name")
        if named[1] in names:
            raise _Refused(f"two groups are named {named[1]!r}")
        names.add(named[1])
        return named.end(), 1
    raise _Refused(f"RE2 has no group {pattern[position : position + 4]}...)")


def _repeat(pattern: str, position: int) -> int:
    if counted := _REPEAT.match(pattern, position):
        low = int(counted[1])
        high = int(counted[3]) if counted[3] else low
        if max(low, high) > LARGEST_REPEAT:
            raise _Refused(f"{counted[0]} repeats more than {LARGEST_REPEAT} times")
        if high < low:
            raise _Refused(f"{counted[0]} ends before it begins")
        position = counted.end()
    else:
        position += 1
    return position + 1 if pattern.startswith("?", position) else position  # the lazy form


def _escape(pattern: str, position: int, *, in_class: bool) -> int:
    """Where the escape that begins at `position`, after its backslash, ends."""
    if position >= len(pattern):
        raise _Refused("it ends in a backslash")
    char = pattern[position]
    if char == "Q" and not in_class:
        end = pattern.find("\\E", position)
        return len(pattern) if end < 0 else end + 2
    if octal := _OCTAL.match(pattern, position):
        return octal.end()
    if char.isdigit():
        raise _Refused(f"RE2 has no back-reference \\{char}")
    if char == "x":
        code = _HEX.match(pattern, position)
        if not code or (code[1] and int(code[1], 16) > 0x10FFFF):
            raise _Refused("\\x wants two hexadecimal digits, or up to six in braces")
        return code.end()
    if char in "pP":
        named = _PROPERTY.match(pattern, position)
        if not named:
            raise _Refused(f"\\{char} wants the name of a character class")
        return named.end()
    if char.isalpha() and char.isascii() and char not in (_LETTERS_IN_CLASS if in_class else _LETTERS):
        raise _Refused(f"RE2 has no \\{char}")
    return position + 1


def _class(pattern: str, start: int) -> int:
    """Where the character class that begins at `start` ends."""
    position = start + 1
    if pattern.startswith("^", position):
        position += 1
    first = True
    while position < len(pattern) and (first or pattern[position] != "]"):
        first = False
        named = _CLASS_NAME.match(pattern, position)
        if named:
            if named[1] not in _POSIX:
                raise _Refused(f"there is no character class {named[0]}")
            position = named.end()
            continue
        low, position = _class_member(pattern, position)
        if pattern.startswith("-", position) and position + 1 < len(pattern) and pattern[position + 1] != "]":
            high, position = _class_member(pattern, position + 1)
            if low and high and high < low:
                raise _Refused(f"the range {low}-{high} is backwards")
    if position >= len(pattern):
        raise _Refused("a [ has no ]")
    return position + 1


def _class_member(pattern: str, position: int) -> tuple[str, int]:
    """One character of a class ("" when it is an escape), and where it ends."""
    if pattern[position] == "\\":
        return "", _escape(pattern, position + 1, in_class=True)
    return pattern[position], position + 1
