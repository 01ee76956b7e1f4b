"""Reading manifests: what kubectl reads, with places, and a clear error for everything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mesh.manifest import Document, ManifestErrors, documents, read_manifest
from mesh.problems import Path, spell
from mesh.yaml_values import DEEPEST, Unreadable, load

HEAD = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"


def one(text: str) -> Document:
    (document,) = documents(text, "file.yaml")
    return document


def error_of(text: str) -> str:
    with pytest.raises(ManifestErrors) as caught:
        documents(text, "file.yaml")
    (problem,) = caught.value.problems
    return str(problem)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("on", True), ("yes", True), ("Off", False), ("y", "y"), ("~", None), ("", None), ("null", None)),
        *(("5", 5), ("-5", -5), ("0755", 493), ("0x1F", 31), ("0b11", 3), ("1_000", 1000), ("0o17", "0o17")),
        *(("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), ("1.", 1.0), (".inf", ".inf"), (".nan", ".nan")),
        *(("80:80", "80:80"), ("12:30:45", "12:30:45"), ("2026-01-02", "2026-01-02"), ("1.2.3", "1.2.3"), ("=", "=")),
        *(('"5"', "5"), ("'on'", "on"), ("!!str 5", "5"), ('!!int "5"', 5), ("9" * 30, int("9" * 30))),
    ],
)
def test_scalars_are_those_of_kubectl(text: str, value: object) -> None:
    found = load(f"field: {text}\n")["field"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_text() -> None:
    assert load("8080: a\ntrue: b\n1.5: c\nnull: d\n") == {"8080": "a", "true": "b", "1.5": "c", "null": "d"}


def test_aliases_and_merges() -> None:
    text = "base: &base {a: 1, b: 2}\nmore: &more {b: 3, c: 4}\nx: {<<: [*base, *more], a: 9}\ny: [*base, *base]\n"
    found = load(text)
    assert found["x"] == {"a": 9, "b": 2, "c": 4}
    assert found["y"] == [{"a": 1, "b": 2}] * 2


def test_documents_have_their_places() -> None:
    text = f"# comment\n\n{HEAD}---\n# only a comment\n---\n\n{HEAD}data:\n  key: value\n  list: [a,\n    b]\n"
    first, second = documents(text, "file.yaml")
    assert (first.index, first.line, second.index, second.line) == (0, 3, 1, 10)
    places: dict[Path, int] = {
        ("data", "key"): 14,
        ("data", "list", 0): 15,
        ("data", "list", 1): 16,
        ("data", "list", 7): 15,
        ("data", "nowhere", "at all"): 13,
        ("nowhere",): 10,
    }
    assert {path: second.line_of(path) for path in places} == places


def test_lists_are_opened_and_keep_their_places() -> None:
    text = "apiVersion: v1\nkind: List\nitems:\n- " + HEAD.replace("\n", "\n  ")
    text += "\n- apiVersion: x.istio.io/v1\n  kind: FooList\n  items:\n"
    text += "  - {apiVersion: v1, kind: Foo, metadata: {name: b}}\n"
    first, second = documents(text, "file.yaml")
    assert (first.name, first.within, first.line, first.line_of(("metadata", "name"))) == ("a", ("items", 0), 4, 6)
    assert (second.name, spell(second.within), second.line) == ("b", "items[1].items[0]", 11)


def test_json_with_tabs_and_several_values() -> None:
    text = '{"apiVersion": "v1",\n\t"kind": "A", "metadata": {"name": "x"}}\n'
    text += '{"apiVersion": "v1", "kind": "A", "metadata": {"name": "y"}}'
    first, second = documents(text, "file.json")
    assert (first.name, second.name, second.line) == ("x", "y", 3)


def test_a_generated_name_is_a_name() -> None:
    assert one("apiVersion: batch/v1\nkind: Job\nmetadata: {generateName: load-}\n").name == "load-*"


def test_windows_line_ends_and_byte_order_mark() -> None:
    document = one("\ufeff" + (HEAD + "data: {a: b}\n").replace("\n", "\r\n"))
    assert document.raw["data"] == {"a": "b"}
    assert document.line_of(("data", "a")) == 4


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (HEAD + "data: {a: 1, a: 2}\n", "file.yaml:4: the key 'a' stands twice in one mapping (keep one of the two)"),
        ("a:\n\tb: 1\n", "file.yaml:2: a tab stands where YAML wants spaces (indent with spaces)"),
        (
            "- a\n",
            "file.yaml:1: an object is expected here, and this is a list (begin with apiVersion, kind and metadata)",
        ),
        ("apiVersion: v1\nkind: 5\n", "file.yaml:2: kind is 5 (write a name, such as kind: VirtualService)"),
        (
            "apiVersion: v1\nkind: A\nmetadata:\n  labels: {}\n",
            "file.yaml:3: A: the object has no name (add metadata.name)",
        ),
        (HEAD.replace("name: a", "name: 1"), "file.yaml:3: A: metadata.name is 1, not text (put it in quotes)"),
        ("a: &x [*x]\n", "file.yaml:1: an alias contains itself (write the value out)"),
        ("a: *x\n", "file.yaml:1: this is not YAML: found undefined alias"),
        ("a: \x07\n", "file.yaml:1: this is not YAML: control characters are not allowed"),
        ("\ud800", "file.yaml:1: the text has characters that YAML does not allow"),
        ('{"a": 1, "a": 2}', "file.yaml:1: the key 'a' stands twice in one mapping (keep one of the two)"),
    ],
)
def test_errors_say_where_and_what_and_the_way_out(text: str, error: str) -> None:
    assert error_of(text.replace("ConfigMap", "A")).startswith(error)


def test_one_broken_document_hides_nothing_in_the_others() -> None:
    manifest = read_manifest(f"{HEAD}---\na: [\n---\n{HEAD}---\nb: 1\nb: 2\n", "file.yaml")
    assert [document.line for document in manifest.documents] == [1, 7]
    assert [problem.line for problem in manifest.problems] == [6, 12]


def test_files_of_other_programs_are_marked() -> None:
    (problem,) = read_manifest("images: {a: b}\n", "images.yaml").problems
    assert problem.foreign
    (problem,) = read_manifest("kind: A\n", "a.yaml").problems
    assert not problem.foreign


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "[\n", '{"a":', '[{"a":'])
@pytest.mark.parametrize("levels", [DEEPEST + 1, 100_000])
def test_deep_nesting_is_an_error_and_not_a_crash(opening: str, levels: int) -> None:
    (problem, *_) = read_manifest(opening * levels, "deep.yaml").problems
    assert problem.message


def test_a_small_text_cannot_become_a_huge_value() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 9)]
    with pytest.raises(Unreadable, match="more than 1000000 values"):
        load("\n".join(rows))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text(st.characters(codec="ascii", categories=["L", "N", "P"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc/.-", min_size=1, max_size=5), inner, max_size=3)
    ),
    max_leaves=15,
)


@given(value=json_values, flow=st.booleans())
def test_what_yaml_writers_write_is_read_as_it_was(value: Any, flow: bool) -> None:
    raw = {"apiVersion": "v1", "kind": "A", "metadata": {"name": "a"}, "data": value}
    assert one(json.dumps(raw)).raw == raw
    assert one(yaml.safe_dump(raw, default_flow_style=flow)).raw == raw


@given(st.text(alphabet="ab:-[]{}\"'&*!|>%#@`,?\n \t0\u00e9\u2028\ufeff", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    manifest = read_manifest(text, "file.yaml")
    lines = sum(map(text.count, "\n\u2028")) + 1  # both break lines in YAML 1.1
    assert all(1 <= problem.line <= lines + 1 for problem in manifest.problems)
