"""`TinyLlama` as a HuggingFace folder, so that a real build of it is held to the same numpy reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.numpy

from flowc.build.compiled import Request
from flowc.build.files import Built
from flowc.compile import build, compile_file
from flowc.frontend.state import Options
from flowc.importers import import_checkpoint
from tests.runtime.tiny import TinyLlama

st: Any = safetensors.numpy  # its types are partly unknown

_LAYER = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj", "n1": "input_layernorm",
    "n2": "post_attention_layernorm",
}  # fmt: skip
_OUTER = {"embed": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}


def hub_folder(folder: Path, model: TinyLlama, **config: Any) -> Path:
    """Write config.json and model.safetensors; `config` are further fields, or other values of the usual ones."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": model.hidden,
        "num_hidden_layers": model.layers, "num_attention_heads": model.heads, "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim, "intermediate_size": model.ffn, "vocab_size": model.vocab, "hidden_act": "silu",
        "max_position_embeddings": model.context, "rope_theta": model.theta, "rms_norm_eps": model.eps,
        "tie_word_embeddings": False, "eos_token_id": 2, **config,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    tensors: dict[str, Any] = {}
    for name, values in model.weights.items():
        layer, _, part = name.rpartition("_")
        if name in _OUTER:
            tensors[f"{_OUTER[name]}.weight"] = values
        elif part in _LAYER:
            tensors[f"model.layers.{layer[1:]}.{_LAYER[part]}.weight"] = values
    st.save_file(tensors, folder / "model.safetensors")
    return folder


def built(folder: Path, out: Path, *, target: str = "ort-cpu", **options: Any) -> Built:
    """Import a folder and build it as `out`/model.onnx."""
    spec = folder.parent / f"{folder.name}.yaml"
    spec.write_text(import_checkpoint(folder).text(folder.parent), encoding="utf-8")
    return build(
        compile_file(spec, Request(target=target, options=Options(**options))), out / "model.onnx", verify="off"
    )
