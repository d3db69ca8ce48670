"""Every stage kind keeps the contract of `flowc.frontend.stage`: whatever is declared is whole, sane, and true."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from jsonschema import Draft7Validator

from flowc.build.compiled import Request
from flowc.compile import compile_file
from flowc.errors import Diagnostics, SpecError
from flowc.frontend.bind import bind
from flowc.frontend.stage import Composite, Stage, Stages
from flowc.frontend.usage import Usage
from flowc.records.describe import type_name
from flowc.records.record import Attribute
from flowc.reference import __main__ as reference
from flowc.reference.describe import describe
from flowc.reference.schema import schema
from flowc.spec.load import build as build_spec
from flowc.spec.spec import Spec
from flowc.stages import load_all
from flowc.text.source import parse, plain

REGISTRY = load_all()
KINDS = sorted(REGISTRY)
VALIDATOR = Draft7Validator(schema())
PAGE = reference.page()
SYMBOLS = {
    "hidden": 64, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 16, "ffn": 128, "vocab": 97, "norm_eps": 1e-5,
    "context_length": 128,
}  # fmt: skip

every_kind = pytest.mark.parametrize("cls", [REGISTRY[kind] for kind in KINDS], ids=KINDS)


def spec_of(flow: str, model: Mapping[str, Any] | None = None) -> Spec:
    symbols = ", ".join(f"{k}: {v}" for k, v in (SYMBOLS if model is None else model).items())
    return build_spec(parse(f"flowc: 1\nmodel: {{{symbols}}}\nflow:\n{flow}", "s.yaml"), Path("s.yaml"))


def kinds(example: object) -> set[str]:
    """Texts and keys anywhere in an example."""
    match example:
        case str():
            return {example}
        case list():
            return {kind for item in cast("list[object]", example) for kind in kinds(item)}
        case dict():
            found = cast("dict[str, object]", example)
            return {*found, *(kind for value in found.values() for kind in kinds(value))}
        case _:
            return set()


def stage_of(text: str) -> Stage:
    """The stage that an example spells, bound without any model symbol but those of SYMBOLS."""
    spec, problems = spec_of(f"  - {text}"), Diagnostics()
    bound = bind(spec.main.flows["*"].items[0], spec, Usage(), {}, problems)
    problems.raise_if_any()
    assert bound is not None
    return bound.stage


@every_kind
def test_it_says_what_it_does(cls: type[Stage]) -> None:
    assert cls.__doc__ is not None
    assert cls.__doc__ is not Stage.__doc__
    assert cls.summary().endswith(".")
    assert cls.example
    assert cls.expand is not Stage.expand or (issubclass(cls, Composite) and cls.unfold is not Composite.unfold)


@every_kind
def test_every_field_is_documented_and_typed(cls: type[Stage]) -> None:
    for attribute in cls.attributes():
        assert attribute.doc.endswith("."), attribute.name
        assert type_name(attribute.type)
    assert sum(attribute.main for attribute in cls.attributes()) <= 1


OPTIONAL = [
    pytest.param(REGISTRY[kind], attribute, id=f"{kind}-{attribute.name}")
    for kind in KINDS
    for attribute in REGISTRY[kind].attributes()
    if not attribute.required and attribute.default is not None and not isinstance(attribute.default, Stages)
]


def test_many_fields_have_a_default() -> None:
    assert len(OPTIONAL) > 100


@pytest.mark.parametrize(("cls", "attribute"), OPTIONAL)
def test_a_default_is_what_a_user_could_write(cls: type[Stage], attribute: Attribute) -> None:
    """Written out in the example, the default that the reference tells is allowed, and read as the default."""
    (described,) = (field for field in describe(cls)["fields"] if field["name"] == attribute.name)
    written = json.loads(json.dumps(described["default"]))
    example = with_field(plain(parse(cls.example, "s.yaml")), cls, attribute.name, written)
    VALIDATOR.validate({"flowc": 1, "flow": [example]})
    (stage,) = stages_of(stage_of(json.dumps(example)), cls)
    found = getattr(stage, attribute.name)
    assert type(found) is type(attribute.default)
    assert found == attribute.default


def with_field(example: object, cls: type[Stage], name: str, value: object) -> object:
    """An example with one field of its stage of this kind written out."""
    main = next((a.name for a in cls.attributes() if a.main), "")
    match example:
        case str() if example == cls.kind:
            return {cls.kind: {name: value}}
        case list():
            return [with_field(item, cls, name, value) for item in cast("list[object]", example)]
        case dict():
            found = cast("dict[str, object]", example)
            if cls.kind not in found:
                return {key: with_field(inner, cls, name, value) for key, inner in found.items()}
            given = found[cls.kind]
            fields = cast("dict[str, object]", given) if isinstance(given, dict) else {main: given}
            return {cls.kind: {**fields, name: value}}
        case _:
            return example


def stages_of(stage: Stage, cls: type[Stage]) -> list[Stage]:
    """The stage itself where it is of a kind, else those of a `sequence` that are."""
    if isinstance(stage, cls):
        return [stage]
    spec = spec_of("  - identity")
    inner = [a for a in stage.attributes() if isinstance(getattr(stage, a.name), Stages)]
    problems = Diagnostics()
    found = [bind(item, spec, Usage(), {}, problems) for a in inner for item in getattr(stage, a.name).items]
    return [bound.stage for bound in found if bound is not None and isinstance(bound.stage, cls)]


@every_kind
def test_reads_writes_and_weights_name_things(cls: type[Stage]) -> None:
    for declared in (cls.reads, cls.writes, cls.weights):
        assert isinstance(declared, tuple)
        assert all(isinstance(item, str) and item for item in declared)
    assert len(set(cls.reads)) == len(cls.reads)
    assert len(set(cls.writes)) == len(cls.writes)
    known = {"embedding", *(attribute.name for attribute in cls.attributes())}
    for weight in cls.weights:
        for named in braces(weight):
            assert named in known or "," in named, f"{weight}: no field '{named}'"
    assert ("cache" in cls.reads + cls.writes) <= cls.cached


def braces(text: str) -> list[str]:
    return [part.partition("}")[0] for part in text.split("{")[1:]]


@every_kind
def test_the_example_parses_binds_and_fits_the_schema(cls: type[Stage]) -> None:
    """An example is the stage itself, or a `sequence` that shows it with what it needs."""
    example = plain(parse(cls.example, "s.yaml"))
    assert stage_of(cls.example).kind in (cls.kind, "sequence")
    assert cls.kind in kinds(example)
    VALIDATOR.validate({"flowc": 1, "flow": [example]})


@every_kind
def test_the_example_names_every_field_that_must_be_given(cls: type[Stage]) -> None:
    spec, problems = spec_of(f"  - {cls.example}", {}), Diagnostics()
    bind(spec.main.flows["*"].items[0], spec, Usage(), {}, problems)
    assert not problems or optional_symbols(problems)


def optional_symbols(problems: Diagnostics) -> bool:
    """Whether all that is missing is what a model symbol may stand in for."""
    with pytest.raises(SpecError) as caught:
        problems.raise_if_any()
    return all("or give the model symbol" in d.hint for d in caught.value.diagnostics)


@every_kind
def test_a_field_that_is_not_declared_is_refused_by_both(cls: type[Stage]) -> None:
    text = f"flowc: 1\nflow:\n  - {cls.kind}: {{no_such_field: 1}}"
    problems = Diagnostics()
    spec = build_spec(parse(text, "s.yaml"), Path("s.yaml"))
    assert bind(spec.main.flows["*"].items[0], spec, Usage(), {}, problems) is None or problems
    with pytest.raises(SpecError) as caught:
        problems.raise_if_any()
    assert "unknown-field" in [d.code for d in caught.value.diagnostics]
    assert not VALIDATOR.is_valid(cast("Any", plain(parse(text, "s.yaml"))))


@every_kind
def test_its_description_is_whole(cls: type[Stage]) -> None:
    found = describe(cls)
    assert set(found) >= {"name", "doc", "fields", "reads", "writes", "weights", "example"}
    assert [field["name"] for field in found["fields"]] == [a.name for a in cls.attributes()]
    assert found["doc"] == cls.summary()
    assert f"\n## {cls.kind}\n" in PAGE
    assert all(f"`{field['name']}`" in PAGE for field in found["fields"])


HEAD = "flowc: 1\nmodel: {{context_length: 64{symbols}}}\nweights: {{random: 0}}\n{extra}\nflow: {flow}\n"


def test_an_example_of_every_kind_compiles_in_some_flow(tmp_path: Path) -> None:
    """Each example, put where its reads are written, expands into a graph."""
    failed: dict[str, str] = {}
    for kind in KINDS:
        errors: list[str] = []
        for frame in FRAMES:
            path = tmp_path / f"{kind}.yaml"
            path.write_text(frame.replace("EXAMPLE", REGISTRY[kind].example), encoding="utf-8")
            try:
                compile_file(path, Request(), need_weights=False)
                break
            except SpecError as error:
                if {d.code for d in error.diagnostics} <= {"unknown-size", "unused-stage"}:
                    break  # sound, but for what a weights file would tell, and for a stage that would use it
                errors.append(error.render())
        else:
            failed[kind] = "\n".join(errors)
    assert not failed, "\n\n".join(f"{kind}\n{text}" for kind, text in failed.items())


EMBED = "embed: {weight: embed.weight, vocab: 97, hidden: 64}"
PAIR = f"""\
flowc: 1
components:
  encoder:
    inputs: {{input_ids: "int64[batch_size, sequence_length]", attention_mask: "int64[batch_size, sequence_length]"}}
    flow: [{EMBED}, encoder_self_attn: {{qkv: qkv, out: out, heads: 4, head_dim: 16}}, MAKES]
  decoder:
    inputs: {{input_ids: "int64[batch_size, sequence_length]", encoder_attention_mask: encoder.attention_mask}}
    flow: [{EMBED}, READS]
"""
FRAMES = [
    HEAD.format(extra="", symbols="", flow=f"[{EMBED}, EXAMPLE]"),
    HEAD.format(extra="", symbols=", vocab: 97, hidden: 64", flow=f"[{EMBED}, EXAMPLE]"),
    HEAD.format(extra="", symbols=", vocab: 97, hidden: 64", flow="[EXAMPLE]"),
    HEAD.format(extra="", symbols="", flow=f"[{EMBED}, residual_save, EXAMPLE]"),
    HEAD.format(extra="", symbols="", flow=f"{{decode: [{EMBED}, EXAMPLE]}}"),
    HEAD.format(
        extra="",
        symbols="",
        flow=f"{{decode: [{EMBED}, bind_decode_inputs: {{layers: 1, kv_heads: 2, head_dim: 16}}, EXAMPLE]}}",
    ),
    HEAD.format(
        extra="",
        symbols="",
        flow=f"[{EMBED}, linear: {{weight: q, out: 16}}, store_stream: gdn.q, store_stream: gdn.k, "
        "linear: {weight: v, out: 32}, store_stream: gdn.v, "
        "linear: {weight: g, out: 4}, store_stream: gdn.g, store_stream: gdn.beta, EXAMPLE]",
    ),
    HEAD.format(extra="inputs: {hidden_states: 'float32[batch_size, 16, 64]'}", symbols="", flow="[EXAMPLE]"),
    HEAD.format(extra="inputs: {pixel_values: 'float32[batch_size, 3, 32, 32]'}", symbols="", flow="[EXAMPLE]"),
    HEAD.format(
        extra="inputs: {pixel_values: 'float32[batch_size, 3, 32, 32]'}",
        symbols="",
        flow="[patch_embed: {weight: patches, patch: [8, 8], channels: 3, hidden: 64}, prepend_tokens: cls, EXAMPLE]",
    ),
    HEAD.format(
        extra="inputs: {hidden_states: 'float32[b, tokens, 64]', timestep: 'float32[b]', txt_ids: 'float32[t, 3]', "
        "img_ids: 'float32[i, 3]', rope_cos: 'float32[tokens, 16]', rope_sin: 'float32[tokens, 16]'}",
        symbols="",
        flow="[input: timestep, input: txt_ids, input: img_ids, input: rope_cos, input: rope_sin, "
        "input: hidden_states, EXAMPLE]",
    ),
    PAIR.replace("MAKES", "EXAMPLE").replace("READS", REGISTRY["cross_attention"].example),
    PAIR.replace("MAKES", REGISTRY["cross_keys_values"].example).replace("READS", "EXAMPLE"),
]
"""Flows that examples stand in: behind an embedding or a residual, in a decode flow, first, on images, on latents, in a
component."""
