"""Random flows of random shapes: interpreter before and after the passes, and onnxruntime, give the same numbers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from flowc.ir.graph import Graph
from tests.passes import random_flows
from tests.passes.drawn_parts import VOCAB, Case, Draw
from tests.passes.making import Array, compile_text, run, run_onnx

TOLERANCE = 2e-4
"""Of a difference, in units of 1 + the greatest number beside it."""
FLOWS: Mapping[str, tuple[st.SearchStrategy[Case], int]] = {
    "decoders": (random_flows.decoders(), 5),
    "phased_decoders": (random_flows.phased_decoders(), 2),
    "encoders": (random_flows.encoders(), 4),
    "choosers": (random_flows.choosers(), 8),
    "images": (random_flows.images(), 2),
    "dual_streams": (random_flows.dual_streams(), 1),
}
"""The strategies, and how many seeds of each `make test` sees."""
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
EXAMPLES = 10
"""Of one seed. Hypothesis goes on with variations of what it has: many seeds show more kinds of flows."""


def padding(case: Case, draw: Draw, batch: int, past: int, new: int) -> Array:
    """A mask that the case allows: every row has a token among its new ones."""
    total = past + new
    mask = np.ones((batch, total), np.int64)
    assume = case.options["assume"]
    for row in mask:
        if assume == "right-padding":
            row[draw(st.integers(0, past)) : past] = 0  # of a compact cache; new tokens stand behind it
            row[draw(st.integers(1, new)) + past :] = 0 if not past else 1
        elif assume == "none":
            kind = draw(st.sampled_from(("none", "left", "right", "ragged")))
            if kind == "left":
                row[: draw(st.integers(0, total - 1))] = 0
            elif kind == "right":
                row[draw(st.integers(1, total)) :] = 0
            elif kind == "ragged":
                row[:] = draw(st.lists(st.integers(0, 1), min_size=total, max_size=total))
            if case.several_masks or case.first_column:
                row[0] = 1
            if case.several_masks:
                for i in range(1, total):
                    row[i] |= 1 - row[i - 1]
            if not row[past:].any():
                row[past + draw(st.integers(0, new - 1))] = 1
    return mask


def feeds_of(case: Case, draw: Draw, graph: Graph, names: Mapping[str, str]) -> tuple[dict[str, Array], int]:
    """Random inputs of a graph, and the length of its past; `names` are what renamed inputs were."""
    cached = graph.phase.takes_past
    new = 1 if graph.phase.tokens == "one" else draw(st.integers(1, 6))
    past = draw(st.integers(0, 5) | st.integers(10, 14)) if cached else 0
    size = {
        "batch_size": draw(st.integers(1, 3)), "sequence_length": new, "past_sequence_length": past,
        "total_sequence_length": past + new, "height": draw(st.integers(3, 7)), "width": draw(st.integers(3, 7)),
        "image_tokens": new, "text_tokens": draw(st.integers(1, 3)),
    }  # fmt: skip
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    feeds: dict[str, Array] = {}
    for value in graph.inputs:
        name = names.get(value.name, value.name)
        shape = [d if isinstance(d, int) else sum(size[part] for part in str(d).split(" + ")) for d in value.shape]
        if name in ("attention_mask", "other"):
            feeds[value.name] = padding(case, draw, size["batch_size"], past, new)
        elif value.dtype == "int64":
            feeds[value.name] = rng.integers(0, 2 if name == "token_type_ids" else VOCAB, shape)
        else:
            feeds[value.name] = rng.standard_normal(shape).astype(np.float32)
        if name in ("cos", "sin"):  # an angle stands at both channels that it turns
            feeds[value.name] = np.repeat(feeds[value.name][:, ::2], 2, axis=1)
    return feeds, past


def specified(name: str, array: Array, mask: Array | None, past: int, compact: bool) -> Array:
    """The numbers that mean something: what stands at padding does not, and a compact cache has its rows' in front."""
    if mask is None:
        return array
    if name.startswith("present."):
        if not name.endswith((".key", ".value")):
            return array
        kept = -np.sort(-mask, axis=1) if compact else mask
        return array.swapaxes(1, 2)[kept != 0]
    fresh = mask[:, past:]
    return array[fresh != 0] if array.ndim == 3 and array.shape[:2] == fresh.shape else array


def check(case: Case, draw: Draw) -> None:
    """Compare all graphs of a case on random inputs."""
    with tempfile.TemporaryDirectory() as folder:
        # A drawn flow may hold what nobody reads; a person is told of it, and the graphs are compared all the same.
        with mock.patch("flowc.frontend.usage._stages"):
            compiled = compile_text(Path(folder), case.text, "", **case.options)
        names = {new: old for old, new in compiled.spec.public_names.items()}
        for phase, graph in compiled.graphs.items():
            feeds, past = feeds_of(case, draw, compiled.expanded[phase], names)
            masks = [feeds[n] for n in feeds if names.get(n, n) in ("attention_mask", "other")]
            mask = masks[0] if masks and not case.several_masks else None
            compact = any(getattr(node.op, "compact", False) for node in graph.nodes)
            want = run(compiled.expanded[phase], feeds, compiled)
            optimised, lowered = run(graph, feeds, compiled), run_onnx(graph, feeds, compiled, case.options["target"])
            for made, got in (("passes", optimised), ("onnxruntime", lowered)):
                assert list(got) == list(want), (phase, made)
                for name, whole in want.items():
                    place = (phase, made, name)
                    assert got[name].shape == whole.shape, place
                    right = specified(name, whole, mask, past, False)
                    found = specified(name, got[name], mask, past, compact)
                    assert np.isfinite(right).all(), place
                    assert np.isfinite(found).all(), place
                    difference = np.abs(found - right) / (1 + np.abs(right).max(initial=0))
                    assert difference.max(initial=0) <= TOLERANCE, (*place, difference.max())


def examine(kind: str, number: int) -> None:
    """Check the examples of one seed. A failing one is shown as drawn: to shrink it (Phase.shrink) takes minutes."""

    @seed(number)
    @settings(max_examples=EXAMPLES, phases=[Phase.generate], suppress_health_check=SLOW)
    @given(st.data())
    def examples(data: st.DataObject) -> None:
        check(data.draw(FLOWS[kind][0]), data.draw)

    examples()


@pytest.mark.parametrize(("kind", "number"), [(kind, n) for kind, (_, seeds) in FLOWS.items() for n in range(seeds)])
def test_flows(kind: str, number: int) -> None:
    examine(kind, number)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FLOWS)
def test_many_flows(kind: str) -> None:
    for number in range(100, 100 + 40 * FLOWS[kind][1]):
        examine(kind, number)
