"""One DINOv2 spelt in two ways, and one picture of two ways to say a rope: the same numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from flowc.build.compiled import Request
from flowc.compile import build, compile_file
from flowc.importers import import_checkpoint
from flowc.weights import open_checkpoint
from tests.oracle_io import Array, Oracle, case_folders
from tests.parity.harness import Model

st: Any = safetensors.numpy  # its types are partly unknown

META = (
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.", ""),
    (r"encoder\.layer\.", "blocks."),
    (r"attention\.output\.dense\.", "attn.proj."),
    (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
    (r"layernorm\.", "norm."),
)
"""HuggingFace's names of a DINOv2 and Meta's, which has q, k and v in one tensor `attn.qkv`."""


def meta(name: str) -> str:
    for pattern, replacement in META:
        name = re.sub(pattern, replacement, name)
    return name


def packed(tensors: dict[str, Array]) -> dict[str, Array]:
    """A checkpoint under Meta's names."""
    out: dict[str, Array] = {}
    for name, array in tensors.items():
        found = re.fullmatch(r"(.*)attention\.attention\.query\.(weight|bias)", name)
        if found:
            own = [tensors[f"{found[1]}attention.attention.{part}.{found[2]}"] for part in ("query", "key", "value")]
            out[meta(f"{found[1]}attn.qkv.{found[2]}")] = np.concatenate(own)
        elif ".attention.attention." not in name:
            out[meta(name)] = array
    return out


@pytest.mark.golden
@pytest.mark.parametrize("target", ["ort-cpu", "portable"])
@pytest.mark.parametrize("case", ["dinov2_gelu", "dinov2_reg_gelu", "dinov2_swiglu"])
def test_metas_names_and_packed_projections(case: str, target: str, tmp_path: Path) -> None:
    folder = case_folders()[case]
    text = import_checkpoint(folder).text(tmp_path)
    checkpoint = open_checkpoint(folder)
    st.save_file(packed({n: checkpoint.read(n, None) for n in checkpoint.tensors()}), tmp_path / "meta.safetensors")
    q, k, v = (
        rf"{n}: '([^']*)attention\.attention\.{word}\.weight'"
        for n, word in zip("qkv", ("query", "key", "value"), strict=True)
    )
    text, count = re.subn(rf"{q},\s*{k},\s*{v}", r"qkv: '\1attn.qkv.weight'", text)
    assert count == 1
    text = re.sub(
        r"weights:(.|\n)*?\ninputs:",
        "weights: {file: meta.safetensors, allow_unused: [mask_token]}\ninputs:",
        meta(text),
    )
    oracle, results = Oracle(folder), list[dict[str, Array]]()
    for name, spec in (("hf", import_checkpoint(folder).text(tmp_path)), ("meta", text)):
        (tmp_path / f"{name}.yaml").write_text(spec)
        compiled = compile_file(tmp_path / f"{name}.yaml", Request(target=target))
        build(compiled, tmp_path / name / "model.onnx", verify="off")
        results.append(Model(compiled, tmp_path / name).run("encode", oracle.inputs("b2")))
    assert not oracle.mismatches("b2", results[1])
    for name, array in results[0].items():
        np.testing.assert_array_equal(results[1][name], array)


@pytest.mark.golden
@pytest.mark.parametrize("target", ["ort-cpu", "portable"])
@pytest.mark.parametrize("case", ["dinov3_rope", "dinov3_gated"])
def test_a_rope_of_a_known_image_size_is_folded(case: str, target: str, tmp_path: Path) -> None:
    """An image size written into the inputs makes constants of what else is computed at run time."""
    folder = case_folders()[case]
    oracle, text = Oracle(folder), import_checkpoint(folder).text(tmp_path)
    pixels = oracle.inputs("b2")["pixel_values"]
    fixed = text.replace("height, width]", f"{pixels.shape[2]}, {pixels.shape[3]}]")
    kinds: list[set[str]] = []
    for name, spec in (("open", text), ("fixed", fixed)):
        (tmp_path / f"{name}.yaml").write_text(spec)
        compiled = compile_file(tmp_path / f"{name}.yaml", Request(target=target))
        build(compiled, tmp_path / name / "model.onnx", verify="off")
        kinds.append({node.op.name for node in compiled.graphs["encode"].nodes})
        assert not oracle.mismatches("b2", Model(compiled, tmp_path / name).run("encode", oracle.inputs("b2")))
    assert "patch_angles" in kinds[0]
    assert "patch_angles" not in kinds[1]
