"""The stage `custom`: subgraphs in ONNX text form, what they compute and what is refused."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
import pytest

from flowc.build.compiled import Compiled, Request
from flowc.compile import build, compile_file
from flowc.errors import Diagnostic, SpecError
from tests.passes.making import Array, compile_text, run, run_onnx

HEAD = """
flowc: 1
name: custom
kind: encoder
weights: {random: 5}
output: y
inputs:
  x: float32[batch_size, sequence_length, 6]
flow:
"""
SCALED = """\
scaled (float[n, s, 6] x, float[6] w) => (float[n, s, 6] y)
{
  t = Mul(x, w)
  y = Relu(t)
}
"""
X = np.random.default_rng(2).standard_normal((2, 3, 6)).astype(np.float32)


def stage(text: str, *more: str) -> str:
    return "  - custom:\n      onnx: |\n" + indent(text, " " * 8) + "".join(f"      {line}\n" for line in more)


def compiled(tmp_path: Path, flow: str, head: str = HEAD, **request: Any) -> Compiled:
    return compile_text(tmp_path, flow, head, "custom", **request)


def both(made: Compiled, feeds: dict[str, Array] | None = None, on: str = "ort-cpu") -> dict[str, Array]:
    """Results by the interpreter, which onnxruntime must give too."""
    feeds = feeds or {"x": X}
    meant = run(made.expanded["encode"], feeds, made)
    for name, array in run_onnx(made.graphs["encode"], feeds, made, on).items():
        np.testing.assert_allclose(array, meant[name], atol=1e-6, rtol=1e-6)
    return meant


def tensor(made: Compiled, name: str) -> Array:
    assert made.checkpoint is not None
    return made.checkpoint.read(name, None)


def problem(tmp_path: Path, flow: str, head: str = HEAD, **request: Any) -> Diagnostic:
    with pytest.raises(SpecError) as caught:
        compiled(tmp_path, flow, head, **request)
    (found,) = caught.value.diagnostics
    return found


@pytest.mark.parametrize("on", ["ort-cpu", "portable"])
def test_computes_what_the_text_says(tmp_path: Path, on: str) -> None:
    made = compiled(tmp_path, stage(SCALED, "weight_inputs: {w: gain}"), target=on)
    np.testing.assert_allclose(both(made, on=on)["y"], np.maximum(X * tensor(made, "gain"), 0), atol=1e-6)


def test_streams_go_in_and_out(tmp_path: Path) -> None:
    text = """\
halves (float[n, s, 6] x, float[n, s, 6] other) => (float[n, s, 3] first, float[n, s, 3] second)
{
  sum = Add(x, other)
  first, second = Split <axis = -1, num_outputs = 2> (sum)
}
"""
    flow = "  - store_stream: kept\n" + stage(
        text, "stream_inputs: {other: kept}", "stream_outputs: {second: rest}"
    ) + "  - output: first\n  - load_stream: rest\n"  # fmt: skip
    found = both(compiled(tmp_path, flow))
    np.testing.assert_allclose(found["first"], 2 * X[..., :3], atol=1e-6)
    np.testing.assert_allclose(found["y"], 2 * X[..., 3:], atol=1e-6)


def test_an_output_for_streams_alone_leaves_the_active_value(tmp_path: Path) -> None:
    flow = stage(SCALED, "weight_inputs: {w: gain}", "stream_outputs: {y: scaled}") + "  - add_stream: scaled\n"
    made = compiled(tmp_path, flow)
    np.testing.assert_allclose(both(made)["y"], X + np.maximum(X * tensor(made, "gain"), 0), atol=1e-6)


def test_braces_and_dollar_signs_are_the_texts_own_and_names_of_weights_are_filled_in(tmp_path: Path) -> None:
    text = """\
g (float[n, s, 6] x, float[6] w) => (float[n, s, 6] y) <float[1] i = {3}>
{
  u = Mul(x, w)
  k = Constant <value_floats = [2.0]> ()
  v = Mul(u, i)
  y = Mul(v, k)
}
"""
    flow = "  - repeat:\n      count: 2\n      body:\n" + indent(stage(text, "weight_inputs: {w: 'g.{i}'}"), " " * 6)
    made = compiled(tmp_path, flow)
    np.testing.assert_allclose(both(made)["y"], 36 * X * tensor(made, "g.0") * tensor(made, "g.1"), rtol=1e-5)


@pytest.mark.parametrize("on", ["ort-cpu", "portable"])
def test_nested_graphs_read_what_is_outside(tmp_path: Path, on: str) -> None:
    text = """\
sums (float[n, s, 6] x, float[6] w) => (float[s, n, 6] y)
<float[1] none = {0}, int64[1] six = {6}, int64[1] axis = {0}>
{
  turned = Transpose <perm = [1, 0, 2]> (x)
  zero = Mul(w, none)
  start = Expand(zero, six)
  last, y = Scan <num_scan_inputs = 1, body = step (float[6] total, float[n, 6] row) =>
      (float[6] after, float[n, 6] out)
      {
        mean = ReduceMean <keepdims = 0> (row, axis)
        scaled = Mul(mean, w)
        after = Add(total, scaled)
        out = Add(row, after)
      }> (start, turned)
}
"""
    made = compiled(tmp_path, stage(text, "weight_inputs: {w: gain}"), target=on)
    turned, total = X.transpose(1, 0, 2), np.cumsum(X.mean(axis=0) * tensor(made, "gain"), axis=0)
    np.testing.assert_allclose(both(made, on=on)["y"], turned + total[:, None], atol=1e-6)


def test_an_input_may_go_straight_through_and_twice(tmp_path: Path) -> None:
    text = (
        "same (float[n, s, 6] x) => (float[n, s, 6] a, float[n, s, 6] b)\n{\n  a = Identity(x)\n  b = Identity(x)\n}\n"
    )
    made = compiled(tmp_path, stage(text, "stream_outputs: {b: copy}") + "  - add_stream: copy\n")
    np.testing.assert_allclose(both(made)["y"], 2 * X, atol=1e-6)


def test_a_file_beside_the_spec(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "scaled.onnxtxt").write_text(SCALED)
    named = compiled(tmp_path, "  - custom: {file: parts/scaled.onnxtxt, weight_inputs: {w: gain}}\n")
    inline = compiled(tmp_path, stage(SCALED, "weight_inputs: {w: gain}"))
    assert np.array_equal(both(named)["y"], both(inline)["y"])
    assert named.resolved_spec == inline.resolved_spec
    (tmp_path / "parts" / "scaled.onnxtxt").write_text(SCALED.replace("Relu", "Tanh"))
    changed = compiled(tmp_path, "  - custom: {file: parts/scaled.onnxtxt, weight_inputs: {w: gain}}\n")
    assert changed.spec_sha256 != named.spec_sha256


def test_every_phase_of_a_decoder_with_its_mask_and_positions(tmp_path: Path) -> None:
    text = """\
p (float[n, s, 32] x, int64[n, s] ids, int64[n, total] mask) => (float[n, s, 32] y)
{
  f = Cast <to = 1> (ids)
  last = Constant <value_ints = [-1]> ()
  column = Unsqueeze(f, last)
  many = ReduceSum(mask, last)
  count = Cast <to = 1> (many)
  per_row = Unsqueeze(count, last)
  share = Div(column, per_row)
  y = Add(x, share)
}
"""
    model = "{hidden: 32, vocab: 61, heads: 2, kv_heads: 1, head_dim: 8}"
    head = f"flowc: 1\nname: d\nmodel: {model}\nweights: {{random: 1}}\noutput: hidden\nflow:\n"
    flow = ("  - embed: e\n" + stage(text, "stream_inputs: {ids: position_ids, mask: attention_mask}")
            + "  - self_attn_prefill: {prefix: layers.0, rope: null}\n")  # fmt: skip
    made = compiled(tmp_path, flow, head)
    ids, mask = np.arange(8).reshape(2, 4), np.array([[0, 1, 1, 1], [1, 1, 1, 1]])
    past: dict[str, Array] = {}
    for phase, start, stop in (("prefill", 0, 2), ("decode", 2, 3), ("unified", 2, 4)):
        feeds = {"input_ids": ids[:, start:stop], "attention_mask": mask[:, :stop], **past}
        meant = run(made.expanded[phase], feeds, made)
        found = run_onnx(made.graphs[phase], feeds, made)
        kept = mask[:, start:stop].astype(bool)
        np.testing.assert_allclose(found["hidden"][kept], meant["hidden"][kept], atol=1e-5)
        if phase == "prefill":
            past = {n.replace("present.", "past_key_values."): v for n, v in found.items() if n != "hidden"}


def test_contrib_operators_where_the_target_has_them(tmp_path: Path) -> None:
    text = "q (float[n, s, 6] x) => (float[n, s, 6] y)\n{\n  y = com.microsoft.QuickGelu <alpha = 1.0> (x)\n}\n"
    made = compiled(tmp_path, stage(text))
    np.testing.assert_allclose(both(made)["y"], X / (1 + np.exp(-X)), atol=1e-6)
    with pytest.raises(SpecError, match="QuickGelu") as caught:
        compiled(tmp_path, stage(text), target="portable")
    assert caught.value.diagnostics[0].span is not None


# Refusals

BAD_TEXTS = {
    "no end": (SCALED.replace("Relu(t)", "Relu(t"), "not valid"),
    "an unknown operator": (SCALED.replace("Relu", "Rellu"), "no operator 'Rellu'"),
    "a foreign domain": (SCALED.replace("Relu", "my.domain.Relu"), "my.domain"),
    "an undefined value": (SCALED.replace("Relu(t)", "Relu(q)"), "'q'"),
    "randomness": (SCALED.replace("Relu(t)", "RandomUniformLike(t)"), "not the same on every run"),
    "an output without a shape": (SCALED.replace("=> (float[n, s, 6] y)", "=> (float y)"), "'y'"),
    "an element type": (SCALED.replace("float[n, s, 6] x", "string[n, s, 6] x"), "string"),
    "another width": (SCALED.replace("float[n, s, 6] x", "float[n, s, 7] x"), "declared"),
    "one size for two": (SCALED.replace("float[n, s, 6] x", "float[s, s, 6] x"), "declared"),
    "an output of another shape": (SCALED.replace("=> (float[n, s, 6] y)", "=> (float[n, s, 5] y)"), "declared"),
    "an output of another type": (SCALED.replace("=> (float[n, s, 6] y)", "=> (int64[n, s, 6] y)"), ""),
    "operands that do not fit": (SCALED.replace("Mul(x, w)", "MatMul(x, w)").replace("float[6] w", "float[5] w"), ""),
    "data in another file": (
        SCALED.replace("y)\n{", 'y) <float[6] far = ["location": "/etc/passwd", "offset": "0"]>\n{', 1).replace(
            "Relu(t)", "Add(t, far)"
        ),
        "lies in another file",
    ),
    "too deep": (SCALED + "(" * 100, "brackets"),
    "too long": (SCALED + "#" * 70_000, "longer"),
}


@pytest.mark.parametrize(("text", "says"), BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_a_text_that_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    found = problem(tmp_path, stage(text, "weight_inputs: {w: gain}"))
    assert found.code in ("bad-custom", "bad-shape")
    assert says in found.message
    assert found.span is not None


def test_the_place_is_the_line_in_the_spec(tmp_path: Path) -> None:
    found = problem(tmp_path, stage(SCALED.replace("Mul(x, w)", "Mul(x, ! w)"), "weight_inputs: {w: gain}"))
    assert found.span is not None
    assert "Mul(x, ! w)" in found.span.source.line(found.span.line)


def test_the_place_is_the_line_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "scaled.onnxtxt").write_text(SCALED.replace("Mul(x, w)", "Mul(x, ! w)"))
    found = problem(tmp_path, "  - custom: {file: scaled.onnxtxt, weight_inputs: {w: gain}}\n")
    assert found.span is not None
    assert (Path(found.span.source.name).name, found.span.line) == ("scaled.onnxtxt", 3)


WIRES = {
    "an input that is not there": ("weight_inputs: {v: gain}", "no input 'v'"),
    "an output that is not there": ("weight_inputs: {w: gain}\n      stream_outputs: {z: s}", "no output 'z'"),
    "two active inputs": ("stream_inputs: {}", "x, w"),
    "a stream that is not there": ("stream_inputs: {w: nothing}", "no stream 'nothing'"),
    "a weight and a stream": ("weight_inputs: {w: gain}\n      stream_inputs: {w: kept}", "both"),
}


@pytest.mark.parametrize(("fields", "says"), WIRES.values(), ids=WIRES)
def test_wires_that_lead_nowhere(tmp_path: Path, fields: str, says: str) -> None:
    assert says in problem(tmp_path, stage(SCALED, fields)).message


@pytest.mark.parametrize(
    "name", ["../secret.onnxtxt", "/etc/hostname", "parts/../../secret.onnxtxt", "link", "none", "."]
)
def test_a_file_stays_in_the_specs_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.onnxtxt").write_text(SCALED)
    folder = tmp_path / "spec"
    (folder / "parts").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "secret.onnxtxt")
    found = problem(folder, f"  - custom: {{file: {name}, weight_inputs: {{w: gain}}}}\n")
    assert found.code == "bad-custom"
    assert "scaled" not in found.message


def test_a_text_or_a_file_and_not_both(tmp_path: Path) -> None:
    assert problem(tmp_path, stage(SCALED, "file: scaled.onnxtxt", "weight_inputs: {w: gain}")).code == "missing-field"
    assert problem(tmp_path, "  - custom: {weight_inputs: {w: gain}}\n").code == "missing-field"


def test_a_built_model_verifies_without_the_file(tmp_path: Path) -> None:
    spec = tmp_path / "model.yaml"
    (tmp_path / "scaled.onnxtxt").write_text(SCALED)
    spec.write_text(HEAD + "  - custom: {file: scaled.onnxtxt, weight_inputs: {w: gain}}\n")
    made = build(compile_file(spec, Request()), tmp_path / "out" / "model.onnx", verify="off")
    (body,) = (s["custom"] for s in made.manifest["spec"]["flow"])
    assert body == {"weight_inputs": {"w": "gain"}, "onnx": SCALED}
