"""Specs are untrusted: whatever the text, a reader gives a bounded tree with true places, or a SpecError."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import NoReturn, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowc.errors import LINE_BREAK, Span, SpecError
from flowc.text.limits import INTEGERS, MAX_DEPTH, MAX_NODES
from flowc.text.source import ListNode, MapNode, Node, Scalar, parse, plain, read_spec

SPEC = """\
# yaml-language-server: $schema=flowc.schema.json
flowc: 1
name: "tiny \\u00e9"
model: &m {hidden: 576, heads: 9, norm_eps: 1e-5, eos: [2, 0x1F]}
weights: {random: 7}
flow:
  - embed: {weight: model.embed_tokens.weight}
  - repeat:
      count: $layers
      body:
        - llama_decoder: {prefix: "model.layers.{i}", heads: $heads, tied: true}
        - *m
  - gather_last_token
doc: |
  two
   lines
note: >-
  folded
  'text'
"""
JSON_SPEC = json.dumps(
    {"flowc": 1, "model": {"eps": 1e-5, "eos": [2, None, True]}, "flow": ["a\n\u00e9\U0001f600", {}]}
)

PIECES = (
    *(
        "\n",
        "\n  ",
        "\n- ",
        "\n---\n",
        "\n...\n",
        "\t",
        " ",
        "  ",
        "\r",
        "\r\n",
        ": ",
        ":",
        "- ",
        "? ",
        ", ",
        "#",
        " # ",
    ),
    *(
        "[",
        "]",
        "{",
        "}",
        "'",
        '"',
        "|",
        ">",
        "|2-",
        ">+\n",
        "&m ",
        "*m",
        "&",
        "*",
        "!",
        "!!str ",
        "!<",
        "%",
        "%YAML 1.2",
    ),
    *(
        "@",
        "`",
        "<<: ",
        "null",
        "~",
        "1e5",
        "-",
        "0x",
        ".inf",
        "9" * 400,
        "\\",
        "\\u",
        "\\U00110000",
        "\\ud83d",
        "é",
        "😀",
    ),
    *("\ufeff", "\x85", "\u2028", "\x00", "\x1b", "\ud800", "[" * 70, "- " * 70, "//", "NaN", "Infinity", "1.", "01"),
)


@st.composite
def mutations(draw: st.DrawFn, text: str) -> str:
    """The text after a few cuts, copies and insertions."""
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 30)))
        match draw(st.integers(0, 3)):
            case 0:
                text = text[:start] + text[end:]
            case 1:
                text = text[:end] + text[start:end] * draw(st.integers(1, 3)) + text[end:]
            case 2:
                text = text[:start] + draw(st.sampled_from(PIECES)) + text[start:]
            case _:
                text = text[:start] + draw(st.sampled_from(PIECES)) + text[end:]
    return text


TEXTS = (
    st.text()
    | st.text(alphabet="ab1.: -?[]{},'\"|>&*!#%@\\\n\t\r", max_size=60)
    | st.lists(st.sampled_from(PIECES), max_size=30).map("".join)
    | mutations(SPEC)
    | mutations(JSON_SPEC)
)


def check_tree(node: Node, outer: Span, depth: int = 1) -> int:
    """Assert what every accepted tree keeps, and count its nodes."""
    source, span = outer.source, node.span
    lines = LINE_BREAK.split(source.text)
    for line, column in ((span.line, span.column), (span.end_line, span.end_column)):
        assert 1 <= line <= len(lines)
        assert 1 <= column <= len(lines[line - 1]) + 1
    assert (span.line, span.column) <= (span.end_line, span.end_column)
    match node:
        case Scalar():
            assert not isinstance(node.value, str) or node.value.encode() is not None
            return 1
        case ListNode():
            assert depth <= MAX_DEPTH
            return 1 + sum(check_tree(item, span, depth + 1) for item in node.items)
        case MapNode():
            assert depth <= MAX_DEPTH
            assert len(set(node.keys())) == len(node.entries)
            children = [child for entry in node.entries for child in (entry.key, entry.value)]
            return 1 + sum(check_tree(child, span, depth + 1) for child in children)


def outcome(read: Callable[[], Node]) -> Node | SpecError:
    try:
        return read()
    except SpecError as error:
        return error


def check_reading(text: str, *, as_json: bool) -> None:
    found = outcome(lambda: parse(text, "s", json=as_json))
    if not isinstance(found, SpecError):
        assert check_tree(found, found.span) <= MAX_NODES
        plain(found)
        return
    assert str(found).encode()
    lines = LINE_BREAK.split(text.removeprefix("\ufeff"))
    for diagnostic in found.diagnostics:
        if diagnostic.span:
            assert 1 <= diagnostic.span.line <= len(lines)
            assert 1 <= diagnostic.span.column <= len(lines[diagnostic.span.line - 1]) + 1


@pytest.mark.parametrize("as_json", [False, True], ids=["yaml", "json"])
@given(text=TEXTS)
@settings(max_examples=400)
def test_any_text_is_read_or_refused(text: str, as_json: bool) -> None:
    check_reading(text, as_json=as_json)


@pytest.mark.slow
@pytest.mark.parametrize("as_json", [False, True], ids=["yaml", "json"])
@given(text=TEXTS)
@settings(max_examples=50_000)
def test_very_many_texts_are_read_or_refused(text: str, as_json: bool) -> None:
    check_reading(text, as_json=as_json)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    for name in ("s.yaml", "s.json"):
        path = tmp_path_factory.getbasetemp() / name
        path.write_bytes(data)
        assert str(outcome(lambda path=path: read_spec(path))).encode()


CHARACTERS = st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufeff\ufffe\uffff") | st.sampled_from(
    "\t\n\r"
)
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
VALUES: st.SearchStrategy[Json] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(INTEGERS.start, INTEGERS.stop - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(CHARACTERS, max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(CHARACTERS, max_size=8), inner, max_size=5),
    max_leaves=25,
)


def same(found: object, wanted: object) -> bool:
    """Equal in value and type, -0.0 and 0.0 told apart."""
    if isinstance(wanted, float) and isinstance(found, float):
        return found == wanted and math.copysign(1, found) == math.copysign(1, wanted)
    return type(found) is type(wanted) and json.dumps(found) == json.dumps(wanted)


@given(value=VALUES, ascii_only=st.booleans(), indent=st.none() | st.integers(0, 3) | st.just("\t"))
def test_json_agrees_with_the_standard_library(value: object, ascii_only: bool, indent: int | str | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert same(plain(parse(text, "s.json", json=True)), json.loads(text))


@given(text=mutations(JSON_SPEC) | st.text(alphabet='{}[],:" 0129.-+eEtrufalsn\\/\n', max_size=15))
@settings(max_examples=400)
def test_json_accepts_what_the_standard_library_accepts(text: str) -> None:
    found = outcome(lambda: parse(text, "s.json", json=True))
    try:
        wanted = json.loads(text, parse_constant=refuse, object_pairs_hook=once)
    except (ValueError, RecursionError):
        assert isinstance(found, SpecError)
        return
    if isinstance(found, SpecError):  # what flowc refuses beyond the grammar
        assert {d.code for d in found.diagnostics} <= {"number", "encoding", "too-deep"}
    else:
        assert same(plain(found), wanted)


def refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    return dict(pairs) if len(dict(pairs)) == len(pairs) else refuse("a key given twice")


@given(value=VALUES)
def test_json_read_as_yaml_is_the_same(value: object) -> None:
    text = json.dumps(value)
    assert same(plain(parse(text, "s.yaml")), json.loads(text))


def block(value: Json, indent: str = "") -> str:
    """The value in block style, its texts in JSON's quotes."""
    if isinstance(value, list) and value:
        return "".join(f"\n{indent}-{below(item, indent)}" for item in value)
    if isinstance(value, dict) and value:
        return "".join(f"\n{indent}{json.dumps(key)}:{below(item, indent)}" for key, item in value.items())
    return " " + json.dumps(value)


def below(value: Json, indent: str) -> str:
    return block(value, indent + "  ")


@given(value=VALUES)
def test_block_style_says_the_same_as_flow_style(value: Json) -> None:
    assert same(plain(parse(block(value), "s.yaml")), value)
