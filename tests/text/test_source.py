"""How text becomes nodes: values by the YAML 1.2 core schema, places, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from flowc.errors import Span, SpecError
from flowc.text.limits import MAX_BYTES, MAX_DEPTH, MAX_NODES
from flowc.text.source import ListNode, MapNode, Node, Scalar, parse, plain, read_spec

# YAML 1.2.2, section 10.3.2 (core schema), by hand
SCALARS: list[tuple[str, object]] = [
    *((text, None) for text in ("null", "Null", "NULL", "~", "")),
    *((text, True) for text in ("true", "True", "TRUE")),
    *((text, False) for text in ("false", "False", "FALSE")),
    *((text, text) for text in ("nULL", "tRUE", "yes", "no", "on", "off", "y", "n", "Yes", "NO")),
    ("0", 0),
    ("-0", 0),
    ("12", 12),
    ("+12", 12),
    ("-12", -12),
    ("012", 12),
    ("08", 8),
    ("0o17", 15),
    ("0x1F", 31),
    ("0xff", 255),
    ("18446744073709551615", 2**64 - 1),
    ("-9223372036854775808", -(2**63)),
    ("1.5", 1.5),
    ("1.", 1.0),
    (".5", 0.5),
    ("-.5", -0.5),
    ("+1.5", 1.5),
    ("1e-5", 1e-5),
    ("1E6", 1e6),
    ("1e+06", 1e6),
    ("1.5e3", 1500.0),
    ("01.5", 1.5),
    ("0e0", 0.0),
    ("5e-324", 5e-324),
    (".inf", math.inf),
    ("+.Inf", math.inf),
    ("-.INF", -math.inf),
    *((text, text) for text in ("0o18", "0O17", "0b101", "-0x1F", "+0o7", "0X1F", "0x", "1_000", "1,000", "12:30")),
    *((text, text) for text in ("1e", "e5", ".", "..", "+", ".e5", "1e5.0", "1.2.3", "inf", "nan", ".iNF", "-.nan")),
    *((text, text) for text in ("2024-01-01", "=", "$heads", "a{i}", "١٢", "1e५", "1 2", "<", "x<<")),
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_plain_scalars_follow_the_core_schema(text: str, value: object) -> None:
    for spec in (text, f"- {text}\n", f"k: {text}\n"):
        node = parse(spec, "s.yaml")
        if isinstance(node, ListNode):
            node = node.items[0]
        elif isinstance(node, MapNode):
            node = node.entries[0].value
        assert isinstance(node, Scalar)
        assert (type(node.value), node.value, node.quoted) == (type(value), value, False)


def test_not_a_number_is_read_as_one() -> None:
    for text in (".nan", ".NaN", ".NAN"):
        value = plain(parse(text, "s.yaml"))
        assert isinstance(value, float)
        assert math.isnan(value)


@pytest.mark.parametrize("text", ["12", "1e-5", "true", "null", "~", ".inf", ""])
def test_quoted_and_block_texts_are_never_numbers(text: str) -> None:
    styles = [f"'{text}'", f'"{text}"'] + ([f"|-\n  {text}\n", f">-\n  {text}\n"] if text else [])
    for style in styles:
        node = parse(f"k: {style}", "s.yaml")
        assert isinstance(node, MapNode)
        value = node.get("k")
        assert isinstance(value, Scalar)
        assert (value.value, value.quoted) == (text, True)


def test_a_question_mark_may_begin_a_text() -> None:
    assert plain(parse("?a: ?b", "s.yaml")) == {"?a": "?b"}


def test_a_quoted_merge_key_is_a_text() -> None:
    assert plain(parse("'<<': 1", "s.yaml")) == {"<<": 1}


def test_texts_fold_and_escape() -> None:
    text = (
        "plain: one\n  two\n\n  three\nsingle: 'it''s'\n"
        'double: "tab\\t \\x41 \\u00e9 \\U0001F600 \\ud83d\\ude00 \\/ a\\\n  b"\n'
        "literal: |\n  x\n   y\n\nfolded: >-\n  x\n  y\nkeep: |+\n  x\n\n"
    )
    assert plain(parse(text, "s.yaml")) == {
        "plain": "one two\nthree",
        "single": "it's",
        "double": "tab\t A é 😀 😀 / ab",
        "literal": "x\n y\n",
        "folded": "x y",
        "keep": "x\n\n",
    }


def test_a_text_without_a_document_is_null() -> None:
    for text in ("", "\n\n", "# only a comment\n"):
        assert plain(parse(text, "s.yaml")) is None


def test_aliases_share_the_anchored_node() -> None:
    node = parse("a: &x {k: [1, 2]}\nb: *x\nc: &x 3\nd: [*x, *x]\n", "s.yaml")
    assert plain(node) == {"a": {"k": [1, 2]}, "b": {"k": [1, 2]}, "c": 3, "d": [3, 3]}
    assert isinstance(node, MapNode)
    assert node.get("a") is node.get("b")


def test_maps_answer_by_key_and_keep_their_order() -> None:
    node = parse("{b: 1, a: 2, 'no': 3}", "s.yaml")
    assert isinstance(node, MapNode)
    assert node.keys() == ("b", "a", "no")
    assert node.get("c") is None
    assert node.entry("c") is None
    entry = node.entry("a")
    assert entry is not None
    assert (entry.name, entry.key.span.column, plain(entry.value)) == ("a", 8, 2)


def places(node: Node) -> list[tuple[str, str]]:
    """Kind and `line:column-line:column` of every node, in the order of the text."""
    match node:
        case Scalar():
            return [(repr(node.value), place(node.span))]
        case ListNode():
            return [("list", place(node.span)), *(found for item in node.items for found in places(item))]
        case MapNode():
            children = (child for entry in node.entries for child in (entry.key, entry.value))
            return [("map", place(node.span)), *(found for child in children for found in places(child))]


def place(span: Span) -> str:
    return f"{span.line}:{span.column}-{span.end_line}:{span.end_column}"


def test_places_in_block_style() -> None:
    text = "# spec\nflow:\n  - embed: {weight: 'a b'}   # c\n  - gather\n\n\n# end\neps:\nlast: two\n  lines\n\n"
    assert places(parse(text, "s.yaml")) == [
        ("map", "2:1-10:8"),
        ("'flow'", "2:1-2:5"),
        ("list", "3:3-4:11"),
        ("map", "3:5-3:27"),
        ("'embed'", "3:5-3:10"),
        ("map", "3:12-3:27"),
        ("'weight'", "3:13-3:19"),
        ("'a b'", "3:21-3:26"),
        ("'gather'", "4:5-4:11"),
        ("'eps'", "8:1-8:4"),
        ("None", "8:5-8:5"),
        ("'last'", "9:1-9:5"),
        ("'two lines'", "9:7-10:8"),
    ]


def test_places_of_quoted_and_block_texts() -> None:
    text = "a: \"x\n  y\"\r\nb: |  # why\n  one\n  two\n\nc: >-\n  é\n\n# end\n? d\n: '😀'\ne:\n- |\n"
    assert places(parse(text, "s.yaml")) == [
        ("map", "1:1-14:4"),
        ("'a'", "1:1-1:2"),
        ("'x y'", "1:4-2:5"),
        ("'b'", "3:1-3:2"),
        ("'one\\ntwo\\n'", "3:4-5:6"),
        ("'c'", "7:1-7:2"),
        ("'é'", "7:4-8:4"),
        ("'d'", "11:3-11:4"),
        ("'😀'", "12:3-12:6"),
        ("'e'", "13:1-13:2"),
        ("list", "14:1-14:4"),
        ("''", "14:3-14:4"),
    ]


def test_places_in_flow_style() -> None:
    text = "[1, {a: , b},\n  [ c : d ] ]"
    assert places(parse(text, "s.yaml")) == [
        ("list", "1:1-2:14"),
        ("1", "1:2-1:3"),
        ("map", "1:5-1:13"),
        ("'a'", "1:6-1:7"),
        ("None", "1:8-1:8"),
        ("'b'", "1:11-1:12"),
        ("None", "1:12-1:12"),
        ("list", "2:3-2:12"),
        ("map", "2:5-2:10"),
        ("'c'", "2:5-2:6"),
        ("'d'", "2:9-2:10"),
    ]


def test_an_alias_ends_the_map_that_it_closes() -> None:
    node = parse("a: &x 1\nb:\n  c: *x\n\nd: 2\n", "s.yaml")
    assert isinstance(node, MapNode)
    inner = node.get("b")
    assert isinstance(inner, MapNode)
    assert place(inner.span) == "3:3-3:8"


def test_places_in_json() -> None:
    text = '{"a" : [1, -2.5e3 ,\n  true, null] ,\r\n "é": {"b": "\\u0041\\n"}  }\n'
    assert places(parse(text, "s.json", json=True)) == [
        ("map", "1:1-3:27"),
        ("'a'", "1:2-1:5"),
        ("list", "1:8-2:14"),
        ("1", "1:9-1:10"),
        ("-2500.0", "1:12-1:18"),
        ("True", "2:3-2:7"),
        ("None", "2:9-2:13"),
        ("'é'", "3:2-3:5"),
        ("map", "3:7-3:24"),
        ("'b'", "3:8-3:11"),
        ("'A\\n'", "3:13-3:23"),
    ]


def test_a_byte_order_mark_takes_no_column() -> None:
    for json in (False, True):
        assert places(parse("\ufeff[1]", "s", json=json)) == [("list", "1:1-1:4"), ("1", "1:2-1:3")]


def refused(text: str, *, json: bool = False) -> list[tuple[str, str]]:
    """Code and place of everything that is wrong with the text."""
    with pytest.raises(SpecError) as caught:
        parse(text, "s.json" if json else "s.yaml", json=json)
    return [(d.code, f"{d.span.line}:{d.span.column}" if d.span else "") for d in caught.value.diagnostics]


@pytest.mark.parametrize(
    ("text", "code", "where"),
    [
        ("a: [1, 2\n", "yaml", "2:1"),
        ("a:\n\tb: 1", "yaml", "2:1"),
        ("a: b: c", "yaml", "1:5"),
        ("a: @x", "yaml", "1:4"),
        ("- a\nb: 1", "yaml", "2:1"),
        ("'open", "yaml", "1:6"),
        ('"\\q"', "yaml", "1:3"),
        ('"\\UFFFFFFFF"', "yaml", "1:4"),
        ("%YAML 1.1\n--- a", "yaml", "1:1"),
        (f"%YAML 1.{'9' * 5000}\n--- a", "yaml", "1:9"),
        ("!x!y z", "yaml", "1:1"),
        ("[?a]", "yaml", "1:3"),
        ("{?a: 1}", "yaml", "1:3"),
        ("{?'a': 1}", "yaml", "1:3"),
        ("a: b\t# c", "yaml", "1:5"),
        ("a: 1\na: 2", "duplicate-key", "2:1"),
        ("{a: 1, 'a': 2}", "duplicate-key", "1:8"),
        ("1: a", "bad-key", "1:1"),
        ("true: a", "bad-key", "1:1"),
        ("~: a", "bad-key", "1:1"),
        ("1.5: a", "bad-key", "1:1"),
        ("{? : a}", "bad-key", "1:3"),
        ("[a]: b", "bad-key", "1:1"),
        ("a: {{x}: 1}", "bad-key", "1:5"),
        ("<<: {a: 1}", "merge-key", "1:1"),
        ("a: !!python/object:os.system x", "tag", "1:4"),
        ("a: &x !!str 12", "tag", "1:7"),
        ("a: ! 12", "tag", "1:4"),
        ("a: !<tag:yaml.org,2002:int> 12", "tag", "1:4"),
        ("a: !t [1]", "tag", "1:4"),
        ("a: *b", "alias", "1:4"),
        ("a: &b [*b]", "alias", "1:8"),
        ("a: &b {c: {d: *b}}", "alias", "1:15"),
        ("a: &b 1\nc: &b [*b]", "alias", "2:8"),
        ("a: 1\n---\nb: 2", "multi-document", "2:1"),
        ("a: 1\n...\n---\n", "multi-document", "3:1"),
        ("a: 18446744073709551616", "number", "1:4"),
        ("a: -9223372036854775809", "number", "1:4"),
        (f"a: {'9' * 5000}", "number", "1:4"),
        (f"a: 0x{'f' * 5000}", "number", "1:4"),
        (f"a: 0.{'9' * 5000}", "number", "1:4"),
        ("a: 1e999", "number", "1:4"),
        ("a: 1e-999", "number", "1:4"),
        ("a: b\x00", "encoding", "1:5"),
        ("a: \x1b[31m", "encoding", "1:4"),
        ("a: b\n\x85c", "encoding", "2:1"),
        ("a: \u2028", "encoding", "1:4"),
        ("a: x\ufeff", "encoding", "1:5"),
        ("a: \ud800", "encoding", "1:4"),
        ('a: "\\0"', "encoding", "1:4"),
        ('a: "\\ud83d"', "encoding", "1:4"),
        ('a: "\\e[31m"', "encoding", "1:4"),
    ],
)
def test_yaml_that_is_refused(text: str, code: str, where: str) -> None:
    assert refused(text) == [(code, where)]


@pytest.mark.parametrize(
    ("text", "code", "where"),
    [
        ("", "json", "1:1"),
        ("[1, 2", "json", "1:6"),
        ("[1, 2,]", "json", "1:7"),
        ("[1 2]", "json", "1:4"),
        ("[,1]", "json", "1:2"),
        ('{"a": 1,}', "json", "1:9"),
        ('{"a" 1}', "json", "1:6"),
        ('{"a": }', "json", "1:7"),
        ('{"a": 1 "b": 2}', "json", "1:9"),
        ("{a: 1}", "json", "1:2"),
        ("{'a': 1}", "json", "1:2"),
        ("{1: 1}", "json", "1:2"),
        ("[1] 2", "json", "1:5"),
        ("[1] // two", "json", "1:5"),
        ("[NaN]", "json", "1:2"),
        ("[-Infinity]", "json", "1:2"),
        ("[True]", "json", "1:2"),
        ("[01]", "json", "1:2"),
        ("[+1]", "json", "1:2"),
        ("[.5]", "json", "1:2"),
        ("[1.]", "json", "1:2"),
        ("[-]", "json", "1:2"),
        ("[0x1F]", "json", "1:2"),
        ("[1_0]", "json", "1:2"),
        ("[١]", "json", "1:2"),
        ('["a]', "json", "1:2"),
        ('["a\n"]', "json", "1:2"),
        ('["a\tb"]', "json", "1:4"),
        ('["a\\x41"]', "json", "1:4"),
        ('["\\u12g4"]', "json", "1:3"),
        ("[1]\u00a0", "json", "1:4"),
        ('{"a": 1, "a": 2}', "duplicate-key", "1:10"),
        ('{"a": 1, "\\u0061": 2}', "duplicate-key", "1:10"),
        ("[18446744073709551616]", "number", "1:2"),
        ("[1e999]", "number", "1:2"),
        (f"[{'9' * 5000}]", "number", "1:2"),
        ('["\x01"]', "encoding", "1:3"),
        ('["\\u0000"]', "encoding", "1:2"),
        ('["\\b"]', "encoding", "1:2"),
        ('["\\f"]', "encoding", "1:2"),
        ('["\\ud83d"]', "encoding", "1:2"),
        ('["\\ude00\\ud83d"]', "encoding", "1:2"),
    ],
)
def test_json_that_is_refused(text: str, code: str, where: str) -> None:
    assert refused(text, json=True) == [(code, where)]


def test_all_that_is_wrong_is_reported_at_once() -> None:
    text = "a: 1\na: !t 2\n3: 1e999\nb: {c: 1, c: 2, c: *no}\n<<: *a\na: 5\nd: [\n"
    assert refused(text) == [
        ("tag", "2:4"),
        ("number", "3:4"),
        ("alias", "4:20"),
        ("duplicate-key", "4:11"),
        ("duplicate-key", "4:17"),
        ("alias", "5:5"),
        ("merge-key", "5:1"),
        ("yaml", "8:1"),
    ]
    assert refused(text.removesuffix("d: [\n"))[-3:] == [
        ("duplicate-key", "2:1"),
        ("bad-key", "3:1"),
        ("duplicate-key", "6:1"),
    ]


@pytest.mark.parametrize("json", [False, True])
def test_depth_is_bounded(json: bool) -> None:
    parse("[" * MAX_DEPTH + "]" * MAX_DEPTH, "s", json=json)
    deep = MAX_DEPTH + 1
    assert refused("[" * deep + "]" * deep, json=json) == [("too-deep", f"1:{deep}")]
    assert refused("[" * 1_000_000, json=json) == [("too-deep", f"1:{deep}")]


def test_depth_of_blocks_is_bounded() -> None:
    assert refused("- " * 100_000) == [("too-deep", f"1:{2 * MAX_DEPTH + 1}")]
    nested = "".join(f"{' ' * depth}a:\n" for depth in range(500))
    assert refused(nested) == [("too-deep", f"{MAX_DEPTH + 1}:{MAX_DEPTH + 1}")]


def test_depth_counts_what_an_alias_stands_for() -> None:
    def chain(links: int) -> str:
        return "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, links))

    parse(chain(MAX_DEPTH - 1), "s.yaml")  # the map is a level too
    assert refused(chain(MAX_DEPTH)) == [("too-deep", f"{MAX_DEPTH}:12")]
    half = MAX_DEPTH // 2
    lopsided = f"a: &a [{'[' * half}{']' * half}, [x]]\nb: {'[' * half}*a{']' * half}"
    assert [code for code, _ in refused(lopsided)] == ["too-deep"]


def test_the_number_of_values_is_bounded() -> None:
    parse("[" + "1," * (MAX_NODES - 2) + "1]", "s.json", json=True)
    assert refused("[" + "1," * (MAX_NODES - 1) + "1]", json=True) == [("too-many-nodes", f"1:{2 * MAX_NODES}")]


def test_the_number_of_values_counts_what_an_alias_stands_for() -> None:
    thousand = "- &a [" + "x," * 999 + "]\n" + "- *a\n" * (MAX_NODES // 1000 - 2)
    full = thousand + "- x\n" * 999
    parse(full, "s.yaml")
    assert [code for code, _ in refused(full + "- x\n")] == ["too-many-nodes"]


def test_an_alias_bomb_is_refused() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 40))
    assert [code for code, _ in refused(bomb)] == ["too-many-nodes"]
    text = f"a: &a {'x' * 100_000}\nb: [{'*a, ' * 1000}]"
    assert [code for code, _ in refused(text)] == ["too-large"]


def test_a_hostile_number_of_errors_is_cut_short() -> None:
    assert len(refused("- *a\n" * 150_000)) == 1000


def test_files(tmp_path: Path) -> None:
    yaml_file, json_file = tmp_path / "s.yaml", tmp_path / "s.JSON"
    yaml_file.write_bytes(b"\xef\xbb\xbf# \xc3\xa9\r\nno: on\r\n")
    json_file.write_text('{"no": "on"}')
    assert plain(read_spec(yaml_file)) == plain(read_spec(json_file)) == {"no": "on"}
    json_file.write_text("{no: on}")
    with pytest.raises(SpecError, match="double quotes"):
        read_spec(json_file)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    def code(path: Path) -> tuple[str, str]:
        with pytest.raises(SpecError) as caught:
            read_spec(path)
        (found,) = caught.value.diagnostics
        return found.code, f"{found.span.line}:{found.span.column}" if found.span else found.message.split(": ")[-1]

    file = tmp_path / "s.yaml"
    assert code(file) == ("missing-file", f"there is no file {file}")
    assert code(tmp_path) == ("unreadable-file", "Is a directory")
    assert code(tmp_path / "a\0b")[0] == "unreadable-file"
    file.write_bytes(b"a: 1\n# \xc3\xa9 \xe9\n")
    assert code(file) == ("encoding", "2:5")
    file.write_bytes("a: 1".encode("utf-16"))
    assert code(file) == ("encoding", "1:1")
    file.write_bytes(b"#" * (MAX_BYTES + 1))
    assert code(file)[0] == "too-large"
    file = tmp_path / "s.json"
    file.write_bytes(b"[" + b" " * (MAX_BYTES - 2) + b"]")
    assert plain(read_spec(file)) == []
