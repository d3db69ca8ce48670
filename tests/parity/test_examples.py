"""Every example builds, and onnxruntime gives what the interpreter gives: for ragged batches, several sizes, a past."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from flowc.build.compiled import Request
from flowc.compile import build, compile_file
from flowc.frontend.phases import is_decoder
from flowc.ir.graph import Graph
from flowc.ir.interpret import interpret
from flowc.spec.load import load
from flowc.stages import load_all
from tests.oracle_io import ROOT, Array
from tests.parity.harness import Model, past_of

load_all()
TARGETS = ("ort-cpu", "portable", "portable-20")
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.yaml") if not load(path).main.name)
"""Those of one component; `test_encoder_decoder.py` has the others."""
SIZES: dict[str, tuple[dict[str, int], ...]] = {
    "input_ids": ({"batch_size": 4, "sequence_length": 30},),
    "pixel_values": ({"batch_size": 3, "height": 20, "width": 33},),
    "block_in.img": tuple(
        {"batch_size": b, "image_sequence_length": i, "text_sequence_length": t}
        for b, i, t in ((1, 1, 1), (2, 9, 3), (3, 4, 7))
    ),
}
"""What the open sizes of an encoder are in each run, by its first input."""


def test_every_kind_of_example_is_there() -> None:
    decoders = {name for name in EXAMPLES if is_decoder(load(ROOT / "examples" / f"{name}.yaml").main)}
    assert len(decoders) >= 14
    assert len(set(EXAMPLES) - decoders) >= 13


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("example", EXAMPLES)
def test_example_computes_what_it_says(example: str, target: str, tmp_path: Path) -> None:
    compiled = compile_file(ROOT / "examples" / f"{example}.yaml", Request(target=target))
    decoder = "encode" not in compiled.graphs
    build(compiled, tmp_path / "model.onnx", verify="off" if decoder else "quick")
    (_decodes if decoder else _encodes)(Model(compiled, tmp_path))


def _decodes(model: Model) -> None:
    """A prompt of three rows and one more token: prefill, decode, and unified in the place of both."""
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 97, (3, 40))
    mask = np.ones_like(ids)
    mask[0, :7], mask[1, -5:] = 0, 0
    feeds: dict[str, Array] = {"input_ids": ids, "attention_mask": mask}
    first = model.run("prefill", feeds)
    _same(first, _meaning(model, "prefill", feeds), mask)
    _same(model.run("unified", feeds), first, mask)
    grown = np.concatenate([mask, np.ones((3, 1), mask.dtype)], axis=1)
    feeds = {"input_ids": ids[:, :1], "attention_mask": grown, **past_of(first)}
    second = model.run("decode", feeds)
    _same(second, _meaning(model, "decode", feeds), grown)
    _same(model.run("unified", feeds), second, grown)


def _encodes(model: Model) -> None:
    for feeds in _encoder_feeds(model.compiled.expanded["encode"]):
        _same(model.run("encode", feeds), _meaning(model, "encode", feeds), feeds.get("attention_mask"), 2e-5)


def _encoder_feeds(graph: Graph) -> Iterator[dict[str, Array]]:
    """Random inputs of each size; a mask with holes, a rope's tables from random angles."""
    rng = np.random.default_rng(3)
    for size in SIZES[next(v.name for v in graph.inputs if v.name in SIZES)]:
        sizes = {
            **size,
            "text_sequence_length + image_sequence_length": sum(n for d, n in size.items() if d != "batch_size"),
        }
        feeds: dict[str, Array] = {}
        for value in graph.inputs:
            shape = tuple(d if isinstance(d, int) else sizes[d] for d in value.shape)
            if value.name == "attention_mask":
                mask = np.ones(shape, np.int64)
                mask[0, :7] = mask[1, -5:] = mask[2, 11:14] = 0
                feeds[value.name] = mask
            elif value.dtype == "int64":
                feeds[value.name] = rng.integers(
                    0 if value.name == "token_type_ids" else 2, _ids_below(value.name), shape
                )
            else:
                feeds[value.name] = rng.standard_normal(shape).astype(np.float32)
        if "block_in.rope_cos" in feeds:
            angles = rng.uniform(-3, 3, (feeds["block_in.rope_cos"].shape[0], 8)).repeat(2, axis=1)
            feeds["block_in.rope_cos"] = np.cos(angles).astype(np.float32)
            feeds["block_in.rope_sin"] = np.sin(angles).astype(np.float32)
        yield feeds


def _ids_below(name: str) -> int:
    return 2 if name == "token_type_ids" else 97


def _meaning(model: Model, phase: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
    checkpoint = model.compiled.checkpoint
    assert checkpoint is not None
    return interpret(model.compiled.expanded[phase], feeds, checkpoint.read)


def _same(got: Mapping[str, Array], want: Mapping[str, Array], mask: Array | None, tolerance: float = 1e-4) -> None:
    """Equal outputs; tokens and caches only where the mask keeps a column."""
    assert got
    assert got.keys() == want.keys()
    # The gated norm behind a delta rule amplifies rounding, in HuggingFace too (oracles, section 3).
    tolerance = 5e-4 if any(name.endswith(".recurrent_state") for name in want) else tolerance
    for name, reference in want.items():
        value = got[name]
        assert value.shape == reference.shape
        if mask is not None and name.endswith((".key", ".value")):
            value, reference = (a.swapaxes(1, 2)[mask != 0] for a in (value, reference))
        elif mask is not None and reference.ndim == 3 and reference.shape[:2] == mask.shape:
            value, reference = value[mask != 0], reference[mask != 0]
        assert np.isfinite(reference).all()
        assert np.ptp(reference) > 1e-3, f"{name} is the same everywhere"
        np.testing.assert_allclose(value, reference, rtol=1e-5, atol=tolerance, err_msg=name)
