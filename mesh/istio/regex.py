"""Whether an expression compiles under RE2, which Envoy matches with (https://github.com/google/re2/wiki/Syntax).

RE2 is no subset of Python's `re` and no superset: it has no look-around, back-references or possessive repeats, but
`(?i)` in the middle, `\\pL`, `\\Q..\\E` and `\\z`. So the syntax is read here, once, without compiling anything.
"""

from __future__ import annotations

import re
import sys

LARGEST_REPEAT = 1000
MOST_ASCII = 127
DEEPEST = 1000

_FLAGS = re.compile(r"\(\?([imsU]*)(-[imsU]+)?([:)])")
_NAMED = re.compile(r"\(\?(?:P<|<)([^>]*)>")
_REPEAT = re.compile(r"\{([0-9]+)(?:(,)([0-9]*))?\}")
_CLASS_NAME = re.compile(r"\[:\^?([a-z]*):\]")
_POSIX = frozenset(
    "alnum alpha ascii blank cntrl digit graph lower print punct space upper word xdigit".split()  # noqa: SIM905
)
_LETTERS = frozenset("bzABDSWdswC")
_LETTERS_IN_CLASS = frozenset("DSWdsw")
_CONTROL = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_HEX = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,6})\})")
_PROPERTY = re.compile(r"[pP](?:[CLMNPSZ]|\{\^?[A-Za-z_]+\})")
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
    position = 0
    outer: list[int] = []  # for each open group: how often what stands before it in its group repeats at most
    most = 1  # in this group
    last = 0  # how often what stands right before repeats at most; 0: nothing stands there
    while position < len(pattern):
        char = pattern[position]
        if char == "(":
            position, opened = _open(pattern, position)
            if opened:
                outer.append(most)
                most, last = 1, 0
            if len(outer) > DEEPEST:
                raise _Refused(f"groups are nested more than {DEEPEST} deep")
        elif char == ")":
            if not outer:
                raise _Refused("a ) has no (")
            position, last = position + 1, most
            most = max(outer.pop(), last)
        elif char == "|":
            position, last = position + 1, 0
        elif char in "*+?" or (char == "{" and _REPEAT.match(pattern, position)):
            if not last:
                raise _Refused(f"nothing stands before {char}")
            position, times = _repeat(pattern, position)
            last *= times
            if last > LARGEST_REPEAT:
                raise _Refused(f"it repeats more than {LARGEST_REPEAT} times")
            most = max(most, last)
            if position < len(pattern) and (pattern[position] in "*+?" or _REPEAT.match(pattern, position)):
                raise _Refused("a repeat is repeated, which RE2 does not have")
        elif pattern.startswith("\\Q", position):
            end = pattern.find("\\E", position)
            quoted = pattern[position + 2 : end if end >= 0 else None]
            position, last = (end + 2 if end >= 0 else len(pattern)), (1 if quoted else last)
        else:
            position, last = _atom(pattern, position), 1
    if outer:
        raise _Refused("a ( has no )")


def _atom(pattern: str, position: int) -> int:
    """Where the character, escape or class that begins here ends."""
    if pattern[position] == "[":
        return _class(pattern, position)
    if pattern[position] == "\\":
        return _escape(pattern, position + 1, in_class=False)[1]
    return position + 1


def _open(pattern: str, position: int) -> tuple[int, int]:
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
        return named.end(), 1
    raise _Refused(f"RE2 has no group {pattern[position : position + 4]}...)")


def _repeat(pattern: str, position: int) -> tuple[int, int]:
    """Where the repeat ends, and how often it makes RE2 copy what it repeats."""
    times = 1
    if counted := _REPEAT.match(pattern, position):
        low = int(counted[1])
        high = int(counted[3]) if counted[3] else low
        if high < low:
            raise _Refused(f"{counted[0]} ends before it begins")
        position, times = counted.end(), max(1, high)
    else:
        position += 1
    return (position + 1 if pattern.startswith("?", position) else position), times  # with ?: the lazy form


def _escape(pattern: str, position: int, *, in_class: bool) -> tuple[int, int]:
    """The character that the escape after the backslash stands for (-1: several or none), and where it ends."""
    if position >= len(pattern):
        raise _Refused("it ends in a backslash")
    char = pattern[position]
    if octal := _OCTAL.match(pattern, position):
        return int(octal[0], 8), octal.end()
    if char.isdigit():
        raise _Refused(f"RE2 has no back-reference \\{char}")
    if char == "x":
        code = _HEX.match(pattern, position)
        number = int(code[1] or code[2], 16) if code else 0
        if not code or number > sys.maxunicode:
            raise _Refused("\\x wants two hexadecimal digits, or up to six in braces")
        return number, code.end()
    if char in "pP":
        named = _PROPERTY.match(pattern, position)
        if not named:
            raise _Refused(f"\\{char} wants the name of a character class, such as \\pL or \\p{{Greek}}")
        return -1, named.end()
    if char in _CONTROL:
        return _CONTROL[char], position + 1
    if char.isalpha() and char not in (_LETTERS_IN_CLASS if in_class else _LETTERS):
        raise _Refused(f"RE2 has no \\{char}")
    if ord(char) > MOST_ASCII:
        raise _Refused(f"RE2 has no \\{char}")
    return (-1 if char.isalpha() else ord(char)), position + 1


def _class(pattern: str, start: int) -> int:
    """Where the character class that begins at `start` ends."""
    position = start + 2 if pattern.startswith("[^", start) else start + 1
    first = True
    while position < len(pattern) and (first or pattern[position] != "]"):
        first = False
        if named := _CLASS_NAME.match(pattern, position):
            if named[1] not in _POSIX:
                raise _Refused(f"there is no character class {named[0]}")
            position = named.end()
            continue
        begin = position
        low, position = _class_member(pattern, position)
        if low >= 0 and pattern.startswith("-", position) and not pattern.startswith("]", position + 1):
            if position + 1 >= len(pattern):
                raise _Refused("a [ has no ]")
            high, position = _class_member(pattern, position + 1)
            if high < low:
                raise _Refused(f"the range {pattern[begin:position]} is backwards")
    if position >= len(pattern):
        raise _Refused("a [ has no ]")
    return position + 1


def _class_member(pattern: str, position: int) -> tuple[int, int]:
    """The character (-1: several) that a member of a class stands for, and where it ends."""
    if pattern[position] == "\\":
        return _escape(pattern, position + 1, in_class=True)
    return ord(pattern[position]), position + 1
