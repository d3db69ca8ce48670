"""Rows that go together through `flowc run`'s own decoder give what each gives alone.

This is how users run a model: a padded prompt, then steps over its cache. With --assume right-padding it is also the
only comparison of a compact cache, whose columns the spec's meaning does not know.
"""

from __future__ import annotations

import numpy as np

from flowc.build.manifest import Manifest
from flowc.ir.phases import DECODE, PREFILL, UNIFIED
from flowc.runtime.decoder import Decoder, last_logits
from flowc.verify.checks import Checks
from flowc.verify.compare import compare
from flowc.verify.inputs import Array
from flowc.verify.quick import ragged

COLUMNS, STEPS, SEED = 7, 3, 21


def check_together(manifest: Manifest, checks: Checks, *, brief: bool = False) -> None:
    """Play a ragged batch and its rows, by every way that the build allows; in brief by the usual one, a step long."""
    steps = 1 if brief else STEPS
    *before, main = checks.subject.parts
    feeder, graphs = main.feeder, main.graphs
    if not feeder.names_tokens or not all(any(o.name == "logits" for o in g.outputs) for g in graphs.values()):
        return
    if len(before) > 1 or any(not part.feeder.names_tokens for part in before):
        return  # the decoder of `flowc run` is for ids, and for one encoder of ids
    if manifest.components and not before:
        return  # built without its encoder
    room = manifest.model.context_length or 1 << 30
    if room < COLUMNS + steps:
        return
    ids = feeder.draw(3, COLUMNS + steps, SEED)["input_ids"]
    mask = ragged(3, COLUMNS, manifest.assume or "none")
    read = before[0].feeder.draw(3, COLUMNS, SEED + 1)["input_ids"] if before else None
    ways = {"pair": {PREFILL.name, DECODE.name}, UNIFIED.name: {UNIFIED.name}}
    for way, needed in ways.items():
        if needed <= set(graphs):
            _compare(Decoder.open(manifest, mode=way), way, ids, mask, checks, read)
            if brief:
                return


def _compare(decoder: Decoder, way: str, ids: Array, mask: Array, checks: Checks, read: Array | None = None) -> None:
    """`read` are ids for the encoder, whose rows are padded on the right: it counts positions by columns."""
    lengths = [COLUMNS - 2 * row for row in range(len(ids))]
    if read is not None:
        decoder.read(read, np.less(np.arange(COLUMNS), np.array(lengths)[:, None]).astype(np.int64))
    together, steps = _play(decoder, ids, mask), ids.shape[1] - mask.shape[1]
    phase = DECODE.name if way == "pair" else UNIFIED.name
    share = checks.subject.parts[-1].shares.get((phase, "logits"), 0.0)
    for row in range(len(ids)):
        kept: Array = np.flatnonzero(np.concatenate([mask[row], np.ones(steps, np.int64)]))
        if read is not None:
            decoder.read(read[row : row + 1, : lengths[row]])
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
