from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowc.build import manifest
from flowc.build.manifest_keys import ModelFacts
from flowc.errors import SpecError
from flowc.runtime.decoder import Decoder
from flowc.runtime.generate import Statistics, check_prompt, generate
from flowc.runtime.sampling import Sampler
from tests.runtime.tiny import TinyLlama

MODEL = TinyLlama(context=16)
PROMPT = [3, 5, 7]


@pytest.fixture(params=["pair", "unified", "decode"])
def decoder(request: pytest.FixtureRequest, tmp_path: Path) -> Decoder:
    return Decoder.open(manifest.load(MODEL.write(tmp_path)), mode=request.param)


def test_greedy_tokens_equal_the_reference(decoder: Decoder) -> None:
    seen = Statistics(len(PROMPT))
    got = list(generate(decoder, PROMPT, max_tokens=10, sampler=Sampler(), statistics=seen))
    assert got == MODEL.greedy(PROMPT, 10)
    assert len(set(got)) > 3, "a model that repeats itself would show little"
    assert (seen.prompt_tokens, seen.new_tokens, seen.stopped) == (3, 10, "max-tokens")
    assert seen.first_token > 0
    assert seen.tokens_per_second is not None


def test_it_ends_with_the_end_token(decoder: Decoder) -> None:
    expected = MODEL.greedy(PROMPT, 10)
    end = next(token for i, token in enumerate(expected) if i >= 2 and token not in expected[:i])
    seen = Statistics(len(PROMPT))
    got = list(generate(decoder, PROMPT, max_tokens=10, sampler=Sampler(), eos=[99, end], statistics=seen))
    assert got == expected[: expected.index(end) + 1]
    assert seen.stopped == "eos"


def test_it_stays_within_the_context(decoder: Decoder) -> None:
    seen = Statistics(len(PROMPT))
    got = list(generate(decoder, PROMPT, max_tokens=99, sampler=Sampler(), context_length=16, statistics=seen))
    assert got == MODEL.greedy(PROMPT, 14)
    assert seen.stopped == "context"
    full = (got + PROMPT)[:16]
    last = list(generate(decoder, full, max_tokens=9, sampler=Sampler(), context_length=16, statistics=seen))
    assert last == MODEL.greedy(full, 1)
    assert seen.stopped == "context"
    assert (
        list(generate(decoder, got + PROMPT, max_tokens=9, sampler=Sampler(), context_length=16, statistics=seen)) == []
    )


def test_drawing_goes_through_the_model(decoder: Decoder) -> None:
    runs = [list(generate(decoder, PROMPT, max_tokens=8, sampler=Sampler(2.0, seed=seed))) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    row = list(PROMPT)
    sampler = Sampler(2.0, seed=1)
    for token in runs[0]:
        assert token == sampler.pick(MODEL.reference(row)[-1].astype(np.float32))
        row.append(token)


@pytest.mark.parametrize(
    ("ids", "parts"),
    [
        ([], ["no tokens"]),
        ([1, -1], ["token id -1 lies outside"]),
        ([40], ["token id 40 lies outside the vocabulary of 40"]),
        ([1] * 17, ["has 17 tokens"]),
        ([50] * 17, ["ids 50, 50, 50, 50, 50 … lie outside", "has 17 tokens"]),
        ([0, 39], []),
    ],
)
def test_prompts_that_a_model_cannot_take(ids: list[int], parts: list[str]) -> None:
    facts = ModelFacts(vocab=40, context_length=16, eos=(), bos=None)
    found: list[str] = []
    try:
        check_prompt(ids, facts)
    except SpecError as error:
        found = [d.message for d in error.diagnostics]
    assert len(found) == len(parts)
    assert all(part in message for part, message in zip(parts, found, strict=True))
