"""Rotary position embedding facts and their tables (Su et al. 2021; HF `modeling_rope_utils`).

Angles are float32 in HuggingFace's order of operations (float32 inverse frequencies times float32 positions); cosine
and sine are taken in float64 and rounded to float32, so tables are within one ulp of HuggingFace's on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

MAX_DIM = 2**16
"""Channels of a head that can rotate; a bound for what an untrusted spec makes flowc compute."""

RopeType = Literal["default", "linear", "llama3", "yarn", "longrope"]


@dataclass(frozen=True)
class RopeFacts:
    """Everything that decides a rope table.

    `dim` is the number of rotated channels of a head. An odd one divides the exponents as it is, and one channel more
    turns (HF: `arange(0, dim, 2) / dim`).
    """

    theta: float
    dim: int
    type: RopeType = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_length: int = 0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float = 1.0
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()

    @property
    def pairs(self) -> int:
        """Angles of a position, each of which turns two channels."""
        return -(-self.dim // 2)

    def frequencies(self, long: bool = False) -> Array:
        """Inverse frequencies, float32 [pairs]; `long` picks longrope's second set."""
        f32 = np.float32
        exponents = np.arange(0, self.dim, 2, dtype=np.int64).astype(f32) / f32(self.dim)
        powers = np.array([math.pow(self.theta, float(e)) for e in exponents], dtype=np.float64).astype(f32)
        match self.type:
            case "default":
                return f32(1) / powers
            case "linear":
                return (f32(1) / powers) / f32(self.factor)
            case "llama3":
                return self._llama3(f32(1) / powers)
            case "yarn":
                return self._yarn(powers)
            case "longrope":
                factors = np.asarray(self.long_factor if long else self.short_factor, dtype=f32)
                return f32(1) / (factors * powers)

    def sound(self) -> bool:
        """Whether all frequencies are positive numbers of float32, as every published rope's are."""
        try:
            with np.errstate(all="ignore"):
                tables = [self.frequencies(), self.frequencies(long=True)] if self.switches else [self.frequencies()]
        except ArithmeticError:
            return False
        return all(bool(np.all(np.isfinite(t) & (t > 0))) for t in tables)

    def _llama3(self, inverse: Array) -> Array:
        f32 = np.float32
        wavelength = f32(2 * math.pi) / inverse
        low, high = self.original_length / self.low_freq_factor, self.original_length / self.high_freq_factor
        scaled = np.where(wavelength > f32(low), inverse / f32(self.factor), inverse)
        with np.errstate(divide="ignore", invalid="ignore"):  # equal factors: no wavelength is medium then
            smooth = (f32(self.original_length) / wavelength - f32(self.low_freq_factor)) / f32(
                self.high_freq_factor - self.low_freq_factor
            )
            smoothed = (f32(1) - smooth) * scaled / f32(self.factor) + smooth * scaled
        medium = ~(wavelength < f32(high)) & ~(wavelength > f32(low))
        return np.where(medium, smoothed, scaled).astype(f32)

    def _yarn(self, powers: Array) -> Array:
        f32 = np.float32

        def correction(rotations: float) -> float:
            length = self.original_length / (rotations * 2 * math.pi)
            return self.dim * math.log(length) / (2 * math.log(self.theta))

        low, high = correction(self.beta_fast), correction(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, self.dim - 1)
        if low == high:
            high += 0.001
        ramp = (np.arange(self.dim // 2, dtype=f32) - f32(low)) / f32(high - low)
        keep = f32(1) - np.clip(ramp, f32(0), f32(1))
        interpolated, extrapolated = f32(1) / (f32(self.factor) * powers), f32(1) / powers
        return (interpolated * (f32(1) - keep) + extrapolated * keep).astype(f32)

    def cos_sin(self, positions: Array, long: bool = False) -> tuple[Array, Array]:
        """Cosine and sine at integer positions [...]: float32 [..., pairs], attention factor included."""
        angles = positions.astype(np.float32)[..., None] * self.frequencies(long)
        wide = angles.astype(np.float64)
        scale = np.float32(self.attention_factor)
        return np.cos(wide).astype(np.float32) * scale, np.sin(wide).astype(np.float32) * scale

    @property
    def switches(self) -> bool:
        """Whether the table depends on how far the call reaches (longrope)."""
        return self.type == "longrope"


def yarn_attention_factor(factor: float, mscale: float | None = None, mscale_all_dim: float | None = None) -> float:
    """YaRN's scale of cosine and sine when the checkpoint names none (Peng et al. 2023, section 3.4)."""

    def scale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if mscale and mscale_all_dim:
        return scale(mscale) / scale(mscale_all_dim)
    return scale(1.0)


def longrope_attention_factor(factor: float, original_length: int) -> float:
    """LongRoPE's scale of cosine and sine when the checkpoint names none (Ding et al. 2024)."""
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original_length))
