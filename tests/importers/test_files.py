"""Files as people have them: other names, heads of another size, nulls, and what is no model at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from flowc.errors import FlowError
from flowc.importers import import_checkpoint
from flowc.runtime.session import open_session, run_once
from flowc.weights import open_checkpoint
from tests.cli.calling import flowc
from tests.importers.making_gguf import convert
from tests.oracle_io import ROOT, Oracle
from tests.weights.making import write_gguf

st: Any = safetensors.numpy  # its types are partly unknown
TIED, UNTIED = "llama_gqa4_bias", "qwen3_gqa4_bias_yarn"


def oracle_folder(case: str, folder: Path, rename: Any = None, **fields: Any) -> Path:
    """A copy of a small checkpoint; `rename` gives each tensor its name there, or None to leave it out."""
    source = ROOT / "golden" / "oracles" / case
    folder.mkdir()
    config = json.loads((source / "config.json").read_text(encoding="utf-8")) | fields
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    checkpoint = open_checkpoint(source)
    tensors = {name: checkpoint.read(name) for name in checkpoint.tensors()}
    if rename is not None:
        tensors = {new: value for name, value in tensors.items() if (new := rename(name)) is not None}
    st.save_file(tensors, folder / "model.safetensors")
    return folder


def refusal(path: Path) -> tuple[int, str, str]:
    """Exit code of an import, its codes and its text."""
    called = flowc("import", path, "-o", path.parent / "never.yaml", "--json")
    assert not (path.parent / "never.yaml").exists()
    found = called.diagnostics()
    text = " ".join(f"{d['message']} {d.get('hint', '')}" for d in found)
    return called.code, ",".join(dict.fromkeys(d["code"] for d in found)), text


def logits(folder: Path, tmp_path: Path, case: str) -> float:
    """How far a build of a folder is from HuggingFace's recorded logits."""
    spec = tmp_path / "model.yaml"
    assert flowc("import", folder, "-o", spec).code == 0
    called = flowc("build", spec, "-o", tmp_path / "out" / "model.onnx", "--logits", "all")
    assert called.code == 0, called.stderr
    oracle = Oracle(ROOT / "golden" / "oracles" / case)
    scenario = oracle.scenarios[0]
    session = open_session(tmp_path / "out" / "model.prefill.onnx")
    feeds = {name: value for name, value in oracle.inputs(scenario).items() if name in ("input_ids", "attention_mask")}
    return oracle.error(scenario, "logits", run_once(session, feeds)["logits"])


def bare(name: str) -> str:
    return name.removeprefix("model.")


def headless(name: str) -> str | None:
    return {"model.embed_tokens.weight": "lm_head.weight", "lm_head.weight": None}.get(name, name)


@pytest.mark.parametrize(
    ("case", "rename", "fields"),
    [
        (UNTIED, bare, {}),
        (TIED, bare, {}),
        (TIED, headless, {}),
        (TIED, None, {"sliding_window": None, "quantization_config": None, "surprise": None, "attn_scale": None}),
        (TIED, None, {"pad_token_id": -1, "eos_token_id": [-1, 2]}),
    ],
)
def test_what_huggingface_loads_is_imported_with_its_numbers(
    tmp_path: Path, case: str, rename: Any, fields: dict[str, Any]
) -> None:
    assert logits(oracle_folder(case, tmp_path / "in", rename, **fields), tmp_path, case) < 1e-4


def test_a_head_of_another_size_is_refused_with_both_shapes(tmp_path: Path) -> None:
    folder = oracle_folder(TIED, tmp_path / "in")
    tensors = st.load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = np.ones((104, 64), np.float32)
    st.save_file(tensors, folder / "model.safetensors")
    code, kinds, text = refusal(folder)
    assert (code, kinds) == (3, "misshapen-weight")
    assert "[104, 64]" in text
    assert "[97, 64]" in text


@pytest.mark.parametrize(
    "left_out", ["model.norm.weight", "model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight"]
)
def test_an_import_writes_nothing_that_check_refuses(tmp_path: Path, left_out: str) -> None:
    def others(name: str) -> str | None:
        return None if name == left_out else name

    folder = oracle_folder(UNTIED, tmp_path / "in", others)
    code, kinds, text = refusal(folder)
    assert (code, kinds) == (3, "missing-weight")
    assert left_out in text
    assert "does not fit the model that its configuration says" in text


def test_code_of_the_checkpoints_own_gets_a_note(tmp_path: Path) -> None:
    folder = oracle_folder(TIED, tmp_path / "in", auto_map={"AutoModelForCausalLM": "modeling_own.Own"})
    called = flowc("import", folder, "-o", tmp_path / "model.yaml")
    assert called.code == 0
    assert called.stderr.startswith("note: auto_map of config.json names code of the checkpoint's own")
    assert import_checkpoint(ROOT / "golden" / "oracles" / TIED).notes == ()


def test_a_quantised_checkpoint_is_not_told_to_drop_the_field(tmp_path: Path) -> None:
    folder = oracle_folder(TIED, tmp_path / "in", quantization_config={"quant_method": "awq"})
    code, kinds, text = refusal(folder)
    assert (code, kinds) == (2, "unknown-config")
    assert "remove it" not in text
    assert "the original ones are needed" in text


def gguf(tmp_path: Path, tensors: Any = None, arch: str = "llama", **metadata: Any) -> Path:
    """A GGUF of a small Llama's sizes."""
    sizes = {"block_count": 1, "context_length": 64, "embedding_length": 32, "feed_forward_length": 48,
             "attention__head_count": 4, "attention__layer_norm_rms_epsilon": 1e-5}  # fmt: skip
    return write_gguf(
        tmp_path / "m.gguf", tensors or {}, arch, **{f"{arch}__{k}": v for k, v in sizes.items()}, **metadata
    )


TABLE = {"token_embd.weight": np.ones((16, 32), np.float32)}


@pytest.mark.parametrize(
    ("arch", "tensors", "metadata", "expected", "words"),
    [
        ("llama", {}, {}, (3, "missing-tensor"), "no tensors at all: it is a vocabulary without a model"),
        ("llama", {"output_norm.weight": np.ones(32, np.float32)}, {}, (3, "missing-tensor"), "no token_embd.weight"),
        ("llama", {}, {"general__type": "adapter"}, (3, "unsupported-gguf"), "is an adapter (LoRA)"),
        ("clip", {}, {"general__type": "mmproj"}, (3, "unsupported-gguf"), "projector of a multimodal model"),
        ("llama", TABLE, {"general__type": "odd"}, (3, "unsupported-gguf"), "of the type 'odd'"),
        (
            "llama", TABLE, {"llama__expert_count": 8, "llama__expert_used_count": 2}, (2, "unsupported-config"),
            "'llama.expert_count' is 8: a mixture of experts (Mixtral), which flowc does not make",
        ),
        ("gemma2", TABLE, {"gemma2__expert_count": 4}, (2, "unsupported-config"), "is 4: a mixture of experts, which"),
    ],
)  # fmt: skip
def test_a_gguf_is_named_for_what_it_is(
    tmp_path: Path, arch: str, tensors: Any, metadata: dict[str, Any], expected: tuple[int, str], words: str
) -> None:
    code, kinds, text = refusal(gguf(tmp_path, tensors, arch, **metadata))
    assert (code, kinds) == expected
    assert words in text
    assert "remove it" not in text


def test_a_dense_gguf_that_counts_no_experts_is_dense(tmp_path: Path) -> None:
    source = ROOT / "golden" / "oracles" / "llama_mqa_fp16"
    counted = convert(source, tmp_path / "m.gguf", expert_count=0, expert_used_count=0)
    text = import_checkpoint(counted).text(tmp_path)
    assert import_checkpoint(convert(source, tmp_path / "m.gguf")).text(tmp_path) == text


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 269060552\n"


@pytest.mark.parametrize("name", ["model.safetensors", "model.gguf", "model.npz"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copyfile(ROOT / "golden" / "oracles" / TIED / "config.json", folder / "config.json")
    (folder / name).write_text(POINTER, encoding="ascii")
    code, kinds, text = refusal(folder)
    assert (code, kinds) == (3, "lfs-pointer")
    assert "git lfs pull" in text


def test_a_name_of_the_hub_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    called = flowc("import", "org/some-model", "--json")
    assert called.code == 2 or called.code == 3
    with pytest.raises(FlowError) as caught:
        import_checkpoint(Path("org/some-model"))
    assert "hf download org/some-model" in caught.value.render()
    with pytest.raises(FlowError) as caught:
        import_checkpoint(tmp_path / "nothing")
    assert "hf download" not in caught.value.render()


@pytest.mark.parametrize(
    ("named", "hint"),
    [
        ({"model.layers.9.ghost.weight": "model-2.safetensors"}, "did you mean"),
        ({"model.norm.weight": "model-1.safetensors"}, "it lies in 'model-2.safetensors'"),
    ],
)
def test_an_index_that_disagrees_says_where_the_tensor_is(tmp_path: Path, named: dict[str, str], hint: str) -> None:
    """HuggingFace takes the shards' names alone from it; flowc refuses such an index, by choice."""
    folder = oracle_folder(UNTIED, tmp_path / "in")
    tensors = st.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards: dict[str, dict[str, Any]] = {"model-1.safetensors": {}, "model-2.safetensors": {}}
    for name, value in tensors.items():
        shards["model-2.safetensors" if name.endswith(("norm.weight", "lm_head.weight")) else "model-1.safetensors"][
            name
        ] = value
    for shard, part in shards.items():
        st.save_file(part, folder / shard)
    places = {name: shard for shard, part in shards.items() for name in part} | named
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    code, kinds, text = refusal(folder)
    assert (code, kinds) == (3, "broken-index")
    assert hint in text


def test_an_imported_encoder_builds_without_a_mask(tmp_path: Path) -> None:
    """--assume no-padding leaves out the input that the importer declared."""
    spec = tmp_path / "model.yaml"
    assert flowc("import", ROOT / "golden" / "oracles" / "bert_base_like", "-o", spec).code == 0
    out = tmp_path / "out" / "model.onnx"
    called = flowc("build", spec, "-o", out, "--assume", "no-padding", "--json")
    assert called.code == 0, called.stdout
    assert "attention_mask" not in called.json()["graphs"]["encode"]["inputs"]
    assert flowc("verify", out).code == 0
