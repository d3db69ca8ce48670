"""Records what transformers computes from configurations that were once read wrong, or refused (golden/configs.json).

python -m tests.parity.record_configs

Needs an interpreter with torch, like the fuzz. tests/importers/test_recorded_configs.py plays the cases without one:
weights come from their names and a seed, outputs are compared at a few channels of every token.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from flowc.errors import FlowError
from flowc.importers import import_checkpoint
from tests.oracle_io import ROOT
from tests.parity.config_draws import FAMILIES
from tests.parity.fuzz_configs import Worker
from tests.parity.seeded import feeds_of

FILE = Path(ROOT) / "golden" / "configs.json"
CHANNELS = 3

_FULL, _SLIDING, _LINEAR = "full_attention", "sliding_attention", "linear_attention"
_YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32, "beta_fast": 4.0}
_OLD = {"rope_parameters": ...}
_THETAS = {"rope_theta": 1000.0, "rope_local_base_freq": 100.0}
_DEFAULT = {"rope_type": "default", "rope_theta": 1000.0}
_LOCAL = {"rope_type": "default", "rope_theta": 90.0}
_WIDE = {"head_dim": 32}
_FACTORS = {"short_factor": [1.0, 1.5, 2.0, 2.5] * 2, "long_factor": [2.0, 3.0, 4.0, 5.0] * 2}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    # A family and what its configuration says instead; `...` takes a field away.
    "gemma3_yarn_truncate_in_an_entry": ("gemma3_text", {
        **_WIDE, "rope_parameters": {_FULL: {**_YARN, "rope_theta": 1000.0, "truncate": False}, _SLIDING: _LOCAL}}),
    "gemma3_yarn_truncate_beside_entries": ("gemma3_text", {
        **_WIDE, "rope_parameters": {_FULL: {**_YARN, "rope_theta": 1000.0}, _SLIDING: _LOCAL, "truncate": False}}),
    "gemma3_old_yarn_truncate": ("gemma3_text", {
        **_OLD, **_WIDE, **_THETAS, "rope_scaling": {**_YARN, "truncate": False}}),
    "gemma3_old_scaling_type": ("gemma3_text", {
        **_OLD, **_THETAS, "rope_scaling": {"type": "linear", "factor": 8.0}}),
    "gemma3_scaling_type_completes_an_entry": ("gemma3_text", {
        "rope_parameters": {_FULL: {"rope_theta": 1000.0}, _SLIDING: _LOCAL},
        "rope_scaling": {"type": "linear", "factor": 8.0}}),
    "gemma3_entries_without_theta": ("gemma3_text", {
        "rope_parameters": {_FULL: {"rope_type": "default"}, _SLIDING: {"rope_type": "default"}},
        "rope_theta": 55.0, "rope_local_base_freq": 66.0}),
    "gemma3_one_entry": ("gemma3_text", {"rope_parameters": {_FULL: _DEFAULT}, "rope_local_base_freq": 66.0}),
    "gemma3_original_length_at_the_top": ("gemma3_text", {
        **_WIDE, "original_max_position_embeddings": 4,
        "rope_parameters": {_FULL: {"rope_type": "yarn", "factor": 8.0, "rope_theta": 1000.0}, _SLIDING: _LOCAL}}),
    "gemma3_pattern_with_an_underscore": ("gemma3_text", {"_sliding_window_pattern": 2, "layer_types": ...}),
    "gemma3_inside_another": ("gemma3", {"rope_parameters": {_FULL: _DEFAULT}, "rope_local_base_freq": 66.0}),
    "gemma3_no_entry": ("gemma3_text", {"rope_parameters": {"rope_type": "default", "rope_theta": 12.0}}),
    "modernbert_stray_theta": ("modernbert", {
        "global_rope_theta": 160000.0, "local_rope_theta": 10000.0, "rope_theta": 5.0}),
    "modernbert_partial": ("modernbert", {
        "partial_rotary_factor": 0.5, "rope_parameters": {_FULL: _DEFAULT, _SLIDING: _LOCAL}}),
    "modernbert_partial_in_an_entry": ("modernbert", {
        "rope_parameters": {_FULL: {**_DEFAULT, "partial_rotary_factor": 0.5}, _SLIDING: _LOCAL}}),
    "modernbert_old_scaling": ("modernbert", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "modernbert_window_by_its_other_name": ("modernbert", {"sliding_window": 1}),
    "modernbert_no_reach": ("modernbert", {"local_attention": 1}),
    "dinov3_rope_parameters": ("dinov3_vit", {"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}}),
    "dinov3_rope_scaling": ("dinov3_vit", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "nomic_bert_partial": ("nomic_bert", {"rope_theta": 50.0, "partial_rotary_factor": 0.5}),
    "nomic_bert_both_types": ("nomic_bert", {
        "rope_parameters": {"rope_type": "linear", "type": "dynamic", "factor": 4.0, "rope_theta": 50.0}}),
    "qwen3_next_null_partial": ("qwen3_next", {"partial_rotary_factor": None}),
    "qwen3_next_partial_of_both": ("qwen3_next", {
        "partial_rotary_factor": 0.25, "rope_parameters": {**_DEFAULT, "partial_rotary_factor": 0.5}}),
    "qwen3_5_sections": ("qwen3_5_text", {
        "rope_parameters": {
            **_DEFAULT, "mrope_section": [1, 1, 0], "mrope_interleaved": True, "partial_rotary_factor": 0.5}}),
    "qwen3_5_inside_another": ("qwen3_5", {"partial_rotary_factor": None, "layer_types": [_FULL, _LINEAR, _FULL]}),
    "qwen2_yarn_null_truncate": ("qwen2", {"rope_parameters": {**_YARN, "rope_theta": 1000.0, "truncate": None}}),
    "qwen2_yarn_one_scale": ("qwen2", {
        "rope_parameters": {**_YARN, "rope_theta": 1000.0, "mscale": 0.5, "beta_slow": 0}}),
    "qwen2_sliding_layers_without_a_window": ("qwen2", {
        "use_sliding_window": False, "sliding_window": 3, "layer_types": [_SLIDING, _FULL, _FULL]}),
    "qwen3_window_from_a_layer_on": ("qwen3", {
        "use_sliding_window": True, "sliding_window": 2, "max_window_layers": 1}),
    "qwen3_moe_two_names_of_experts": ("qwen3_moe", {"num_experts": 4, "num_local_experts": 3}),
    "qwen3_moe_window": ("qwen3_moe", {"use_sliding_window": True, "sliding_window": 2, "max_window_layers": 9}),
    "llama_both_types": ("llama", {"rope_scaling": {"type": "dynamic", "rope_type": "linear", "factor": 4.0}}),
    "llama_scaling_takes_the_theta": ("llama", {
        "rope_scaling": {"rope_type": "linear", "factor": 4.0}, "rope_theta": 50.0}),
    "llama_default_with_a_factor": ("llama", {
        "rope_parameters": {**_DEFAULT, "factor": 4.0, "original_max_position_embeddings": 4}}),
    "llama_original_length_of_both": ("llama", {
        "original_max_position_embeddings": 8,
        "rope_parameters": {**_YARN, "rope_theta": 1000.0, "original_max_position_embeddings": 16}}),
    "llama_partial": ("llama", {"partial_rotary_factor": 0.5}),
    "llama_partial_of_a_scaled_rope": ("llama", {
        "partial_rotary_factor": 0.5, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1000.0}}),
    "llama_without_lengths": ("llama", {"max_position_embeddings": ..., "rms_norm_eps": ..., "hidden_act": ...}),
    "llama_ropes_by_layer": ("llama", {"rope_parameters": {_FULL: _DEFAULT, _SLIDING: _LOCAL}}),
    "llama_null_type": ("llama", {"rope_parameters": {**_DEFAULT, "rope_type": None}}),
    "llama_relu2": ("llama", {"hidden_act": "relu2"}),
    "qwen2_mish": ("qwen2", {"hidden_act": "mish"}),
    "bert_gelu_10": ("bert", {"hidden_act": "gelu_10"}),
    "bert_gelu_python": ("bert", {"hidden_act": "gelu_python"}),
    "vit_leaky_relu": ("vit", {"hidden_act": "leaky_relu", "pooler_act": "linear"}),
    "clip_sigmoid": ("clip_vision_model", {"hidden_act": "sigmoid"}),
    "qwen3_moe_relu2": ("qwen3_moe", {"hidden_act": "relu2"}),
    "qwen3_next_sigmoid": ("qwen3_next", {"hidden_act": "sigmoid"}),
    "smollm3_sliding_layers_without_use": ("smollm3", {
        "use_sliding_window": False, "sliding_window": 2, "layer_types": [_SLIDING, _FULL, _SLIDING]}),
    "smollm3_long_list": ("smollm3", {"no_rope_layers": [1, 0, 1, 1, 0, 0]}),
    "phi3_yarn": ("phi3", {"rope_scaling": {"type": "yarn", **_FACTORS}, "original_max_position_embeddings": 8}),
    "phi3_linear": ("phi3", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1000.0}}),
    "gemma_silu": ("gemma", {"hidden_act": "silu", "hidden_activation": "relu"}),
    "gemma_gelu": ("gemma", {"hidden_act": "gelu"}),
    "mistral_without_a_window": ("mistral", {"sliding_window": None}),
}  # fmt: skip


def _config(family: str, changes: dict[str, Any]) -> dict[str, Any]:
    drawn = FAMILIES[family]
    whole = drawn.base(random.Random(0))
    inner = whole[drawn.nested] if drawn.nested else whole
    inner["num_hidden_layers" if "num_hidden_layers" in inner else "n_layers"] = 3
    if "gemma3" in family:
        inner["layer_types"] = [_FULL, _SLIDING, _FULL]
    for name, value in changes.items():
        if value is ...:
            inner.pop(name, None)
        else:
            inner[name] = value
    return {"architectures": [drawn.classes[0]], **whole}


def record(name: str, worker: Worker) -> dict[str, Any]:
    """One case: configuration, names and shapes of its tensors, and a few channels of each output, or the refusal."""
    family, changes = CASES[name]
    config, drawn, seed = _config(family, changes), FAMILIES[family], 2 + sorted(CASES).index(name)
    case: dict[str, Any] = {"name": name, "kind": drawn.kind, "seed": seed, "fields": sorted(changes), "config": config}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        request = {"folder": made, "class": drawn.classes[0], "kind": drawn.kind, "seed": seed}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        answer = worker.ask(request)
        if "ok" not in answer:
            case["transformers"] = answer.get("refused", "")
            (folder / "config.json").write_text(json.dumps(_config(family, {})), encoding="utf-8")
            worker.ask(request)
        st: Any = safetensors.numpy
        tensors: dict[str, Any] = st.load_file(folder / "model.safetensors")
        case["tensors"] = {n: list(a.shape) for n, a in sorted(tensors.items())}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        try:
            import_checkpoint(folder)
        except FlowError:
            return case
        with np.load(folder / "reference.npz") as stored:
            arrays: dict[str, Any] = {n: stored[n] for n in stored.files}
        inputs = feeds_of(drawn.kind, config.get("text_config", config), seed)
        assert all(np.array_equal(arrays[f"in/{n}"], a) for n, a in inputs.items())
        case["results"] = {
            n[4:]: [float(f"{v:.6g}") for v in a[..., :CHANNELS].ravel()]
            for n, a in arrays.items() if n.startswith("out/")
        }  # fmt: skip
    return case


def main() -> None:
    """Write the file again."""
    worker = Worker()
    cases = [record(name, worker) for name in CASES]
    worker.close()
    lines = [json.dumps(case) for case in cases]
    FILE.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    for case in cases:
        what = "refused by transformers: " + case["transformers"][:90] if "transformers" in case else ""
        what = what or ("compared" if "results" in case else "refused by flowc")
        print(f"{case['name']}: {what}")


if __name__ == "__main__":
    main()
