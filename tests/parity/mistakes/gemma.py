"""Mistakes to plant in Gemma 1, 2 and 3."""

from __future__ import annotations

TARGETS = ("ort-cpu",)

# case, what of its spec is replaced, by what, what that means
MISTAKES = [
    ("gemma1_mqa", "  - embed_scale\n", "", "the embedding not scaled"),
    ("gemma1_mqa", "- gemma_rms_norm", "- rms_norm", "weight instead of 1 + weight"),
    ("gemma1_mqa", "activation: gelu_tanh", "activation: gelu", "GELU's erf form"),
    ("gemma2_softcaps", r"windows: \[5, null, 5, null\]", "windows: [5, 5, 5, 5]", "a window on every layer"),
    ("gemma2_softcaps", r"windows: \[5, null, 5, null\]", "windows: [null, 5, null, 5]", "the odd layers slide"),
    ("gemma2_softcaps", r"windows: \[5, null, 5, null\]", "windows: [6, null, 6, null]", "a window one too long"),
    ("gemma2_softcaps", r"scale: [\d.]+", "scale: 0.288675", "1 / sqrt(head_dim) for the stated scale"),
    ("gemma2_softcaps", "softcap: 2.0", "softcap: 1.0e+6", "no softcap of the scores"),
    ("gemma2_softcaps", r"  - logit_softcap: .*\n", "", "no softcap of the logits"),
    ("gemma3_local_global", r"ropes: \[local, local, global", "ropes: [global, global, local", "the ropes swapped"),
    ("gemma3_local_global", "type: linear, factor: 8.0", "type: linear, factor: 1.0", "the global rope not scaled"),
    ("gemma3_local_global", r"windows: .*", "windows: [5, 5, 5, 5, 5, 5]", "no global layer"),
    ("gemma3_local_global", "style: gemma3", "style: gemma2", "no q/k norm"),
]
