"""The JSON Schema says what the parser says, where a schema can say it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
from jsonschema import Draft7Validator

from flowc.errors import SpecError
from flowc.reference.schema import schema, schema_text
from flowc.spec.load import build as build_spec
from flowc.spec.spec import TOP_LEVEL
from flowc.text.source import parse, plain, read_spec
from tests.cli.calling import BASE
from tests.oracle_io import ROOT

SCHEMA = schema()
VALIDATOR = Draft7Validator(SCHEMA)
EXAMPLES = sorted(p for p in (ROOT / "examples").rglob("*.yaml") if p.parent.name != "golden")


def fits(text: str) -> bool:
    return VALIDATOR.is_valid(cast("Any", plain(parse(text, "s.yaml"))))


def test_it_is_a_schema_of_draft_7() -> None:
    Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"].endswith("draft-07/schema#")
    assert list(SCHEMA["properties"]) == list(TOP_LEVEL)
    assert json.loads(schema_text()) == SCHEMA


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_fit(path: Path) -> None:
    errors = [error.message for error in VALIDATOR.iter_errors(cast("Any", plain(read_spec(path))))]
    assert not errors


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_name_their_schema(path: Path) -> None:
    [name] = re.findall(r"^# yaml-language-server: \$schema=(\S+)$", path.read_text(), re.MULTILINE)
    assert (path.parent / name).resolve() == ROOT / "flowc/schema.json"


def test_a_spec_may_name_its_schema_and_means_the_same() -> None:
    texts = json.dumps({"$schema": "x.json", **JSON_SPEC}), json.dumps(JSON_SPEC)
    named, plain_one = (build_spec(parse(text, "s.json", json=True), Path("s.json")) for text in texts)
    assert named.resolved({}) == plain_one.resolved({})
    assert VALIDATOR.is_valid({"$schema": "x.json", **JSON_SPEC})


def test_a_kind_alone_is_completed_and_every_choice_has_a_title() -> None:
    """An editor shows the titles of an anyOf; without them it shows its number."""
    bare = next(c for c in SCHEMA["definitions"]["stage"]["anyOf"] if "enum" in c)
    assert {"gather_last_token", "residual_add"} <= set(bare["enum"])
    for name, stage in SCHEMA["definitions"].items():
        if name.startswith("stage"):
            assert all(choice.get("title") for choice in stage["anyOf"]), name


JSON_SPEC = {"flowc": 1, "kind": "encoder", "model": {"hidden": 4, "vocab": 8}, "flow": [{"embed": "e"}]}


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rms_norm: norm.weight", "rms_norm: {weight: norm.weight, eps: $norm_eps}"),
        ("rms_norm: norm.weight", "rms_norm: {weight: norm.weight, eps: '$eps[i]'}"),
        ("gather_last_token", "gather_last_token:"),
        ("gather_last_token", "gather_last_token: {}"),
        ("{random: 0}", "{file: w.gguf, allow_unused: ['a.*']}"),
        ("flowc: 1", "flowc: 1\nexpect: {fold_rope: all, fold_masks: 3}"),
        ("flowc: 1", "flowc: 1\nrename: {logits: scores}\nkind: decoder\noutput: x"),
        ("flowc: 1", "flowc: 1\ninputs: {ids: 'int64[batch_size, $n]'}"),
        ("flow:\n", "flow:\n prefill:\n"),
        ("vocab: 32", "vocab: 32, eos: [1, 2], note: null"),
    ],
)
def test_right_spellings_fit(old: str, new: str) -> None:
    assert fits(BASE)
    assert old in BASE
    assert fits(BASE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("flowc: 1", "flowc: 2"),
        ("flowc: 1", "name: x"),
        ("flowc: 1", "flowc: 1\nnane: x"),
        ("flowc: 1", "flowc: 1\nkind: encodr"),
        ("flowc: 1", "flowc: 1\nname: [x]"),
        ("flowc: 1", "flowc: 1\ninputs: {ids: 'int63[a]'}"),
        ("flowc: 1", "flowc: 1\nexpect: {fold_rope: some}"),
        ("flowc: 1", "flowc: 1\nrename: {logits: 3}"),
        ("{random: 0}", "{random: -1}"),
        ("{random: 0}", "{random: 0, file: x}"),
        ("{random: 0}", "{fil: x}"),
        ("hidden: 8", "hidden: {a: 1}"),
        ("hidden: 8", "'8': 1"),
        ("rms_norm:", "rmsnorm:"),
        ("gather_last_token", "gather_last_tokens"),
        ("- gather_last_token", "- {gather_last_token: {}, zero_beta: {}}"),
        ("- gather_last_token", "- 7"),
        ("- gather_last_token", "- rms_norm"),
        ("{theta: 10000}", "{theta: 10000, hed_dim: 4}"),
        ("{theta: 10000}", "{head_dim: 4}"),
        ("{theta: 10000}", "{theta: 0}"),
        ("{theta: 10000}", "{theta: fast}"),
        ("{theta: 10000}", "{theta: 10000, type: liner}"),
        ("{theta: 10000}", "{theta: 10000, short_factor: [a]}"),
        ("count: 2", "count: 2.5"),
        ("{tied: true}", "{tied: 1}"),
        ("flow:\n", "flow:\n prefil:\n"),
    ],
)
def test_wrong_spellings_do_not_fit_and_the_parser_refuses_them_too(old: str, new: str, tmp_path: Path) -> None:
    from flowc.build.compiled import Request
    from flowc.compile import compile_file

    assert old in BASE
    text = BASE.replace(old, new)
    assert not fits(text)
    path = tmp_path / "model.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError):
        compile_file(path, Request())


@pytest.mark.parametrize("text", ["flowc: 1\nflow: []", "flowc: 1\nflow: {}", "flowc: 1\nflow: 7"])
def test_empty_flows_are_refused_by_both(text: str) -> None:
    assert not fits(text)
    with pytest.raises(SpecError):
        build_spec(parse(text, "s.yaml"), Path("s.yaml"))
