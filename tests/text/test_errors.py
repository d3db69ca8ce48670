"""What a user sees of an error, to the letter; and that every code is explained."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from flowc.codes import CODES
from flowc.errors import (
    MOST_COLLECTED,
    MOST_SHOWN,
    CheckFailed,
    Diagnostic,
    Diagnostics,
    FlowError,
    MissingTool,
    Source,
    Span,
    SpecError,
    WeightsError,
    nearest,
)
from flowc.text.source import parse
from tests.oracle_io import ROOT

CODE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def rendered(text: str, *, json: bool = False) -> str:
    with pytest.raises(SpecError) as caught:
        parse(text, "dir/s.json" if json else "dir/s.yaml", json=json)
    return str(caught.value)


def test_a_duplicate_key_shows_both_places() -> None:
    text = "\n".join(["flowc: 1", "model:", "  hidden: 8", *["  # more"] * 8, "  hidden: 16", ""])
    assert rendered(text) == (
        "error[duplicate-key]: the key 'hidden' is given again\n"
        "  --> dir/s.yaml:12:3\n"
        "   |\n"
        "12 |   hidden: 16\n"
        "   |   ^^^^^^\n"
        "note: first given here\n"
        " --> dir/s.yaml:3:3\n"
        "  |\n"
        "3 |   hidden: 8\n"
        "  |   ^^^^^^"
    )


def test_a_hint_comes_last_and_errors_are_apart() -> None:
    assert rendered("a: !!str 12\n2: {b: *c}") == (
        "error[tag]: the tag '!!str': values of a spec have no tags\n"
        " --> dir/s.yaml:1:4\n"
        "  |\n"
        "1 | a: !!str 12\n"
        "  |    ^^^^^\n"
        "help: quote the text if a text is meant\n"
        "\n"
        "error[alias]: no anchor '&c' stands before this alias\n"
        " --> dir/s.yaml:2:8\n"
        "  |\n"
        "2 | 2: {b: *c}\n"
        "  |        ^^\n"
        "\n"
        "error[bad-key]: a key must be a text, not the number 2\n"
        " --> dir/s.yaml:2:1\n"
        "  |\n"
        "2 | 2: {b: *c}\n"
        "  | ^\n"
        "help: quote it if a text is meant"
    )


def test_a_syntax_error_of_yaml() -> None:
    assert rendered("a: [1, 2\nb: 3") == (
        "error[yaml]: expected ',' or ']', but got ':'\n"
        " --> dir/s.yaml:2:2\n"
        "  |\n"
        "2 | b: 3\n"
        "  |  ^\n"
        "note: while parsing a flow sequence\n"
        " --> dir/s.yaml:1:4\n"
        "  |\n"
        "1 | a: [1, 2\n"
        "  |    ^\n"
        "help: a bracket or a brace is not closed, or a text that holds one needs quotes"
    )


def test_a_syntax_error_of_json() -> None:
    assert rendered('{"a": 1,\r\n "b": nan}', json=True) == (
        "error[json]: expected a value\n"
        " --> dir/s.json:2:7\n"
        "  |\n"
        '2 |  "b": nan}\n'
        "  |       ^^^\n"
        "help: texts stand between double quotes"
    )


def test_a_trailing_comma_of_json() -> None:
    for text, what in (("[1, ]", "item"), ('{"a": 1, }', "entry")):
        lines = rendered(text, json=True).splitlines()
        assert lines[0] == f"error[json]: expected an {what} after ','"
        assert lines[-1] == f"help: JSON has no comma after the last {what}"


def test_a_place_at_the_end_of_the_text() -> None:
    assert rendered("[1,\n", json=True) == (
        "error[json]: expected a value, but the text ends here\n --> dir/s.json:2:1\n  |\n2 |\n  | ^"
    )


def test_carets_stand_under_wide_and_combining_characters() -> None:
    for key, columns in (("日本", 4), ("\uff21", 2), ("e\u0301", 1), ("\u00e9", 1)):
        lines = rendered(f"{{{key}: 1, {key}: 2}}").splitlines()
        assert lines[3:5] == [f"1 | {{{key}: 1, {key}: 2}}", f"  | {' ' * (columns + 6)}{'^' * columns}"]


def test_a_tab_takes_one_column() -> None:
    assert rendered('["a",\t*x]').splitlines()[3:5] == ['1 | ["a", *x]', "  |      ^"]


def test_a_span_of_several_lines_is_marked_to_the_end_of_its_first() -> None:
    assert rendered("? - a\n  - b\n: c").splitlines()[1:5] == [" --> dir/s.yaml:1:3", "  |", "1 | ? - a", "  |   ^^^"]


def test_a_long_line_is_cut_around_the_place() -> None:
    lines = rendered("[" + "abc, " * 100 + "*none" + ", abc" * 100 + "]").splitlines()
    before = ("abc, " * 8)[-40:]
    after = (", abc" * 100)[: 150 - 40 - 5]
    assert lines[1:5] == [
        " --> dir/s.yaml:1:502",
        "  |",
        f"1 | ...{before}*none{after}...",
        f"  |    {' ' * 40}^^^^^",
    ]
    lines = rendered("[*none" + ", abc" * 100 + "]").splitlines()
    assert lines[3:5] == [f"1 | [*none{(', abc' * 100)[:144]}...", "  |  ^^^^^"]
    lines = rendered("[" + "abc, " * 100 + "*none]").splitlines()
    assert lines[3].endswith("abc, *none]")
    assert lines[4].index("^^^^^") == lines[3].index("*none")


def test_nothing_that_a_terminal_would_obey_is_shown() -> None:
    span = Span(Source("a\x1b[2J.yaml", "x: \x1b[31m\u202e\udc80"), 1, 4, 1, 10)
    text = Diagnostic("tag", "key '\x1b]0;\x07\u202e\udc80' is\nwrong", span, hint="\x9b1m").render()
    assert text == (
        "error[tag]: key '\\x1b]0;\\x07\\u202e\\udc80' is\\nwrong\n"
        " --> a\\x1b[2J.yaml:1:4\n"
        "  |\n"
        "1 | x: \ufffd[31m\ufffd\ufffd\n"
        "  |    ^^^^^^\n"
        "help: \\x9b1m"
    )


def test_json_form() -> None:
    span = Span(Source("s.yaml", "a: b"), 1, 4, 1, 5)
    assert Diagnostic("tag", "m", span, "h").as_json() == {
        "severity": "error",
        "code": "tag",
        "message": "m",
        "hint": "h",
        "file": "s.yaml",
        "line": 1,
        "column": 4,
    }


def test_collected_errors_are_raised_once_each_and_in_order() -> None:
    problems = Diagnostics()
    problems.raise_if_any()
    assert not problems
    span = Span(Source("s.yaml", "a: b"), 1, 1, 1, 2)
    for _ in range(2):
        problems.error("tag", "first", span)
        problems.error("alias", "second", span)
    problems.include(SpecError.of("tag", "first", span))
    assert problems
    with pytest.raises(SpecError) as caught:
        problems.raise_if_any()
    assert [d.message for d in caught.value.diagnostics] == ["first", "second"]


def test_the_number_of_collected_and_shown_errors_is_bounded() -> None:
    problems = Diagnostics()
    for i in range(MOST_COLLECTED - 1):
        problems.error("tag", f"m{i}")
    with pytest.raises(SpecError) as caught:
        problems.error("tag", "last")
    assert len(caught.value.diagnostics) == MOST_COLLECTED
    assert str(caught.value).split("\n\n")[-2:] == [
        f"error[tag]: m{MOST_SHOWN - 1}",
        f"... and {MOST_COLLECTED - MOST_SHOWN} more",
    ]


@pytest.mark.parametrize(
    ("kinds", "raised"),
    [
        ([WeightsError], WeightsError),
        ([WeightsError, SpecError], SpecError),
        ([CheckFailed, SpecError], SpecError),
        ([MissingTool, WeightsError], WeightsError),
    ],
)
def test_a_wrong_spec_outranks_wrong_weights(kinds: list[type[FlowError]], raised: type[FlowError]) -> None:
    problems = Diagnostics()
    for kind in kinds:
        problems.error("tag", kind.__name__, kind=kind)
    with pytest.raises(raised) as caught:
        problems.raise_if_any()
    assert type(caught.value) is raised


def test_exit_codes() -> None:
    assert [kind.exit_code for kind in (CheckFailed, SpecError, WeightsError, MissingTool)] == [1, 2, 3, 4]


def test_nearest_names_the_known_word() -> None:
    assert nearest("hiden", ["heads", "hidden"]) == "did you mean 'hidden'?"
    assert nearest("zzz", ["heads", "hidden"]) == ""


def used_codes() -> Iterator[tuple[str, str]]:
    """Each code that flowc's source gives to a diagnostic, and its file and line."""
    for folder in ("flowc", "lowering", "passes"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                for given in given_codes(node):
                    for constant in ast.walk(given):
                        code = constant.value if isinstance(constant, ast.Constant) else None
                        if isinstance(code, str) and CODE.fullmatch(code):
                            yield code, f"{path.relative_to(ROOT).as_posix()}:{constant_line(constant)}"


def given_codes(node: ast.AST) -> list[ast.expr]:
    """What a call gives as the code of a diagnostic, or a wording of a file's errors as its codes."""
    if isinstance(node, ast.ClassDef) and node.name.endswith("Wording"):
        return [line.value for line in node.body if isinstance(line, ast.Assign)]
    given = given_code(node) if isinstance(node, ast.Call) else None
    return [given] if given is not None else []


def given_code(call: ast.Call) -> ast.expr | None:
    """What a call gives as the code of a diagnostic, if it makes one."""
    match call.func:
        case ast.Name(id="attr" | "Wrong"):
            return next((keyword.value for keyword in call.keywords if keyword.arg == "code"), None)
        case ast.Name(id="JsonWording"):
            return call.args[0]
        case ast.Attribute(attr="error" | "of" | "fail" | "weights_error") | ast.Name(id="Diagnostic"):
            by_name = (keyword.value for keyword in call.keywords if keyword.arg == "code")
            return call.args[0] if call.args else next(by_name, None)
        case _:
            return None


def constant_line(constant: ast.AST) -> int:
    assert isinstance(constant, ast.Constant)
    return constant.lineno


def test_every_code_is_explained() -> None:
    missing = [f"{place}: {code}" for code, place in used_codes() if code not in CODES]
    assert not missing, "codes that flowc.errors.CODES does not explain:\n" + "\n".join(missing)


def test_every_explained_code_is_used() -> None:
    assert set(CODES) - {code for code, _ in used_codes()} == set()


def test_explanations_are_sentences_in_order() -> None:
    assert list(CODES) == sorted(CODES)
    for code, sentence in CODES.items():
        assert CODE.fullmatch(code)
        assert re.fullmatch(r"[A-Z][^\n]*\.", sentence)
