"""Rows that go together through `flowc run`'s own decoder give what each gives alone.

This is how users run a model: a padded prompt, then steps over its cache. With --assume right-padding it is also the
only comparison of a compact cache, whose columns the spec's meaning does not know.
"""

from __future__ import annotations

import numpy as np

from flowc.build.manifest import Manifest
from flowc.runtime.decoder import Decoder, last_logits
from flowc.verify.checks import Checks
from flowc.verify.compare import compare
from flowc.verify.inputs import Array
from flowc.verify.quick import ragged

COLUMNS, STEPS, SEED = 7, 3, 21


def check_together(manifest: Manifest, checks: Checks, *, brief: bool = False) -> None:
    """Play a ragged batch and its rows, by every way that the build allows; in brief by the usual one, a step long."""
    steps = 1 if brief else STEPS
    feeder, graphs = checks.subject.feeder, checks.subject.graphs
    if not feeder.names_tokens or not all(any(o.name == "logits" for o in g.outputs) for g in graphs.values()):
        return
    room = manifest.model.context_length or 1 << 30
    if room < COLUMNS + steps:
        return
    ids = feeder.draw(3, COLUMNS + steps, SEED)["input_ids"]
    mask = ragged(3, COLUMNS, manifest.assume or "none")
    ways = {"pair": {"prefill", "decode"}, "unified": {"unified"}}
    for way, needed in ways.items():
        if needed <= set(graphs):
            _compare(Decoder.open(manifest, mode=way), way, ids, mask, checks)
            if brief:
                return


def _compare(decoder: Decoder, way: str, ids: Array, mask: Array, checks: Checks) -> None:
    together, steps = _play(decoder, ids, mask), ids.shape[1] - mask.shape[1]
    phase = "decode" if way == "pair" else "unified"
    share = checks.subject.shares.get((phase, "logits"), 0.0)
    for row in range(len(ids)):
        kept: Array = np.flatnonzero(np.concatenate([mask[row], np.ones(steps, np.int64)]))
        alone = _play(decoder, ids[row : row + 1, kept], np.ones((1, int(mask[row].sum())), np.int64))
        everywhere = np.ones((1, 1), bool)
        allowed = share * np.sqrt(np.square(alone[:, 0].astype(np.float64)).mean(axis=-1, keepdims=True))
        found = compare("logits", together[:, row], alone[:, 0], everywhere, allowed)
        what = f"row {row} of a batch, a prompt and {steps} more tokens ({way}) = the row alone"
        if found.good:
            checks.passed("together", phase, what, found)
        else:
            checks.fail("wrong-numbers", "together", phase, f"the {way} way: {what} does not hold: {found}", found)


def _play(decoder: Decoder, ids: Array, mask: Array) -> Array:
    """Logits of the prompt's last token and of each step: [1 + steps, rows, vocab]."""
    prompt = mask.shape[1]
    logits = [last_logits(decoder.start(ids[:, :prompt], mask), mask)]
    for column in range(prompt, ids.shape[1]):
        new = ids[:, column : column + 1]
        everyone: Array = np.ones_like(new)
        logits.append(last_logits(decoder.step(new), everyone))
    return np.stack(logits)
