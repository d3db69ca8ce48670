"""Activations, norms and the softcap: meaning and lowering against what transformers and torch compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast, get_args

import numpy as np
import pytest

from flowc.importers.decoders import ACTIVATIONS
from flowc.ir.core.elementwise import Function, Softcap, Unary
from flowc.ir.core.norm import Norm
from flowc.ir.op import Op
from tests.ir.running import TARGETS, lowered, meaning
from tests.oracle_io import Array, Oracle

# One unit in the last place of the largest value, a little more for the approximations inside onnxruntime.
TOLERANCE = 2e-6

ReadOracle = Callable[[str], Oracle]


def assert_all_ways(op: Op, want: Array, *arrays: Array | None, tolerance: float = TOLERANCE) -> None:
    """The meaning and every target give what is wanted."""
    ways = {"meaning": meaning(op, *arrays)[0], **{t: lowered(t, op, *arrays)[0] for t in TARGETS}}
    for way, got in ways.items():
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance, err_msg=way)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activation_is_huggingfaces(name: str, oracle: ReadOracle) -> None:
    arrays = oracle("elementwise").all("act")
    theirs = {"swish": "silu"}.get(name, name)
    assert_all_ways(Unary(cast("Function", ACTIVATIONS[name])), arrays[theirs], arrays["x"], tolerance=5e-6)


def test_gelus_are_told_apart(oracle: ReadOracle) -> None:
    """The tolerance above is fine enough to see the erf form taken for the tanh form."""
    arrays = oracle("elementwise").all("act")
    assert np.abs(arrays["gelu"] - arrays["gelu_pytorch_tanh"]).max() > 1e-4
    with pytest.raises(AssertionError):
        assert_all_ways(Unary("gelu"), arrays["gelu_pytorch_tanh"], arrays["x"], tolerance=5e-6)


def test_every_function_has_a_kernel_and_a_meaning() -> None:
    x = np.linspace(-6, 6, 97, dtype=np.float32)[None]
    for function in get_args(Function):
        (want,) = meaning(Unary(function), x)
        for target in TARGETS:
            np.testing.assert_allclose(lowered(target, Unary(function), x)[0], want, rtol=5e-6, atol=5e-6)


@pytest.mark.parametrize("width", ["norm7", "norm48"])
def test_norms_are_huggingfaces(width: str, oracle: ReadOracle) -> None:
    arrays = oracle("elementwise").all(width)
    x, gain, bias, eps = arrays["x"], arrays["weight"], arrays["bias"], float(arrays["eps"])
    assert_all_ways(Norm("rms", eps), arrays["rms_norm"], x, gain)
    assert_all_ways(Norm("rms", eps, offset=1.0), arrays["gemma_rms_norm"], x, gain)
    assert_all_ways(Norm("layer", eps), arrays["layer_norm"], x, gain, bias)
    assert_all_ways(Softcap(5.0), arrays["softcap5"], x)


def test_norm_without_bias_or_gain() -> None:
    """LayerNorm without bias (ModernBERT) and without gain, against the formula in float64."""
    rng = np.random.default_rng(0)
    x, gain = rng.standard_normal((2, 3, 12)).astype(np.float32), rng.standard_normal(12).astype(np.float32)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    plain = centred / np.sqrt(wide.var(-1, keepdims=True) + 1e-3)
    assert_all_ways(Norm("layer", 1e-3), plain * gain, x, gain)
    assert_all_ways(Norm("layer", 1e-3), plain, x)
