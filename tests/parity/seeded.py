"""Weights and inputs of tiny models out of seeds, the same with torch and without."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from tests.oracle_io import Array

LENGTH = 10
LENGTHS = (LENGTH, LENGTH - 3)
"""Tokens in each row of a batch; the rest is padding."""


def _random(seed: int, name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(f"{seed} {name}".encode()))


def weight(name: str, shape: tuple[int, ...], seed: int) -> Array:
    """A tensor of a checkpoint, large enough that each shows in the output: float32."""
    noise = _random(seed, name).standard_normal(shape)
    if len(shape) >= 2:
        noise = noise * (0.7 if "embed" in name else 1.2 / max(1, shape[-1]) ** 0.5)
    elif "norm" in name.lower() or "lambda" in name or "scale" in name or "emb_ln" in name:
        noise = 1.0 + 0.3 * noise
    else:
        noise = 0.3 * noise
    return noise.astype(np.float32)


def text(seed: int, *, pad: int, types: int, left: bool) -> dict[str, Array]:
    """Ids between 3 and 36, a mask padded on the right or left, and token types where there are several."""
    random = _random(seed, "text")
    ids, mask = random.randint(3, 36, (len(LENGTHS), LENGTH)), np.ones((len(LENGTHS), LENGTH), np.int64)
    for row, length in enumerate(LENGTHS):
        gone = slice(0, LENGTH - length) if left else slice(length, LENGTH)
        mask[row, gone], ids[row, gone] = 0, pad
    feeds = {"input_ids": ids.astype(np.int64), "attention_mask": mask}
    if types > 1:
        feeds["token_type_ids"] = random.randint(0, types, ids.shape).astype(np.int64)
    return feeds


def images(seed: int, channels: int, size: tuple[int, int]) -> dict[str, Array]:
    """Two images."""
    return {"pixel_values": _random(seed, "images").standard_normal((2, channels, *size)).astype(np.float32)}


def feeds_of(kind: str, config: dict[str, Any], seed: int) -> dict[str, Array]:
    """The inputs of a model of this kind; `config` says sizes, with the class's defaults in it."""
    if kind == "vision":
        size = config["image_size"]
        return images(seed, config["num_channels"], tuple(size) if isinstance(size, list) else (size, size))  # pyright: ignore[reportUnknownArgumentType]
    pad, types = config.get("pad_token_id"), config.get("type_vocab_size") or 0
    pad = pad if isinstance(pad, int) and pad >= 0 else 0
    return text(seed, pad=pad, types=types if kind == "encoder" else 0, left=kind == "decoder" and seed % 2 == 1)
