"""Stages of diffusion transformers: what they refuse, and that each equals its meaning written out in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowc.build.compiled import Request
from flowc.compile import build, compile_file
from flowc.errors import Diagnostic, SpecError
from flowc.ir.interpret import interpret
from tests.oracle_io import Array
from tests.parity.harness import Model

INPUTS = {
    "x": "float32[batch_size, tokens, 16]",
    "c": "float32[batch_size, 16]",
    "t": "float32[batch_size]",
    "rows": "float32[rows, 2]",
    "columns": "float32[columns, 2]",
    "cos": "float32[tokens, 8]",
    "sin": "float32[tokens, 8]",
}


def spec(folder: Path, flow: str, inputs: str = "x") -> Path:
    """A spec with these inputs, of stages written one a line."""
    path = folder / "model.yaml"
    named = "".join(f"  {n}: {INPUTS[n]}\n" for n in inputs.split())
    stages = "".join(f"  - {line.strip()}\n" for line in flow.strip().splitlines())
    path.write_text(f"flowc: 1\nweights: {{random: 0}}\noutput: y\ninputs:\n{named}flow:\n{stages}", encoding="utf-8")
    return path


def computed(folder: Path, flow: str, feeds: dict[str, Array]) -> Array:
    """The result, once onnxruntime and the interpreter agree on it."""
    compiled = compile_file(spec(folder, flow, " ".join(feeds)), Request(target="portable"))
    build(compiled, folder / "model.onnx", verify="off")
    assert compiled.checkpoint is not None
    want = interpret(compiled.expanded["encode"], feeds, compiled.checkpoint.read)["y"]
    got = Model(compiled, folder).run("encode", feeds)["y"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    return want


def problem(folder: Path, flow: str, inputs: str = "x") -> Diagnostic:
    with pytest.raises(SpecError) as caught:
        compile_file(spec(folder, flow, inputs), Request())
    return caught.value.diagnostics[0]


def draw(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).standard_normal(shape, np.float32)


def test_a_timestep_becomes_cosines_then_sines(tmp_path: Path) -> None:
    t = np.array([0.0, 0.25, 1.0], np.float32)
    got = computed(tmp_path, "timestep_sinusoid: {dim: 6, factor: 100, max_period: 64}", {"t": t})
    angles = 100 * t[:, None].astype(np.float64) * 64.0 ** (-np.arange(3) / 3)
    np.testing.assert_allclose(got, np.concatenate([np.cos(angles), np.sin(angles)], axis=1), atol=1e-5)


def test_modulate_scales_and_shifts_a_norm_without_gain(tmp_path: Path) -> None:
    x, c = draw(2, 3, 16), draw(2, 16)
    flow = (
        "store_stream: kept\n input: c\n store_stream: c\n load_stream: kept\n modulate: {shift: c, scale: c, eps: 0.1}"
    )
    got = computed(tmp_path, flow, {"x": x, "c": c})
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.1)
    np.testing.assert_allclose(got, normed * (1 + c[:, None]) + c[:, None], rtol=1e-4, atol=1e-5)


QKV = "project_qkv: {q: q.weight, k: k.weight, v: v.weight, heads: 2, head_dim: 8, bias: false}"


def rotated(x: Array, angles: Array) -> Array:
    """Pairs of neighbours of x [batch, tokens, heads, dim] turned by angles [tokens, dim / 2]."""
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)[None, :, None]
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def attended(qkv: Array, angles: Array) -> Array:
    q, k, v = (part.reshape(*part.shape[:2], 2, 8) for part in np.split(qkv, 3, axis=-1))
    scores = np.einsum("bqhd,bkhd->bhqk", rotated(q, angles), rotated(k, angles)) / np.sqrt(8)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    return np.einsum("bhqk,bkhd->bqhd", weights, v).reshape(*qkv.shape[:2], 16)


def test_attention_with_a_rope_from_inputs(tmp_path: Path) -> None:
    x, angles = draw(2, 5, 16), np.random.default_rng(1).uniform(-3, 3, (5, 4))
    feeds = {
        "x": x,
        **{n: f(angles).repeat(2, axis=1).astype(np.float32) for n, f in (("cos", np.cos), ("sin", np.sin))},
    }
    rope, attention = "rope_inputs: {cos: cos, sin: sin}", "joint_attention: {heads: 2, head_dim: 8}"
    qkv = computed(tmp_path, QKV, {"x": x})
    got = computed(tmp_path, f"{QKV}\n{rope}\n{attention}", feeds)
    np.testing.assert_allclose(got, attended(qkv, angles), rtol=1e-4, atol=1e-5)


def test_attention_with_a_rope_of_two_axes(tmp_path: Path) -> None:
    x, rows, columns = draw(1, 5, 16), 10 * draw(2, 2), 10 * draw(3, 2)
    feeds = {"x": x, "rows": rows, "columns": columns}
    rope, attention = (
        "axial_rope: {ids: [rows, columns], dims: [2, 6], theta: 50}",
        "joint_attention: {heads: 2, head_dim: 8}",
    )
    qkv = computed(tmp_path, QKV, {"x": x})
    got = computed(tmp_path, f"{QKV}\n{rope}\n{attention}", feeds)
    ids = np.concatenate([rows, columns]).astype(np.float64)
    angles = np.concatenate([ids[:, :1], ids[:, 1:] * 50.0 ** (-np.arange(3) / 3)], axis=1)
    np.testing.assert_allclose(got, attended(qkv, angles), rtol=1e-4, atol=1e-5)


REFUSALS = {
    "a condition that is no stream": (
        "modulation: {condition: c, weight: w, hidden: 16, into: [a]}", "x", "undefined-slot",
    ),
    "one name for two chunks": (
        "store_stream: c\n modulation: {condition: c, weight: w, hidden: 16, into: [a, a]}", "x", "bad-value",
    ),
    "no chunks": ("store_stream: c\n modulation: {condition: c, weight: w, hidden: 16, into: []}", "x", "bad-value"),
    "a shift of another width": (
        "store_stream: s\n linear: {weight: w, out: 8}\n modulate: {shift: s, scale: s, eps: 0.1}", "x", "bad-shape",
    ),
    "norms of q and k without an epsilon": (QKV.replace("}", ", q_norm: g.weight}"), "x", "missing-field"),
    "attention over what is no q, k and v": ("joint_attention: {heads: 2, head_dim: 8, rope: null}", "x", "bad-shape"),
    "a rope that is not there": (f"{QKV}\n joint_attention: {{heads: 2, head_dim: 8}}", "x", "undefined-rope"),
    "positions of another number of axes": ("axial_rope: {ids: [rows], dims: [8], theta: 10}", "x rows", "bad-shape"),
    "an odd number of channels": ("axial_rope: {ids: [rows], dims: [3, 5], theta: 10}", "x rows", "bad-shape"),
    "channels beyond measure": ("axial_rope: {ids: [rows], dims: [4, 1000000], theta: 10}", "x rows", "bad-shape"),
    "a base without frequencies": ("axial_rope: {ids: [rows], dims: [4, 4], theta: 1e-320}", "x rows", "bad-value"),
    "no positions": ("axial_rope: {ids: [], dims: [8], theta: 10}", "x", "bad-value"),
    "two ropes of one name": (
        "axial_rope: {ids: [rows], dims: [4, 4], theta: 10}\n axial_rope: {ids: [rows], dims: [4, 4], theta: 10}",
        "x rows", "duplicate-rope",
    ),
    "tables that are no tables": ("rope_inputs: {cos: x, sin: x}", "x", "bad-shape"),
    "a timestep for every token": ("timestep_sinusoid: {dim: 8}", "x", "bad-shape"),
    "a sinusoid beyond measure": ("timestep_sinusoid: {dim: 1000000000000}", "t", "bad-shape"),
    "an odd sinusoid": ("timestep_sinusoid: {dim: 7}", "t", "bad-shape"),
}  # fmt: skip


@pytest.mark.parametrize(("flow", "inputs", "code"), REFUSALS.values(), ids=REFUSALS)
def test_what_does_not_fit_is_refused_at_its_line(flow: str, inputs: str, code: str, tmp_path: Path) -> None:
    found = problem(tmp_path, flow, inputs)
    assert found.code == code, found.render()
    assert found.span is not None
