"""A spec in small stages and its twin in whole layers compile to the same graphs, without any recogniser of layers.

Text encoders: tests.stages.test_composed_encoders.py.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from flowc.ir.canonical import difference
from flowc.ir.graph import Graph
from tests.kernel_level import lowered as lower
from tests.passes.making import compile_text

FLOW = """
flow:
  - embed: model.embed_tokens.weight
{scale}
  - rope_tables: {{theta: 10000}}
  - rope_tables: {{theta: 500, name: local}}
  - repeat:
      count: $layers
      body:
{body}
  - {norm}: model.norm.weight
  - gather_last_token
  - lm_head: {{tied: true}}
"""
LLAMA = ("        - llama_decoder: 'model.layers.{i}'", """
        - residual_save
        - rms_norm: 'model.layers.{i}.input_layernorm.weight'
        - self_attn_prefill: 'model.layers.{i}.self_attn'
        - linear: {weight: 'model.layers.{i}.self_attn.o_proj.weight', out: $hidden}
        - residual_add
        - residual_save
        - rms_norm: 'model.layers.{i}.post_attention_layernorm.weight'
        - swiglu: 'model.layers.{i}.mlp'
        - residual_add
""")  # fmt: skip
QWEN3 = ("        - qwen3_decoder: 'model.layers.{i}'", LLAMA[1].replace(
    "self_attn_prefill: 'model.layers.{i}.self_attn'",
    "self_attn_prefill: {prefix: 'model.layers.{i}.self_attn', qk_norm: true}",
))  # fmt: skip
GEMMA3 = (
    """
        - when:
            value: '{i}'
            equals: '0'
            then: [gemma_decoder: {prefix: 'model.layers.{i}', style: gemma3, window: 3, rope: local}]
            otherwise: [gemma_decoder: {prefix: 'model.layers.{i}', style: gemma3}]
""", """
        - residual_save
        - gemma_rms_norm: 'model.layers.{i}.input_layernorm.weight'
        - when:
            value: '{i}'
            equals: '0'
            then:
              - self_attn_prefill:
                  {prefix: 'model.layers.{i}.self_attn', qk_norm: true, norm_offset: 1.0, window: 3, rope: local}
            otherwise: [self_attn_prefill: {prefix: 'model.layers.{i}.self_attn', qk_norm: true, norm_offset: 1.0}]
        - linear: {weight: 'model.layers.{i}.self_attn.o_proj.weight', out: $hidden}
        - gemma_rms_norm: 'model.layers.{i}.post_attention_layernorm.weight'
        - residual_add
        - residual_save
        - gemma_rms_norm: 'model.layers.{i}.pre_feedforward_layernorm.weight'
        - geglu: 'model.layers.{i}.mlp'
        - gemma_rms_norm: 'model.layers.{i}.post_feedforward_layernorm.weight'
        - residual_add
""")  # fmt: skip
TWINS = {"llama": LLAMA, "qwen3": QWEN3, "gemma3": GEMMA3}


def stripped(graph: Graph, on: str) -> bytes:
    """The model file without what does not compute: names inside, metadata, and the order of initializers."""
    lowered = lower(graph, on)
    model = onnx.load_from_string(lowered.serialize())
    kept = {v.name for v in (*model.graph.input, *model.graph.output)} | set(lowered.weights)
    constants = {t.name: t.SerializeToString() for t in model.graph.initializer}
    names: dict[str, str] = {}
    for node in model.graph.node:
        del node.metadata_props[:]
        node.name = ""
        for values in (node.input, node.output):
            for index, name in enumerate(values):
                if name and name not in kept:
                    values[index] = names.setdefault(name, f"v{len(names)}")
    inverse = {v: k for k, v in names.items()}
    del model.metadata_props[:], model.graph.value_info[:], model.graph.initializer[:]
    small = [(v, constants[inverse[v]]) for v in names.values() if inverse[v] in constants]
    values = {v: onnx.TensorProto.FromString(content) for v, content in small}
    for name, tensor in values.items():
        tensor.name = name
        model.graph.initializer.append(tensor)
    return model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("family", TWINS)
def test_twins_compile_to_the_same_graphs(tmp_path: Path, family: str) -> None:
    gemma = family == "gemma3"
    parts = {"scale": "  - embed_scale" if gemma else "", "norm": "gemma_rms_norm" if gemma else "rms_norm"}
    compiled = [
        compile_text(tmp_path, _flow(body, gemma, **parts), name=f"{family}{index}")
        for index, body in enumerate(TWINS[family])
    ]
    whole, small = compiled
    assert {len(c.graphs) for c in compiled} == {3}
    for phase, graph in whole.graphs.items():
        assert difference(graph, small.graphs[phase]) == []
        assert difference(whole.expanded[phase], small.expanded[phase]) == []
        for on in ("ort-cpu", "portable"):
            assert stripped(graph, on) == stripped(small.graphs[phase], on)


def _flow(body: str, gemma: bool, **parts: str) -> str:
    text = FLOW.format(body=body.strip("\n"), scale=parts["scale"], norm=parts["norm"])
    return text if gemma else text.replace("  - rope_tables: {theta: 500, name: local}\n", "")


def test_twins_that_are_not_differ(tmp_path: Path) -> None:
    whole, small = (
        compile_text(tmp_path, _flow(body, False, scale="", norm="rms_norm"), name=f"x{index}", graphs=("prefill",))
        for index, body in enumerate((LLAMA[0], LLAMA[1].replace("swiglu", "geglu")))
    )
    assert difference(whole.graphs["prefill"], small.graphs["prefill"])
    assert stripped(whole.graphs["prefill"], "portable") != stripped(small.graphs["prefill"], "portable")
