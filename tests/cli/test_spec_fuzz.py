"""Whatever a spec says, flowc says what is wrong with it or builds it: it never breaks down."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowc.stages import load_all
from flowc.text.source import parse, plain
from tests.cli.calling import BASE, done, flowc

COMPOSED = """\
flowc: 1
model: {hidden: 8, heads: 2, kv_heads: 1, head_dim: 4, ffn: 16, vocab: 32, norm_eps: 1e-5, kinds: [full, other]}
weights: {random: 0}
inputs: {input_ids: "int64[batch_size, sequence_length]"}
flow:
  - embed: embed.weight
  - rope_tables: {theta: 1e4, type: yarn, factor: 4.0, original_length: 32, rotary_dim: 2}
  - repeat:
      count: 2
      body:
        - residual_save
        - rms_norm: a.{i}
        - when: {value: "$kinds[i]", equals: full, then: [self_attn_prefill: "b.{i}"], otherwise: [output: "x{i}"]}
        - linear: {weight: "c.{i}", out: $hidden}
        - residual_add
        - swiglu: {prefix: "d.{i}", activation: gelu_tanh}
  - lm_head: {weight: head, bias: true}
rename: {logits: scores}
"""
SPECS = [plain(parse(text, "s.yaml")) for text in (BASE, COMPOSED)]
EXAMPLES = [plain(parse(cls.example, "s.yaml")) for _, cls in sorted(load_all().items())]
VALUES: list[Any] = [
    0, -1, 1, 2, 3, 4, 7, 8, 64, 1e-5, 0.5, 1e308, 2**53 - 1, 2**63 - 1, True, False, None, "", [], {}, [1, 2], [[1]],
    {"a": 1}, "$hidden", "$i", "$kinds[0]", "$kinds[i]", "$kinds[9]", "$none", "{i}", "{", "$", "x", "a.0", "rope",
    "embed.weight", "input_ids", "logits", "attention_mask", "present.0.key", "past_key_values.0.key", "decode",
    "longrope", "dynamic", "llama3", "linear", "default", "int64[]", "int64[2]", "float32[a, 0]", "bool[batch_size]",
    "int64[sequence_length]", "float32[batch_size, sequence_length, 8]",
]  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container below a value with each of its keys."""
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(cast("dict[str, Any]", value))
    elif isinstance(value, list):
        keys = list(range(len(cast("list[Any]", value))))
    for key in keys:
        yield value, key
        yield from places(value[key])


def change(spec: Any, data: st.DataObject) -> None:
    """Change a spec in one place: another value, an entry less, a stage more or twice."""
    holder, key = data.draw(st.sampled_from(list(places(spec))))
    kind = data.draw(st.sampled_from(["value", "value", "remove", "stage", "twice"]))
    if kind == "remove":
        del holder[key]
    elif kind == "value" or not isinstance(holder, list):
        holder[key] = copy.deepcopy(data.draw(st.sampled_from(VALUES)))  # a second change may be one inside of it
    else:
        stages = cast("list[Any]", holder)
        stages.insert(key, copy.deepcopy(data.draw(st.sampled_from(EXAMPLES)) if kind == "stage" else stages[key]))


def build_changed(folder: Path, data: st.DataObject) -> None:
    spec = json.loads(json.dumps(data.draw(st.sampled_from(SPECS))))
    for _ in range(data.draw(st.integers(1, 2))):
        change(spec, data)
    path = folder / "model.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    checked = flowc("check", path, "--json")
    assert checked.code in (0, 2, 3), f"{path.read_text()}\n{checked.stdout}"
    if checked.code:
        assert checked.diagnostics()
        return
    built = flowc("build", path, "-o", folder / "out" / "model.onnx", "--verify", "off", "--json")
    assert built.code == 0 or (built.code, built.diagnostics()[0]["code"]) in ALLOWED, path.read_text() + built.stdout


ALLOWED = [(3, "no-weights"), (4, "cannot-write")]
"""What only a build can find: that there are no weights, or no room for those that the spec makes up."""


@pytest.mark.parametrize("spec", SPECS, ids=["whole layers", "composed"])
def test_the_specs_that_are_changed_are_sound(spec: Any, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps(spec), encoding="utf-8")
    done("build", tmp_path / "model.json", "-o", tmp_path / "out" / "model.onnx", "--verify", "off")


@given(data=st.data())
@settings(max_examples=100)
def test_changed_specs_are_built_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    build_changed(tmp_path_factory.mktemp("fuzz"), data)


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=3000)
def test_very_many_changed_specs(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    build_changed(tmp_path_factory.mktemp("fuzz"), data)
