"""Mistakes in a vision flow are named at their place in the spec."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowc.build.compiled import Request
from flowc.compile import compile_file
from flowc.errors import FlowError
from tests.oracle_io import ROOT

WRONG = [
    ("dinov2", "patch: [7, 7]", "patch: [7, 7, 7]", "vertical and a horizontal", "patch_embed"),
    ("dinov2", "patch: [7, 7]", "patch: [29, 7]", "smaller than a patch", "patch_embed"),
    (
        "dinov2",
        "patch_embed: patch_embed.proj.weight",
        "patch_embed: {weight: p.weight, channels: 1}",
        "147",
        "p.weight",
    ),
    ("dinov2", "count: 4, after: 1", "count: 4, after: 40", "only 17 tokens", "prepend_tokens"),
    ("dinov2", "qkv: ", "q: a.weight, qkv: ", "`qkv` alone", "vit_self_attn"),
    ("dinov2", "qkv: ", "key_bias: false, qkv: ", "`qkv` alone", "vit_self_attn"),
    ("dinov2", "qkv: 'blocks.{i}.attn.qkv.weight', ", "", "`qkv` alone", "vit_self_attn"),
    ("dinov2", "attn.proj.weight'", "attn.proj.weight', rope: rope", "'rope', which no stage has made", "rope"),
    ("dinov3", "leading: 5", "leading: 1", "patches + 5 tokens", "patch_rope"),
    ("dinov3", "heads: 3, head_dim: 16", "heads: 3, head_dim: 18", "that 4 divides", "patch_rope"),
    ("dinov3", "theta: 100", "theta: 1e40", "float32", "patch_rope"),
    ("dinov3", "leading: 5", "leading: 5, reference_grid: [2, 2]", "style grid", "patch_rope"),
    ("nomic-vision", "reference_grid: [3, 3]", "reference_grid: [3]", "vertical and a horizontal", "patch_rope"),
    ("nomic-vision", "style: grid", "style: rows", "centred, grid", "rows"),
    ("nomic-vision", "kv: selector.attn.Wkv.weight", "qkv: selector.attn.Wkv.weight", "`qkv` alone", "attention_pool"),
]


@pytest.mark.parametrize(("example", "old", "new", "words", "at"), WRONG, ids=[f"{w[0]}-{w[2][:24]}" for w in WRONG])
def test_a_wrong_flow_is_refused(example: str, old: str, new: str, words: str, at: str, tmp_path: Path) -> None:
    text = (ROOT / "examples" / f"{example}.yaml").read_text()
    assert old in text
    (tmp_path / "wrong.yaml").write_text(text.replace(old, new))
    with pytest.raises(FlowError) as caught:
        compile_file(tmp_path / "wrong.yaml", Request())
    first = caught.value.diagnostics[0]
    assert words in f"{first.message} {first.hint}", caught.value.render()
    assert first.span is not None
    assert at in first.span.source.line(first.span.line)
