"""Weights for any architecture, with what real checkpoints have and uniform random ones have not.

    embeddings      a few channels a hundred times larger; some tokens, the first and the last among them, that carry
                    massive activations (Sun et al. 2024)
    matrices        heavy tails (Student's t); rows of the output that write into the massive channels
    key biases      a few of 150 and more, query biases of 80 (Qwen2.5)
    norms           gains over two orders of magnitude
    heads, routers  rows that nearly equal others: near-tied logits and experts

How strong each is is drawn per checkpoint, so that some have one of them alone and some have all.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[int, ...]

_NORM = re.compile(r"(norm|ln)\w*(\.\d+)?\.weight$|q_norm|k_norm|added_[qk]", re.IGNORECASE)
_EMBEDDING = re.compile(r"(embed|wte|cls_token|pos_embed|register|latent)", re.IGNORECASE)
_QUERY_OR_KEY = re.compile(r"(?<![a-z])(q|k|q_proj|k_proj|query|key|to_q|to_k|Wq|q_lin|k_lin|add_[qk]_proj)\.bias$")
_FUSED = re.compile(r"(qkv|Wkv|in_proj)\w*\.bias$", re.IGNORECASE)
_HEAD = re.compile(r"(lm_head|mlp\.gate|decoder|vocab_projector|classifier)\.weight$")


@dataclass(frozen=True, slots=True)
class Strength:
    """How strong each property of one checkpoint is."""

    massive: float
    """Size of massive activations, beside 1."""
    biases: float
    """Size of the largest key biases."""
    tails: float
    """Degrees of freedom of the weights: the fewer, the heavier are the tails."""
    gains: float
    """Orders of magnitude that the norms' gains cover."""
    ties: float
    """Relative distance of near-tied rows."""

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Strength:
        """One of many checkpoints."""
        return cls(
            massive=float(rng.choice([1.0, 30.0, 300.0, 3000.0])),
            biases=float(rng.choice([1.0, 50.0, 150.0, 170.0])),
            tails=float(rng.choice([2.5, 4.0, 30.0])),
            gains=float(rng.choice([0.2, 1.0, 2.0])),
            ties=float(rng.choice([1e-6, 1e-4, 1e-2])),
        )


def real_like(shapes: Mapping[str, Shape], seed: int) -> dict[str, Array]:
    """float32 arrays for tensors of these names and shapes; the same for the same seed."""
    strength = Strength.drawn(np.random.default_rng(seed))
    widths = {shape[-1] for name, shape in shapes.items() if _EMBEDDING.search(name)}
    rng = np.random.default_rng([seed, 1])
    channels = {width: rng.choice(width, min(3, width), replace=False) for width in sorted(widths)}
    return {
        name: _tensor(name, shape, strength, channels, np.random.default_rng([seed, zlib.crc32(name.encode())]))
        for name, shape in shapes.items()
    }


def _tensor(
    name: str, shape: Shape, strength: Strength, channels: Mapping[int, Array], rng: np.random.Generator
) -> Array:
    values = rng.standard_t(strength.tails, shape)
    if name.endswith("A_log"):
        values = np.log(rng.uniform(1, 16, shape))
    elif name.endswith("dt_bias"):
        values = rng.uniform(-5, 2, shape)
    elif len(shape) < 2 and (_NORM.search(name) or "weight" in name):
        values = 10 ** rng.uniform(-strength.gains / 2, strength.gains / 2, shape)
    elif re.search(r"(gamma|lambda|layer_scale)", name):
        values = 10 ** rng.uniform(-3, 0, shape)
    elif _QUERY_OR_KEY.search(name) or _FUSED.search(name):
        width = len(values)
        few = rng.random(shape) < 4 / max(4, width)
        values = values + few * rng.choice([-1.0, 1.0], shape) * rng.uniform(0.3, 1, shape) * strength.biases
        if _FUSED.search(name):
            values[width - width // 3 :] = rng.standard_normal(width // 3)
    elif len(shape) < 2:
        values = values * 0.3
    elif _EMBEDDING.search(name):
        values = _embedding(values, shape, strength, channels, rng)
    else:
        values = values / np.sqrt(np.prod(shape[1:]))
        for channel in channels.get(shape[0], ()):
            values[channel] *= min(strength.massive, 30.0)
        if _HEAD.search(name) and shape[0] > 3:
            twins = rng.choice(shape[0], shape[0] // 4 * 2, replace=False)
            half = len(twins) // 2
            values[twins[:half]] = values[twins[half : 2 * half]] * (1 + strength.ties)
    return np.ascontiguousarray(values, np.float32)


def _embedding(
    values: Array, shape: Shape, strength: Strength, channels: Mapping[int, Array], rng: np.random.Generator
) -> Array:
    rows = values.reshape(-1, shape[-1]) * 0.3
    few = channels[shape[-1]]
    rows[:, few] *= min(strength.massive, 100.0)
    tokens = np.unique([0, len(rows) - 1, *rng.choice(len(rows), len(rows) // 20, replace=False)])
    rows[np.ix_(tokens, few)] = rng.choice([-1.0, 1.0], (len(tokens), len(few))) * strength.massive
    if len(rows) > 8:
        rows[3] = rows[5] * (1 + strength.ties)
    return rows.reshape(shape)


def write_safetensors(path: Path, arrays: Mapping[str, Array]) -> Path:
    """float32 arrays as one .safetensors file."""
    header: dict[str, Any] = {}
    at = 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(array.tobytes())
    return path
