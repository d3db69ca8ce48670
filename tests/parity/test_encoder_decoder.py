"""The graphs of an encoder-decoder equal HuggingFace: the encoder, its cross caches, prefill, steps, several tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from flowc.ir.interpret import interpret
from tests.encoder_decoder import bart, built_bart
from tests.oracle_io import RTOL, Array, Oracle
from tests.parity.harness import Model

LAYERS, HEADS, HEAD_DIM = 2, 5, 8
SLOTS = [(layer, slot) for layer in range(LAYERS) for slot in ("key", "value")]


def assert_close(got: Array, want: Array, allowed: float, what: str) -> None:
    assert got.shape == want.shape, what
    off = np.abs(got.astype(np.float64) - want) - (allowed + RTOL * np.abs(want))
    assert off.max() <= 0, f"{what}: {np.abs(got - want).max():.3g} off"


def given(read: Mapping[str, Array], mask: Array) -> dict[str, Array]:
    """What the decoder takes of the encoder."""
    cross = {f"past_key_values.{i}.encoder.{slot}": read[f"present.{i}.encoder.{slot}"] for i, slot in SLOTS}
    return {**cross, "encoder_attention_mask": mask}


def past(found: Mapping[str, Array]) -> dict[str, Array]:
    return {f"past_key_values.{i}.decoder.{slot}": found[f"present.{i}.decoder.{slot}"] for i, slot in SLOTS}


def nothing(rows: int) -> dict[str, Array]:
    empty: Array = np.zeros((rows, HEADS, 0, HEAD_DIM), np.float32)
    return {f"past_key_values.{i}.decoder.{slot}": empty for i, slot in SLOTS}


@pytest.mark.parametrize("target", ["ort-cpu", "portable", "portable-20"])
@pytest.mark.parametrize("scenario", ["b1", "b2"])
def test_numbers_are_those_of_huggingface(scenario: str, target: str, tmp_path: Path) -> None:
    oracle = bart()
    compiled = built_bart(tmp_path, "all", target=target)
    model = Model(compiled, tmp_path)
    want, allowed, cached = oracle.all(scenario), oracle.allowed(), oracle.allowed(cached=True)
    mask = want["attention_mask"]
    kept = mask.astype(bool)
    read = model.run("encoder", {"input_ids": want["input_ids"], "attention_mask": mask})
    assert_close(read["last_hidden_state"][kept], want["encoder_last_hidden_state"][kept], allowed, "the encoder")
    for i, slot in SLOTS:
        mine, theirs = read[f"present.{i}.encoder.{slot}"], want[f"cross_{slot}.{i}"]
        assert_close(mine.swapaxes(1, 2)[kept], theirs.swapaxes(1, 2)[kept], allowed, f"the cross {slot} of layer {i}")
    encoder, ids, steps = given(read, mask), want["decoder_input_ids"], want["step_decoder_input_ids"]
    prompt = {"input_ids": ids, "attention_mask": np.ones_like(ids), **encoder}
    found = first = model.run("prefill", prompt)
    assert_close(found["logits"], want["logits"], allowed, "prefill")
    assert_close(model.run("unified", {**prompt, **nothing(len(ids))})["logits"], want["logits"], allowed, "unified")
    for at, feeds in enumerate(_steps(ids, steps)):
        found = model.run("decode", {**feeds, **past(found), **encoder})
        assert_close(found["logits"][:, 0], want["step_logits"][:, at], allowed, f"step {at}")
    for i, slot in SLOTS:
        assert_close(found[f"present.{i}.decoder.{slot}"], want[f"cache_{slot}.{i}"], cached, f"{slot} of layer {i}")
    total: Array = np.ones((len(ids), ids.shape[1] + steps.shape[1]), np.int64)
    several = model.run("unified", {"input_ids": steps, "attention_mask": total, **past(first), **encoder})
    assert_close(several["logits"], want["step_logits"], allowed, "several tokens over a past")
    meaning = interpret(compiled.expanded["prefill"], prompt, compiled.need_checkpoint().read)
    assert_close(meaning["logits"], want["logits"], allowed, "the interpreter")


def _steps(ids: Array, steps: Array) -> Iterator[dict[str, Array]]:
    for at in range(steps.shape[1]):
        total: Array = np.ones((len(ids), ids.shape[1] + at + 1), np.int64)
        yield {"input_ids": steps[:, at : at + 1], "attention_mask": total}


MISTAKES: dict[str, tuple[str, Callable[[Array, Array], Array]]] = {
    "keys for values": ("present.0.encoder.key", lambda a, other: other),
    "another layer's keys": ("present.1.encoder.key", lambda a, other: other),
    "keys of a token late": ("present.0.encoder.key", lambda a, _: np.roll(a, 1, axis=2)),
    "heads in another order": ("present.0.encoder.value", lambda a, _: a[:, ::-1]),
    "padding that is seen": ("mask", lambda a, _: np.ones_like(a)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_cross_cache_shows(mistake: str, tmp_path: Path) -> None:
    oracle: Oracle = bart()
    model = Model(built_bart(tmp_path, "all"), tmp_path)
    want = oracle.all("b2")
    mask = want["attention_mask"]
    read = model.run("encoder", {"input_ids": want["input_ids"], "attention_mask": mask})
    name, change = MISTAKES[mistake]
    other = read["present.0.encoder.value" if name == "present.0.encoder.key" else "present.0.encoder.key"]
    if name == "mask":
        mask = change(mask, other)
    else:
        read[name] = change(read[name], other)
    ids = want["decoder_input_ids"]
    found = model.run("prefill", {"input_ids": ids, "attention_mask": np.ones_like(ids), **given(read, mask)})
    assert np.abs(found["logits"] - want["logits"]).max() > 100 * oracle.allowed()
