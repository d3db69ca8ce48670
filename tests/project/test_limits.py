"""Every answer that docs/limits.md promises is what the command line says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from tests.cli.calling import BASE, done, flowc, save_file, write_spec
from tests.oracle_io import ROOT
from tests.weights.making import entry, safetensors_bytes, write_gguf

PAGE = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
# Messages of the page, or the beginnings of them.
PROMISED = set(re.findall(r"`(error\[[^`]+)`", PAGE))

Words = tuple[object, ...]
Attempt = Callable[[], Words]  # made in an empty working folder

LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 32, "vocab_size": 32,
    "rms_norm_eps": 1e-5, "max_position_embeddings": 64, "hidden_act": "silu", "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}  # fmt: skip
BERT = {
    "model_type": "bert", "architectures": ["BertModel"], "hidden_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 4, "intermediate_size": 32, "vocab_size": 32, "max_position_embeddings": 64,
    "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
}  # fmt: skip


def folder(config: dict[str, Any] | None, weights: bool = True) -> Path:
    """A HuggingFace folder `hf`, by its configuration."""
    path = Path("hf")
    path.mkdir()
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    if weights:
        save_file({"x": np.zeros((2, 2), np.float32)}, path / "model.safetensors")
    return path


def llama(**fields: Any) -> Attempt:
    return lambda: ("import", folder({**LLAMA, **fields}))


def bert(**fields: Any) -> Attempt:
    return lambda: ("import", folder({**BERT, **fields}))


def spec(old: str, new: str, *words: object, command: str = "check") -> Attempt:
    """The base spec with a piece replaced."""
    assert old in BASE
    return lambda: (command, write_spec(Path(), BASE.replace(old, new)), *words)


def build(*words: object) -> Attempt:
    return lambda: ("build", write_spec(Path()), "-o", "out/model.onnx", *words)


def run(*words: object) -> Attempt:
    def attempt() -> Words:
        done("build", write_spec(Path()), "-o", "model.onnx", "--verify", "off")
        return ("run", "model.onnx", *words)

    return attempt


def dense_folder() -> Words:
    path = folder(BERT)
    steps = [{"path": "", "type": "sentence_transformers.models.Transformer"},
             {"path": "", "type": "sentence_transformers.models.Dense"}]  # fmt: skip
    (path / "modules.json").write_text(json.dumps(steps))
    return ("import", path)


def gguf(name: str = "model.gguf", arch: str = "llama", **metadata: Any) -> Attempt:
    return lambda: ("import", write_gguf(Path(name), {"x": np.zeros(4, np.float32)}, arch, **metadata))


def odd_gguf() -> Words:
    rows = (np.zeros((32, 18), np.uint8), GGMLQuantizationType.IQ4_NL)
    write_gguf(Path("odd.gguf"), {"token_embd.weight": rows})
    text = "flowc: 1\nmodel: {}\nweights: {file: odd.gguf}\nflow:\n  - embed: model.embed_tokens.weight\n"
    return ("build", write_spec(Path(), text), "-o", "model.onnx")


def odd_safetensors() -> Words:
    header = {"embed.weight": entry("F8_E4M3", [4, 4], 0, 16)}
    Path("odd.safetensors").write_bytes(safetensors_bytes(header, bytes(16)))
    text = "flowc: 1\nmodel: {}\nweights: {file: odd.safetensors}\nflow:\n  - embed: embed.weight\n"
    return ("build", write_spec(Path(), text), "-o", "model.onnx")


def other_images() -> Words:
    done("build", ROOT / "examples" / "vit.yaml", "-o", "model.onnx", "--verify", "off")
    np.save("image.npy", np.zeros((1, 3, 64, 64), np.float32))
    return ("run", "model.onnx", "--input", "pixel_values=image.npy")


def left_padded() -> Words:
    np.save("ids.npy", np.array([[1, 2]]))
    np.save("mask.npy", np.array([[0, 1]]))
    spec = ROOT / "examples" / "tiny-llama.yaml"
    done("build", spec, "-o", "model.onnx", "--verify", "off", "--assume", "right-padding")
    return ("run", "model.onnx", "--input", "input_ids=ids.npy", "--input", "attention_mask=mask.npy")


def config_error(field: str, value: Any) -> str:
    return f"error[unsupported-config]: field '{field}' of config.json is {value!r}, which flowc does not reproduce"


def unknown_field(field: str) -> str:
    why = "is not known to this importer and might change the numbers"
    return f"error[unknown-config]: field '{field}' of config.json {why}"


MROPE = {"rope_type": "mrope", "rope_theta": 10000.0, "mrope_section": [1, 1, 0]}
OTHER_ROPE = {"rope_type": "proportional", "rope_theta": 10000.0}
DYNAMIC = "{theta: 10000, type: dynamic, original_length: 32}"
LINEAR = {"rope_type": "linear", "factor": 2.0}
CLASSIFIER, ANSWERS = ["LlamaForSequenceClassification"], ["BertForQuestionAnswering"]
LAYER = 'llama_decoder: "layers.{i}"'

ATTEMPTS: dict[str, Attempt] = {
    config_error("architectures", CLASSIFIER): llama(architectures=CLASSIFIER),
    config_error("architectures", ANSWERS): bert(architectures=ANSWERS),
    config_error("is_decoder", True): bert(is_decoder=True),
    config_error("add_cross_attention", True): bert(add_cross_attention=True),
    config_error("position_embedding_type", "relative_key"): bert(position_embedding_type="relative_key"),
    "error[unsupported-config]: modules.json has a step 'sentence_transformers.models.Dense' here, which flowc does "
    "not make": dense_folder,
    config_error("hidden_act", "laplace"): llama(hidden_act="laplace"),
    unknown_field("residual_multiplier"): llama(residual_multiplier=0.2),
    "error[unknown-stage]: there is no stage kind 'alibi'": spec("- gather_last_token", "- alibi"),
    "error[dynamic-rope]: a dynamic rope is exact only within its original length 32, the context asked for is 64": (
        spec("{theta: 10000}", DYNAMIC)
    ),
    config_error("rope_parameters", MROPE): llama(rope_parameters=MROPE),
    config_error("rope_parameters", OTHER_ROPE): llama(rope_parameters=OTHER_ROPE),
    config_error("partial_rotary_factor", 0.5): llama(partial_rotary_factor=0.5, rope_scaling=LINEAR),
    "error[unknown-field]: stage 'rope_tables' has no field 'interleaved'": (
        spec("{theta: 10000}", "{theta: 10000, interleaved: true}")
    ),
    **{
        f"error[unused-input]: no stage reads the input '{name}'": (
            spec("flow:", f'inputs: {{input_ids: "int64[batch_size, sequence_length]", {name}: "{kind}"}}\nflow:')
        )
        for name, kind in (
            ("position_ids", "int64[batch_size, sequence_length]"),
            ("inputs_embeds", "float32[batch_size, sequence_length, 8]"),
        )
    },
    "error[bad-value]: field 'window' of stage 'llama_decoder' must be greater than 0, not 0": (
        spec(LAYER, 'llama_decoder: {prefix: "layers.{i}", window: 0}')
    ),
    "error[unsupported-precision]: the target 'portable' has no builds in bfloat16": build(
        "--target", "portable", "--dtype", "bfloat16"
    ),
    "error[usage]: no such option '--quant'": build("--quant", "int4"),
    unknown_field("quantization_config"): llama(quantization_config={"quant_method": "gptq", "bits": 4}),
    "error[unsupported-dtype]: tensor 'token_embd.weight' is stored as IQ4_NL, which flowc does not read": odd_gguf,
    "error[unsupported-dtype]: tensor 'embed.weight' is stored as f8_e4m3, which flowc does not read": odd_safetensors,
    "error[unsupported-architecture]: flowc does not know the tensor layout of GGUF architecture 'falcon'": (
        gguf(arch="falcon")
    ),
    "error[unsupported-gguf]: 'part.gguf' is one part of a split model": gguf("part.gguf", split__count=2),
    "error[missing-file]: 'hf' has no model.safetensors, no index and no .gguf": (
        lambda: ("import", folder(LLAMA, weights=False))
    ),
    "error[missing-file]: 'hf/config.json' is not there, so the model's configuration is not known": (
        lambda: ("import", folder(None))
    ),
    "error[no-tokenizer]: 'model' has no tokenizer beside it": run("--prompt", "Hello"),
    "error[in-place]: --in-place needs weights in safetensors files": build("--in-place"),
    "error[unsupported-cache]: the target 'ort-cuda' has no static cache in float32": build(
        "--target", "ort-cuda", "--cache", "static"
    ),
    "error[usage]: no such option '--num-beams'": run("--ids", "1", "--num-beams", "4"),
    "error[assumed-padding]: the model was built with --assume right-padding: each row of attention_mask must be ones, "
    "then zeros": left_padded,
    "error[bad-input]: onnxruntime refuses these inputs": other_images,
}


def test_the_page_promises_what_is_tried_here() -> None:
    assert set(ATTEMPTS) == PROMISED


@pytest.mark.parametrize("answer", ATTEMPTS)
def test_answers(answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    called = flowc(*ATTEMPTS[answer]())
    assert called.code in (2, 3)
    assert any(line.startswith(answer) for line in called.stderr.splitlines())


def test_model_types_of_the_page_have_no_importer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = PAGE.partition("`unknown-model-type`")[2].partition("Of the multimodal")[0]
    names = re.findall(r"`(\w[\w-]*)`", table)
    assert len(names) > 40
    monkeypatch.chdir(tmp_path)
    path = folder({})
    for name in names:
        (path / "config.json").write_text(json.dumps({**LLAMA, "model_type": name}))
        called = flowc("import", path)
        assert (called.code, called.stderr.splitlines()[0]) == (
            2, f"error[unknown-model-type]: flowc has no importer for model_type '{name}'",
        ), name  # fmt: skip
