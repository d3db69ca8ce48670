"""Mistakes to plant in FLUX."""

from __future__ import annotations

TARGETS = ("ort-cpu",)

# case, what of its spec is replaced, by what, what that means
MISTAKES = [
    ("flux_schnell_like", r"\[txt_ids, img_ids\]", "[img_ids, txt_ids]", "positions in another order"),
    ("flux_schnell_like", r"theta: 10000\.0", "theta: 5000.0", "another theta"),
    ("flux_schnell_like", r"axes: \[2, 6, 8\]", "axes: [8, 6, 2]", "axes in another order"),
    ("flux_schnell_like", r"theta: 10000\.0", "theta: 10000.0\n      interleaved: false", "pairs of a rope by halves"),
    ("flux_schnell_like", r"factor: 1000\.0", "factor: 1.0", "a timestep not multiplied"),
    ("flux_schnell_like", r"\[out_scale, out_shift\]", "[out_shift, out_scale]", "shift and scale swapped at the end"),
    ("flux_schnell_like", r"end: last", "end: first", "the text's rows for the image's"),
    ("flux_schnell_like", r"\n *- \{scale_by_stream: gate\}", "", "the gate of a single block dropped"),
    ("flux_schnell_like", r"\[attention, mlp\]", "[mlp, attention]", "attention and mlp swapped"),
    ("flux_guidance", r"(guidance_embedder.linear_2.*\n *- )\{add_stream", r"\1{load_stream", "guidance ignored"),
    ("flux_guidance", "dual_layers: 2", "dual_layers: 1", "a double block skipped"),
]
