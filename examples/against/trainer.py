"""Stands for a trainer's model: two layers in numpy, the second of which sees four tokens back.

Writes `weights.npz`, which the spec names, and `reference.npz`: the inputs of one call, and what each part of the model
gave, under the names that the spec's stages have. In PyTorch, forward hooks collect the same arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

HIDDEN, HEADS, KV_HEADS, DIM, FFN, VOCAB, EPS, THETA = 32, 4, 2, 8, 64, 128, 1e-5, 10000.0
WINDOWS = (None, 4)

rng = np.random.default_rng(1)


def drawn(*shape: int) -> Array:
    """Random numbers, float32."""
    return (rng.standard_normal(shape) * 0.2).astype(np.float32)


weights = {"embed.weight": drawn(VOCAB, HIDDEN) * 5, "norm.weight": 1 + drawn(HIDDEN)}
for n in range(len(WINDOWS)):
    weights |= {
        f"layers.{n}.input_layernorm.weight": 1 + drawn(HIDDEN),
        f"layers.{n}.self_attn.q_proj.weight": drawn(HEADS * DIM, HIDDEN),
        f"layers.{n}.self_attn.k_proj.weight": drawn(KV_HEADS * DIM, HIDDEN),
        f"layers.{n}.self_attn.v_proj.weight": drawn(KV_HEADS * DIM, HIDDEN),
        f"layers.{n}.self_attn.o_proj.weight": drawn(HIDDEN, HEADS * DIM),
        f"layers.{n}.post_attention_layernorm.weight": 1 + drawn(HIDDEN),
        f"layers.{n}.mlp.gate_proj.weight": drawn(FFN, HIDDEN),
        f"layers.{n}.mlp.up_proj.weight": drawn(FFN, HIDDEN),
        f"layers.{n}.mlp.down_proj.weight": drawn(HIDDEN, FFN),
    }


def norm(x: Array, weight: Array) -> Array:
    """RMS norm over the last axis."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + EPS) * weight


def turned(x: Array) -> Array:
    """Rotary positions: [heads, tokens, dim]."""
    places: Array = np.arange(x.shape[1])
    angles: Array = np.outer(places, THETA ** -np.linspace(0, 1, DIM // 2, endpoint=False))
    cos, sin = (np.concatenate([f(angles)] * 2, axis=-1) for f in (np.cos, np.sin))
    half = np.concatenate([-x[..., DIM // 2 :], x[..., : DIM // 2]], axis=-1)
    return x * cos + half * sin


def layer(x: Array, n: int) -> Array:
    """A whole layer: [tokens, hidden] in and out."""

    def linear(value: Array, name: str) -> Array:
        return value @ weights[f"layers.{n}.{name}.weight"].T

    tokens = len(x)
    inner = norm(x, weights[f"layers.{n}.input_layernorm.weight"])
    q, k, v = (linear(inner, f"self_attn.{p}_proj").reshape(tokens, -1, DIM).swapaxes(0, 1) for p in "qkv")
    k, v = (np.repeat(a, HEADS // KV_HEADS, axis=0) for a in (turned(k), v))
    scores = turned(q) @ k.swapaxes(1, 2) / np.sqrt(DIM)
    back = np.arange(tokens)[:, None] - np.arange(tokens)
    scores[:, (back < 0) | (back >= (WINDOWS[n] or tokens))] = -np.inf
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    x = x + linear((shares @ v).swapaxes(0, 1).reshape(tokens, -1), "self_attn.o_proj")
    inner = norm(x, weights[f"layers.{n}.post_attention_layernorm.weight"])
    gate = linear(inner, "mlp.gate_proj")
    return x + linear(gate / (1 + np.exp(-gate)) * linear(inner, "mlp.up_proj"), "mlp.down_proj")


ids = np.array([[17, 3, 99, 4, 4, 61, 8, 120]])
given: dict[str, Array] = {"embed": weights["embed.weight"][ids[0]]}
given["repeat.layers.0.llama_decoder"] = layer(given["embed"], 0)
given["repeat.layers.1.llama_decoder"] = layer(given["repeat.layers.0.llama_decoder"], 1)
given["rms_norm"] = norm(given["repeat.layers.1.llama_decoder"], weights["norm.weight"])
given["logits"] = given["rms_norm"] @ weights["embed.weight"].T

np.savez("weights.npz", allow_pickle=False, **weights)
reference = {name: array[None].astype(np.float32) for name, array in given.items()}  # flowc has batches
np.savez("reference.npz", allow_pickle=False, input_ids=ids.astype(np.int64), **reference)
