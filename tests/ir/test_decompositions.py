"""Functions of opset 20 in place of newer operators: onnxruntime gives what it gives for the operators themselves.

Their numpy meaning is held to them by every test of this folder that runs on the target `portable-20`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
from onnx import checker, parser

from flowc.build.facts import metadata
from flowc.errors import InternalError
from flowc.lowering.decompositions import inline_decompositions
from flowc.lowering.lower import lower
from flowc.targets.registry import target
from tests.cli.calling import BASE, done, flowc, write_spec
from tests.ir.running import ort
from tests.oracle_io import ROOT, Array

PAST = "float[2,2,4,6] past_key, float[2,2,4,6] past_value"
ATTENTIONS = {
    "alone": ("", "q, k, v", "", 1),
    "with a cache": (PAST, "q, k, v, , past_key, past_value", "", 3),
    "causal": ("", "q, k, v", "is_causal = 1", 3),
    "causal behind a cache": (PAST, "q, k, v, , past_key, past_value", "is_causal = 1", 3),
    "soft-capped": ("", "q, k, v", "softcap = 3.0", 3),
    "masked": ("bool[2,1,5,5] mask", "q, k, v, mask", "", 1),
    "masked, one row for all": ("bool[1,1,5,5] mask", "q, k, v, mask", "", 1),
    "masked behind a cache": (f"bool[2,1,5,9] mask, {PAST}", "q, k, v, mask, past_key, past_value", "softcap = 2.0", 3),
    "biased": ("float[1,4,5,5] mask", "q, k, v, mask", "", 1),
    "biased and causal": ("float[2,4,5,5] mask", "q, k, v, mask", "is_causal = 1", 1),
    "masked and causal": ("bool[2,1,5,5] mask", "q, k, v, mask", "is_causal = 1", 1),
}
TABLES = "float[2,5,{half}] cos, float[2,5,{half}] sin"
ROWS = "float[7,{half}] cos, float[7,{half}] sin, int64[2,5] ids"
ROPES = {
    f"{order}, {half} pairs, {form}": (given.format(half=half), operands, interleaved, half)
    for order, interleaved in (("halves", 0), ("neighbours", 1))
    for half in (3, 2)
    for form, given, operands in (("tables", TABLES, "x, cos, sin"), ("rows of tables", ROWS, "x, cos, sin, ids"))
}


def both(inputs: str, body: str, outputs: str, **feeds: Array) -> tuple[list[Array], list[Array]]:
    """What onnxruntime gives for a graph in ONNX text, and for the same in opset 20."""
    text = f'<ir_version: 10, opset_import: ["": 24]> g ({inputs}) => ({outputs}) {{ {body} }}'
    model = parser.parse_model(text)
    lowered = onnx_ir.from_proto(model)
    inline_decompositions(lowered, 9)
    proto = onnx_ir.to_proto(lowered)
    checker.check_model(proto, full_check=True)
    assert (proto.ir_version, [o.version for o in proto.opset_import]) == (9, [20])
    assert not proto.functions
    newer, older = (_run(m.SerializeToString(), feeds) for m in (model, proto))
    return newer, older


def _run(model: bytes, feeds: dict[str, Array]) -> list[Array]:
    session: Any = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def drawn(inputs: str) -> dict[str, Array]:
    """Seeded values for inputs as ONNX text declares them; a mask leaves out some keys, and all of one query."""
    rng, feeds = np.random.default_rng(0), dict[str, Array]()
    for kind, name in (part.split() for part in inputs.replace(", ", ";").split(";")):
        shape = tuple(map(int, kind.partition("[")[2].rstrip("]").split(",")))
        if kind.startswith("bool"):
            feeds[name] = rng.random(shape) < 0.7
            feeds[name][..., 1, :] = False
        elif kind.startswith("int64"):
            feeds[name] = rng.integers(0, 7, shape)
        else:
            feeds[name] = rng.standard_normal(shape).astype(np.float32)
            if name == "mask":
                feeds[name][..., 2, 1] = -np.inf
    return feeds


def same(newer: list[Array], older: list[Array]) -> None:
    assert len(newer) == len(older)
    for a, b in zip(newer, older, strict=True):
        assert a.shape == b.shape
        assert np.abs(a).max() > 0.1
        np.testing.assert_allclose(b, a, rtol=0, atol=2e-6)


@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("options", ATTENTIONS)
def test_attention(options: str, kv_heads: int) -> None:
    more, operands, attributes, results = ATTENTIONS[options]
    more = more.replace("float[2,2,4,6]", f"float[2,{kv_heads},4,6]")
    inputs = f"float[2,5,24] q, float[2,5,{6 * kv_heads}] k, float[2,5,{6 * kv_heads}] v" + (
        f", {more}" if more else ""
    )
    facts = f"q_num_heads = 4, kv_num_heads = {kv_heads}, scale = 0.4" + (f", {attributes}" if attributes else "")
    names = ["y", "keys", "values"][:results]
    outputs = ", ".join(f"float[{'b,h,t,d' if n != 'y' else 'b,s,w'}] {n}" for n in names)
    newer, older = both(inputs, f"{', '.join(names)} = Attention<{facts}>({operands})", outputs, **drawn(inputs))
    same(newer, older)


@pytest.mark.parametrize("kv_heads", [2, 4])
def test_attention_of_four_axes(kv_heads: int) -> None:
    given = f"float[2,{kv_heads},7,6] k, float[2,{kv_heads},7,8] v, bool[2,1,5,7] mask"
    inputs = f"float[2,4,5,6] q, {given}"
    node = "y = Attention<scale = 0.4>(q, k, v, mask)"
    same(*both(inputs, node, "float[2,4,5,8] y", **drawn(inputs)))


@pytest.mark.parametrize("options", ROPES)
def test_rotary_embedding(options: str) -> None:
    given, operands, interleaved, half = ROPES[options]
    inputs = f"float[2,5,18] x, {given}"
    facts = f"num_heads = 3, interleaved = {interleaved}, rotary_embedding_dim = {2 * half if half < 3 else 0}"
    same(*both(inputs, f"y = RotaryEmbedding<{facts}>({operands})", "float[2,5,18] y", **drawn(inputs)))


@pytest.mark.parametrize(
    ("inputs", "node"),
    [
        ("float[2,5,8] x, float[8] w", "RMSNormalization<axis = -1, epsilon = 0.001>(x, w)"),
        ("float[2,5,3,8] x, float[8] w", "RMSNormalization(x, w)"),
        ("float[2,5,8] x, float[8] w", "LayerNormalization<epsilon = 0.001>(x, w)"),
    ],
)
def test_norms(inputs: str, node: str) -> None:
    output = inputs.partition(" ")[0]
    same(*both(inputs, f"y = {node}", f"{output} y", **drawn(inputs)))


@pytest.mark.parametrize("last", [0, 1])
def test_arg_max_of_whole_numbers(last: int) -> None:
    ids = np.asarray([[3, 2**52, 2**52, 1], [1, 1, 0, 1]])
    node = f"y = ArgMax<axis = 1, keepdims = 0, select_last_index = {last}>(x)"
    newer, older = both("int64[2,4] x", node, "int64[2] y", x=ids)
    assert older[0].tolist() == newer[0].tolist() == ([2, 3] if last else [1, 0])


@pytest.mark.parametrize(
    ("inputs", "node", "message"),
    [
        ("float[1,2,3,4] x", "Attention(x, x, x)", "Attention of unknown heads or without a scale"),
        ("float[2,5,8] x, float[5,8] w", "RMSNormalization<axis = 1>(x, w)", "several axes"),
        ("float[2,8] x", "Swish(x)", "no operator 'Swish'"),
        ("float[2,8] x", 'Cast<to = 1, round_mode = "up">(x)', "'Cast' with the attribute 'round_mode'"),
    ],
)
def test_what_no_function_stands_for_is_refused(inputs: str, node: str, message: str) -> None:
    with pytest.raises(InternalError, match=message):
        both(inputs, f"y = {node}", "float[2,8] y")


def test_inside_of_nested_graphs_too() -> None:
    branch = "if_true = RMSNormalization(x, w)"
    body = (
        "go = Constant<value = bool {1}>() y = If(go) <then_branch = t () => (float[2,8] a) "
        f"{{ a = {branch.partition(' = ')[2]} }}, else_branch = e () => (float[2,8] b) {{ b = Identity(x) }}>"
    )
    same(*both("float[2,8] x, float[8] w", body, "float[2,8] y", **drawn("float[2,8] x, float[8] w")))


def test_graphs_of_the_target_portable_give_the_same_in_opset_20(tmp_path: Path) -> None:
    from flowc.build.compiled import Request
    from flowc.compile import build, compile_file
    from tests.parity.harness import Model

    compiled = compile_file(ROOT / "examples" / "tiny-llama.yaml", Request(target="portable"))
    build(compiled, tmp_path / "model.onnx", verify="off")
    ids = np.random.default_rng(0).integers(0, 256, (2, 6))
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    feeds["attention_mask"][1, :2] = 0
    wanted = Model(compiled, tmp_path).run("prefill", feeds)
    model = onnx_ir.load(tmp_path / "model.prefill.onnx")
    inline_decompositions(model, 9)
    (tmp_path / "model.prefill.onnx").write_bytes(onnx_ir.to_proto(model).SerializeToString())
    found = Model(compiled, tmp_path).run("prefill", feeds)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        keep = feeds["attention_mask"].astype(bool)[:, None, :, None] if value.ndim == 4 else True
        assert np.abs(np.where(keep, found[name] - value, 0)).max() < 1e-5


def test_a_build_is_verified_and_says_what_it_is_for(tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    done("build", spec, "-o", tmp_path / "m.onnx", "--target", "portable-20", "--verify", "full")
    model = onnx_ir.load(tmp_path / "m.decode.onnx")
    assert (model.ir_version, dict(model.opset_imports)) == (9, {"": 20})
    assert {node.metadata_props.get("flowc.stage", "") for node in model.graph} >= {"embed", "lm_head"}
    assert json.loads((tmp_path / "m.flowc.json").read_text())["min_onnxruntime"] == "1.17.0"


def test_names_and_bytes_are_the_same_every_time() -> None:
    from flowc.build.compiled import Request
    from flowc.compile import compile_file

    compiled = compile_file(ROOT / "examples" / "tiny-llama.yaml", Request(target="portable-20"))
    made = [
        lower(compiled.graphs["decode"], target("portable-20"), metadata(compiled, "decode")).serialize() for _ in "ab"
    ]
    assert made[0] == made[1]


def test_a_subgraph_with_newer_operators_is_refused_at_its_place(tmp_path: Path) -> None:
    stage = (
        '  - custom: {onnx: "g (float[b, s, 8] x) => (float[b, s, 8] y) { y = Swish(x) }"}\n  - rms_norm: norm.weight'
    )
    spec = write_spec(tmp_path, BASE.replace("  - rms_norm: norm.weight", stage))
    done("build", spec, "-o", tmp_path / "m.onnx", "--target", "portable", "--verify", "off")
    called = flowc("build", spec, "-o", tmp_path / "m.onnx", "--target", "portable-20", "--json")
    (found,) = called.diagnostics()
    assert (called.code, found["code"], found["line"] > 0) == (2, "bad-custom", True)
    assert "not 'Swish'" in found["message"]
