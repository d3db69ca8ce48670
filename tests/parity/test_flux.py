"""FLUX block by block: the double block of the example and a single one, on the inputs that the oracle recorded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from flowc.build.compiled import Compiled, Request
from flowc.compile import build, compile_file
from flowc.importers.flux import single_block
from flowc.ir.interpret import interpret
from tests.oracle_io import ROOT, Array, Oracle, case_folders
from tests.parity.harness import Model

TARGETS = ("ort-cpu", "portable")
TOLERANCE = 2e-4
EXAMPLE = ROOT / "examples" / "flux-double-block.yaml"


def _cases() -> list[str]:
    configs = {n: f / "config.json" for n, f in case_folders().items()}
    return sorted(n for n, c in configs.items() if c.is_file() and "FluxTransformer2DModel" in c.read_text())


def _double_block(oracle: Oracle, index: int, text: str | None = None) -> str:
    """The example with a case's sizes and weights, for its block `index`."""
    config = yaml.safe_load((oracle.folder / "config.json").read_text())
    heads, head_dim = config["num_attention_heads"], config["attention_head_dim"]
    numbers = {"block": f"transformer_blocks.{index}", "hidden": heads * head_dim, "heads": heads,
               "head_dim": head_dim, "ffn": 4 * heads * head_dim}  # fmt: skip
    text = text or EXAMPLE.read_text(encoding="utf-8")
    for name, value in numbers.items():
        text, count = re.subn(rf"^  {name}: .*$", f"  {name}: {value}", text, flags=re.MULTILINE)
        assert count == 1
    return text.replace("weights: {random: 0}", f"weights: {{file: '{oracle.folder}', allow_unused: ['*']}}")


def _single_block(oracle: Oracle, index: int) -> str:
    config = yaml.safe_load((oracle.folder / "config.json").read_text())
    heads, head_dim = config["num_attention_heads"], config["attention_head_dim"]
    hidden = heads * head_dim
    tokens = {"img": "image_sequence_length", "txt": "text_sequence_length"}
    flow: list[Any] = [{"store_stream": "img"}, {"input": "block_in.txt"}, {"store_stream": "txt"}]
    flow += [{"input": "block_in.temb"}, {"store_stream": "temb"}]
    flow += [
        {"rope_inputs": {"cos": "block_in.rope_cos", "sin": "block_in.rope_sin"}},
        {"join_streams": ["txt", "img"]},
    ]
    flow += [*single_block(f"single_transformer_blocks.{index}"), {"store_stream": "joined"}]
    flow += [{"part_like_stream": {"name": "txt", "end": "first"}}, {"output": f"single.{index}.txt"}]
    flow += [{"load_stream": "joined"}, {"part_like_stream": {"name": "img", "end": "last"}}]
    spec = {
        "flowc": 1,
        "model": {"hidden": hidden, "heads": heads, "head_dim": head_dim, "ffn": 4 * hidden, "norm_eps": 1.0e-6},
        "weights": {"file": str(oracle.folder), "allow_unused": ["*"]},
        "inputs": {
            **{f"block_in.{n}": f"float32[batch_size, {size}, {hidden}]" for n, size in tokens.items()},
            "block_in.temb": f"float32[batch_size, {hidden}]",
            **{f"block_in.rope_{n}": f"float32[joint_sequence_length, {head_dim}]" for n in ("cos", "sin")},
        },
        "output": f"single.{index}.img",
        "flow": flow,
    }
    return yaml.safe_dump(spec, sort_keys=False)


def _inputs(oracle: Oracle, scenario: str, kind: str, index: int) -> dict[str, Array]:
    """What goes into a block: the first one's own inputs, or what the block before it gave."""
    every = oracle.all(scenario)
    feeds = {n: a for n, a in every.items() if n.startswith("block_in.")}
    last_dual = max(int(n.split(".")[1]) for n in every if n.startswith("dual."))
    before = f"{kind}.{index - 1}" if index else ("" if kind == "dual" else f"dual.{last_dual}")
    if before:
        feeds |= {f"block_in.{n}": every[f"{before}.{n}"] for n in ("img", "txt")}
    return feeds


def _built(text: str, target: str, folder: Path) -> tuple[Compiled, Model]:
    spec = folder / "block.yaml"
    spec.write_text(text, encoding="utf-8")
    compiled = compile_file(spec, Request(target=target))
    build(compiled, folder / target / "model.onnx", verify="off")
    return compiled, Model(compiled, folder / target)


def _worst(oracle: Oracle, text: str, target: str, kind: str, index: int, folder: Path) -> float:
    """The worst error of a block over all runs of a case, of onnxruntime and of the interpreter."""
    compiled, model = _built(text, target, folder)
    assert compiled.checkpoint is not None
    errors: list[float] = []
    for scenario in oracle.scenarios:
        feeds = _inputs(oracle, scenario, kind, index)
        for got in (
            model.run("encode", feeds),
            interpret(compiled.expanded["encode"], feeds, compiled.checkpoint.read),
        ):
            assert set(got) == {f"{kind}.{index}.img", f"{kind}.{index}.txt"}
            errors += [oracle.error(scenario, name, array) for name, array in got.items()]
    return max(errors)


@pytest.mark.golden
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", _cases())
def test_every_double_block_equals_diffusers(case: str, target: str, tmp_path: Path) -> None:
    oracle = Oracle(case_folders()[case])
    count = sum(n.startswith("b1/dual.") and n.endswith(".img") for n in oracle.arrays)
    assert count
    for index in range(count):
        text = _double_block(oracle, index).replace("dual.0.", f"dual.{index}.")
        assert _worst(oracle, text, target, "dual", index, tmp_path) <= TOLERANCE


@pytest.mark.golden
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", _cases())
def test_every_single_block_equals_diffusers(case: str, target: str, tmp_path: Path) -> None:
    oracle = Oracle(case_folders()[case])
    count = sum(n.startswith("b1/single.") and n.endswith(".img") for n in oracle.arrays)
    assert count
    for index in range(count):
        assert _worst(oracle, _single_block(oracle, index), target, "single", index, tmp_path) <= TOLERANCE


MISTAKES = [
    ("        - scale_by_stream: img_gate\n", "", "the gate of the attention dropped"),
    ("        - scale_by_stream: txt_ff_gate\n", "", "the gate of the feed-forward dropped"),
    ("rope_sin}", "rope_sin, interleaved: false}", "pairs of a rope by halves"),
    ("{shift: img_shift, scale: img_scale}", "{shift: img_scale, scale: img_shift}", "shift and scale swapped"),
    ("add_stream: txt", "add_stream: img_gate", "another residual"),
    ("q_norm: \"{block}.attn.norm_q.weight\"", "q_norm: null", "no norm of q"),
    ("norm_eps: 1e-6", "norm_eps: 0.1", "another epsilon"),
    ("activation: gelu_tanh", "activation: gelu", "the other gelu"),
    ("[img_shift, img_scale,", "[img_scale, img_shift,", "chunks in another order"),
]  # fmt: skip


@pytest.mark.golden
@pytest.mark.parametrize(("found", "planted", "what"), MISTAKES, ids=[m[2] for m in MISTAKES])
def test_a_planted_mistake_is_seen(found: str, planted: str, what: str, tmp_path: Path) -> None:
    oracle = Oracle(case_folders()["flux_schnell_like"])
    text = EXAMPLE.read_text(encoding="utf-8")
    assert found in text
    assert (
        _worst(oracle, _double_block(oracle, 0, text.replace(found, planted)), "ort-cpu", "dual", 0, tmp_path)
        > TOLERANCE
    )


@pytest.mark.golden
def test_the_order_of_the_streams_is_seen(tmp_path: Path) -> None:
    oracle = Oracle(case_folders()["flux_schnell_like"])
    text = _double_block(oracle, 0)
    for here, there in (("a: txt", "a: IMG"), ("b: img", "b: txt"), ("a: IMG", "a: img")):
        text = text.replace(here, there)
    for here, there in (("before_a", "before_x"), ("before_b", "before_a"), ("before_x", "before_b")):
        text = text.replace(here, there)
    for here, there in (("after_a", "after_x"), ("after_b", "after_a"), ("after_x", "after_b")):
        text = text.replace(here, there)
    # The rope's rows are still those of [txt; img], so only the order of the tokens is wrong.
    text = text.replace("text_sequence_length + image_sequence_length", "joint_sequence_length")
    assert _worst(oracle, text, "portable", "dual", 0, tmp_path) > TOLERANCE
