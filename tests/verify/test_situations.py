"""Faults that show in one situation only: `flowc verify` meets it, and names the stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import safetensors.numpy

from flowc.build import manifest as manifests
from flowc.build.compiled import Request
from flowc.compile import build, compile_file
from flowc.errors import CheckFailed
from flowc.frontend.state import Options
from flowc.verify import quick
from flowc.verify.checks import Checks
from flowc.verify.full import verify
from flowc.verify.rebuild import recompile
from tests.mutation.damage import edited
from tests.oracle_io import ROOT

ALL = ("model.onnx", "model.prefill.onnx", "model.decode.onnx")


def made(folder: Path, example: str, **asked: Any) -> Path:
    build(compile_file(ROOT / "examples" / f"{example}.yaml", Request(**asked)), folder / "model.onnx")
    return folder


def checked(folder: Path) -> Checks:
    manifest = manifests.load(folder)
    return verify(manifest, recompile(manifest))


def spoiled(folder: Path, edit: Callable[[Any], None], files: Sequence[str] = ALL) -> Checks:
    for name in files:
        edited(name, edit)(folder)
    return checked(folder)


def stage_of(checks: Checks) -> str:
    return next((c.location.stage for c in checks.failures if c.location is not None), "")


def number(model: Any, value: object, dtype: Any = np.int64) -> str:
    """A constant in the graph."""
    name = f"planted.{len(model.graph.initializer)}"
    model.graph.initializer.append(onnx.numpy_helper.from_array(cast("Any", np.array(value, dtype)), name))
    return name


def op(kind: str, inputs: list[str], outputs: list[str], **attributes: int) -> Any:
    """A node with whole numbers for attributes."""
    given = [onnx.AttributeProto(name=k, type=onnx.AttributeProto.INT, i=v) for k, v in attributes.items()]
    return onnx.NodeProto(op_type=kind, input=inputs, output=outputs, attribute=given)


def maker(model: Any, value: str) -> Any:
    return next(n for n in model.graph.node if value in n.output)


def put(model: Any, value: str, *nodes: Any) -> None:
    """Readers of a value, an input or an operator's, get the last result of `nodes` instead."""
    for node in model.graph.node:
        node.input[:] = [nodes[-1].output[0] if v == value else v for v in node.input]
    at = next((i + 1 for i, n in enumerate(model.graph.node) if value in n.output), 0)
    for i, node in enumerate(nodes):
        model.graph.node.insert(at + i, node)


def over_logits(model: Any, *nodes: Any) -> None:
    """Operators between `planted.logits`, what the graph computes, and its output."""
    node = maker(model, "logits")
    node.output[:] = ["planted.logits" if v == "logits" else v for v in node.output]
    model.graph.node.extend(nodes)


def clipped(limit: int) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        ids = next(n for n in model.graph.node if n.op_type == "RotaryEmbedding").input[3]
        put(model, ids, op("Min", [ids, number(model, limit)], ["planted"]))

    return edit


def test_a_long_prompt(tmp_path: Path) -> None:
    checks = spoiled(made(tmp_path, "tiny-llama"), clipped(30), ["model.prefill.onnx"])
    assert stage_of(checks) == "repeat.layers.0.llama_decoder"


@pytest.mark.parametrize(("operator", "limit"), [("Min", 254), ("Max", 1)])
def test_the_first_and_the_last_token(operator: str, limit: int, tmp_path: Path) -> None:
    def edit(model: Any) -> None:
        put(model, "input_ids", op(operator, ["input_ids", number(model, limit)], ["planted"]))

    assert stage_of(spoiled(made(tmp_path, "tiny-llama"), edit)) == "embed"


def test_a_step_over_nothing(tmp_path: Path) -> None:
    def edit(model: Any) -> None:
        over_logits(
            model,
            op("Shape", ["past_key_values.0.key"], ["planted.past"], start=2, end=3),
            op("Cast", ["planted.past"], ["planted.any"], to=onnx.TensorProto.BOOL),
            op("Where", ["planted.any", "planted.logits", number(model, 0, np.float32)], ["logits"]),
        )

    failures = spoiled(made(tmp_path, "tiny-llama"), edit, ["model.decode.onnx"]).failures
    assert {(c.name, c.graph) for c in failures} == {("lowered", "decode"), ("numbers", "decode"), ("pair", "decode")}


@pytest.mark.parametrize("file", ALL)
def test_rows_whose_new_tokens_are_all_masked(file: str, tmp_path: Path) -> None:
    def edit(model: Any) -> None:
        over_logits(
            model,
            op("Shape", ["input_ids"], ["planted.shape"], start=1, end=2),
            op("Neg", ["planted.shape"], ["planted.start"]),
            op(
                "Slice",
                ["attention_mask", "planted.start", number(model, [1 << 62]), number(model, [1])],
                ["planted.new"],
            ),
            op("ReduceMax", ["planted.new", number(model, [1])], ["planted.most"], keepdims=1),
            op("Cast", ["planted.most"], ["planted.any"], to=onnx.TensorProto.BOOL),
            op("Unsqueeze", ["planted.any", number(model, [1])], ["planted.rows"]),
            op("Where", ["planted.rows", "planted.logits", number(model, np.nan, np.float32)], ["logits"]),
        )

    assert {c.name for c in spoiled(made(tmp_path, "tiny-llama"), edit, [file]).failures} >= {"finite"}


def test_a_masked_step_leaves_a_recurrent_state(tmp_path: Path) -> None:
    def edit(model: Any) -> None:
        state = maker(model, "present.0.conv_state")
        assert state.op_type == "Where"
        state.CopyFrom(op("Identity", [state.input[1]], list(state.output)))

    checks = spoiled(made(tmp_path, "qwen3-next"), edit, ["model.decode.onnx"])
    assert stage_of(checks) == "repeat.layers.0.when.gated_delta_net"
    assert {c.graph for c in checks.failures if c.name == "step"} == {"decode"}


@pytest.mark.parametrize("target", ["ort-cpu", "portable"])
def test_padding_in_a_decode_graph_alone(target: str, tmp_path: Path) -> None:
    def edit(model: Any) -> None:
        cast = next(n for n in model.graph.node if n.op_type == "Cast" and "attention/mask" in n.output[0])
        put(
            model,
            cast.output[0],
            op("Or", [cast.output[0], number(model, True, np.bool_)], ["planted"]),
        )

    checks = spoiled(made(tmp_path, "mistral", target=target, graphs=("decode",)), edit, ["model.decode.onnx"])
    assert stage_of(checks) == "repeat.layers.0.llama_decoder"


def per_row(model: Any) -> None:
    largest = next(n for n in model.graph.node if n.op_type == "ReduceMax")
    del largest.attribute[:]
    largest.attribute.append(onnx.AttributeProto(name="keepdims", type=onnx.AttributeProto.INT, i=1))
    largest.input.append(number(model, [1]))


def by_columns(model: Any) -> None:
    largest = next(n for n in model.graph.node if n.op_type == "ReduceMax")
    put(
        model,
        largest.output[0],
        op("Shape", ["attention_mask"], ["planted.shape"], start=1, end=2),
        op("Squeeze", ["planted.shape"], ["planted.columns"]),
        op("Sub", ["planted.columns", number(model, 1)], ["planted"]),
    )


def one_of(axis: int, index: int) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        largest = next(n for n in model.graph.node if n.op_type == "ReduceMax")
        place = list(model.graph.node).index(largest)
        some = op("Gather", [largest.input[0], number(model, [index])], ["planted"], axis=axis)
        largest.input[0] = "planted"
        model.graph.node.insert(place, some)

    return edit


@pytest.mark.parametrize("edit", [per_row, by_columns, one_of(0, 0), one_of(1, -1)],
                         ids=["per row", "by columns", "first row", "last column"])  # fmt: skip
def test_who_switches_a_longrope(edit: Callable[[Any], None], tmp_path: Path) -> None:
    assert stage_of(spoiled(made(tmp_path, "phi3"), edit)) == "repeat.layers.0.phi3_decoder"


def test_a_window_over_holes(tmp_path: Path) -> None:
    """Windows count tokens, not columns."""

    def edit(model: Any) -> None:
        ones = [
            op("Shape", ["attention_mask"], ["planted.shape"]),
            op("Expand", [number(model, 1), "planted.shape"], ["planted.ones"]),
            op("CumSum", ["planted.ones", number(model, 1)], ["planted.columns"]),
            op("Unsqueeze", ["planted.columns", number(model, [1, 2])], ["planted.keys"]),
            op("Slice", ["planted.columns", number(model, [-1]), number(model, [1 << 62]),
                                       number(model, [1])], ["planted.newest"]),
            op("Unsqueeze", ["planted.newest", number(model, [1, 3])], ["planted.queries"]),
        ]  # fmt: skip
        for i, node in enumerate(ones):
            model.graph.node.insert(i, node)
        for node in model.graph.node:
            if node.op_type == "Sub" and "Distance" in node.output[0]:
                node.input[:] = ["planted.queries", "planted.keys"]

    checks = spoiled(made(tmp_path, "mistral"), edit, ["model.decode.onnx"])
    assert stage_of(checks) == "repeat.layers.0.llama_decoder"


@pytest.mark.parametrize("context", [1, 2, 5, 8, 9, 15, 64, 65, 67, 68, 69, 71])
def test_every_context_has_room_for_its_checks(context: int, tmp_path: Path) -> None:
    compiled = compile_file(ROOT / "examples" / "phi3.yaml", Request(options=Options(context=context)))
    build(compiled, tmp_path / "model.onnx", check=quick.check)
    assert not checked(tmp_path).failures


def test_a_graph_that_feeds_wrong_shapes_is_wrong_and_no_bug(tmp_path: Path) -> None:
    folder = made(tmp_path, "tiny-llama")
    path = folder / "model.flowc.json"
    path.write_text(path.read_text().replace('"skip_passes": []', '"skip_passes": ["fold_rope"]'))
    assert checked(folder).failures


def compact_rows_as_long_as_the_longest(model: Any) -> None:
    lengths = next(n for n in model.graph.node if n.op_type == "GroupQueryAttention").input[5]
    put(
        model,
        lengths,
        op("ReduceMax", [lengths], ["planted.most"], keepdims=1),
        op("Shape", [lengths], ["planted.shape"]),
        op("Expand", ["planted.most", "planted.shape"], ["planted"]),
    )


@pytest.mark.parametrize("graph", ["unified", "decode"])
def test_a_compact_cache(graph: str, tmp_path: Path) -> None:
    """Its rows are of unlike lengths, and the stage is named."""
    folder = made(tmp_path, "tiny-llama", options=Options(assume="right-padding"), graphs=(graph,))
    name = "model.onnx" if graph == "unified" else "model.decode.onnx"
    checks = spoiled(folder, compact_rows_as_long_as_the_longest, [name])
    assert stage_of(checks) == "repeat.layers.0.llama_decoder"


def test_a_weight_inside_of_a_graph(tmp_path: Path) -> None:
    def edit(model: Any) -> None:
        gain = next(t for t in model.graph.initializer if t.name == "model.norm.weight")
        content = (tmp_path / "model.onnx.data").read_bytes()
        offset = int(next(e.value for e in gain.external_data if e.key == "offset"))
        array = np.frombuffer(content, np.float32, 64, offset).copy()
        array[3] *= np.float32(1 + 2**-22)
        gain.CopyFrom(onnx.numpy_helper.from_array(array, gain.name))

    assert {c.name for c in spoiled(made(tmp_path, "tiny-llama"), edit).failures} == {"lowered", "places"}


def test_weights_in_place_are_read_where_they_lie(tmp_path: Path) -> None:
    sound = compile_file(ROOT / "examples" / "tiny-llama.yaml", Request())
    assert sound.checkpoint is not None
    arrays = {name: sound.checkpoint.read(name) for name in sound.usage.tensors}
    norms = [name for name in arrays if name.endswith("input_layernorm.weight")]
    arrays[norms[1]] = arrays[norms[0]] * np.float32(1 + 2**-22)  # below any tolerance
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    spec = tmp_path / "model.yaml"
    text = (ROOT / "examples" / "tiny-llama.yaml").read_text()
    spec.write_text(text.replace("{random: 0}", "{file: model.safetensors}"))
    build(compile_file(spec, Request(in_place=True)), tmp_path / "model.onnx")
    assert not checked(tmp_path).failures

    def edit(model: Any) -> None:
        first, second = (next(t for t in model.graph.initializer if t.name == name) for name in norms)
        entry = next(e for e in first.external_data if e.key == "offset")
        entry.value = next(e.value for e in second.external_data if e.key == "offset")

    assert {c.name for c in spoiled(tmp_path, edit, ["model.onnx"]).failures} == {"lowered", "places"}


def test_what_a_graph_says_of_the_model(tmp_path: Path) -> None:
    def edit(model: Any) -> None:
        next(p for p in model.metadata_props if p.key == "context_length").value = "9"

    checks = spoiled(made(tmp_path, "tiny-llama"), edit, ["model.onnx"])
    assert [(c.name, c.graph) for c in checks.failures] == [("facts", "unified")]
    assert "context_length = 9; its spec means 512" in checks.failures[0].detail
    with pytest.raises(CheckFailed, match="wrong-facts"):
        checks.stop_if_any()


@pytest.mark.parametrize(("old", "new"), [('"eos": []', '"eos": [5]'),
                                          ('"context_length": 512,', '"context_length": 9,'),
                                          ('"kind": "decoder"', '"kind": "encoder"')])  # fmt: skip
def test_what_the_manifest_says_of_the_model(old: str, new: str, tmp_path: Path) -> None:
    path = made(tmp_path, "tiny-llama") / "model.flowc.json"
    before, after = path.read_text().split('"versions"')
    head = before.replace(old, new) if old in before.split('"spec"')[0] else before
    path.write_text(f'{head}"versions"{after.replace(old, new)}')
    assert {c.name for c in checked(tmp_path).failures} == {"facts"}
