"""How llama.cpp's converter renames and rewrites HuggingFace's tensors, and the way back.

Source: `convert_hf_to_gguf.py` of llama.cpp and `gguf.tensor_mapping`; what HuggingFace expects is in each model's
`modeling_*.py`. Three rewrites are undone:
- Llama's (and SmolLM3's) q and k rows are interleaved, since llama.cpp rotates neighbouring pairs;
- Gemma's norm weights are stored as 1 + w;
- Qwen3-MoE's experts are stacked into one tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from flowc.errors import FlowError, WeightsError, nearest
from flowc.weights.gguf.header import GgufTensor


@dataclass(frozen=True, slots=True)
class TensorSlice:
    """A HuggingFace tensor as rows of a GGUF tensor.

    The GGUF tensor's leading axes are folded until it has as many as `shape`; from `first_row` on its rows are the
    tensor, after undoing the interleaving of `heads` heads (0: none), and after subtracting `minus`.
    """

    name: str
    source: GgufTensor
    shape: tuple[int, ...]
    first_row: int = 0
    heads: int = 0
    minus: float = 0.0


@dataclass(frozen=True, slots=True)
class _Arch:
    """An architecture's own names inside a layer, and which rewrites its converter does."""

    layer: Mapping[str, str]
    interleaved: bool = False
    norms_plus_one: bool = False


_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_ATTENTION = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
_QK_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_MLP = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_LLAMA = {**_ATTENTION, **_MLP, "ffn_norm": "post_attention_layernorm"}
_GEMMA2 = {
    **_ATTENTION,
    **_MLP,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_PHI3 = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}
_EXPERTS = {"ffn_gate_exps": "gate_proj", "ffn_up_exps": "up_proj", "ffn_down_exps": "down_proj"}

ARCHITECTURES: Mapping[str, _Arch] = {
    "llama": _Arch(_LLAMA, interleaved=True),
    "smollm3": _Arch(_LLAMA, interleaved=True),
    "qwen2": _Arch(_LLAMA),
    "qwen3": _Arch({**_LLAMA, **_QK_NORMS}),
    "qwen3moe": _Arch({**_LLAMA, **_QK_NORMS, "ffn_gate_inp": "mlp.gate"}),
    "gemma": _Arch({**_LLAMA}, norms_plus_one=True),
    "gemma2": _Arch(_GEMMA2, norms_plus_one=True),
    "gemma3": _Arch({**_GEMMA2, **_QK_NORMS}, norms_plus_one=True),
    "phi3": _Arch(_PHI3),
}
_MAX_EXPERTS = 4096
_LAYER_NAME = re.compile(r"blk\.(0|[1-9]\d{0,5})\.(\w+)\.(weight|bias)")
_OUTER_NAME = re.compile(r"(\w+)\.(weight|bias)")


def huggingface_parts(
    architecture: str, metadata: Mapping[str, object], tensors: Sequence[GgufTensor]
) -> dict[str, TensorSlice]:
    """Every tensor under its HuggingFace name; one that has none (`rope_freqs.weight`) keeps its own.

    WeightsError `unsupported-architecture`; `broken-gguf` when head counts are missing or do not fit, or when two
    tensors get one name.
    """
    arch = ARCHITECTURES.get(architecture)
    if arch is None:
        known = ", ".join(sorted(ARCHITECTURES))
        message = f"flowc does not know the tensor layout of GGUF architecture '{architecture}'"
        hint = nearest(architecture, ARCHITECTURES) or f"known: {known}"
        raise WeightsError.of("unsupported-architecture", message, hint=hint)
    parts: dict[str, TensorSlice] = {}
    for tensor in tensors:
        for part in _parts(architecture, arch, metadata, tensor):
            if part.name in parts:
                raise _broken(f"tensors '{parts[part.name].source.name}' and '{tensor.name}' are both '{part.name}'")
            parts[part.name] = part
    return parts


def _parts(architecture: str, arch: _Arch, metadata: Mapping[str, object], tensor: GgufTensor) -> Iterator[TensorSlice]:
    whole = TensorSlice(tensor.name, tensor, tensor.shape)
    if (match := _OUTER_NAME.fullmatch(tensor.name)) and match[1] in _OUTER:
        whole = replace(whole, name=f"{_OUTER[match[1]]}.{match[2]}")
    elif match := _LAYER_NAME.fullmatch(tensor.name):
        layer, kind, suffix = match.groups()
        if architecture == "qwen3moe" and kind in _EXPERTS and len(tensor.shape) == 3:
            yield from _experts(tensor, layer, f"{_EXPERTS[kind]}.{suffix}")
            return
        if kind in arch.layer:
            whole = replace(whole, name=f"model.layers.{layer}.{arch.layer[kind]}.{suffix}")
        if arch.interleaved and kind in ("attn_q", "attn_k"):
            whole = replace(whole, heads=_heads(architecture, metadata, tensor, int(layer), kind))
    if arch.norms_plus_one and whole.name.endswith("norm.weight"):
        whole = replace(whole, minus=1.0)
    yield whole


def _experts(tensor: GgufTensor, layer: str, name: str) -> Iterator[TensorSlice]:
    experts, rows, columns = tensor.shape
    if experts > _MAX_EXPERTS:
        raise _broken(f"tensor '{tensor.name}' has {experts} experts")
    for expert in range(experts):
        yield TensorSlice(f"model.layers.{layer}.mlp.experts.{expert}.{name}", tensor, (rows, columns), expert * rows)


def _heads(architecture: str, metadata: Mapping[str, object], tensor: GgufTensor, layer: int, kind: str) -> int:
    """Number of heads whose rows are interleaved; head counts may be given layer by layer."""
    query = metadata.get(f"{architecture}.attention.head_count")
    value = query if kind == "attn_q" else metadata.get(f"{architecture}.attention.head_count_kv", query)
    if isinstance(value, list):
        per_layer = cast("list[object]", value)
        value = per_layer[layer] if layer < len(per_layer) else None
    rows = tensor.shape[0] if tensor.shape else 0
    if type(value) is not int or value < 1 or rows % (2 * value):
        raise _broken(f"tensor '{tensor.name}' has {rows} rows, which its {value} heads do not divide into pairs")
    return value


def _broken(fault: str) -> FlowError:
    return WeightsError.of("broken-gguf", fault)
