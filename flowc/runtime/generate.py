"""From a prompt to new tokens, one at a time."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from flowc.build.manifest_keys import ModelFacts
from flowc.errors import Diagnostics
from flowc.runtime.decoder import Decoder
from flowc.runtime.sampling import Sampler

_ROOM_AT_ONCE = 4096  # columns of a shared cache; a limit that nobody means to reach must not fill the memory

STOPPED = {
    "eos": "the model ended its text",
    "max-tokens": "the number of tokens asked for",
    "context": "the model's context is full",
}


@dataclass(slots=True)
class Statistics:
    """What a generation did so far. Times are in seconds."""

    prompt_tokens: int
    new_tokens: int = 0
    first_token: float = 0.0
    """From the start of the prompt to its first new token."""
    rest: float = 0.0
    """For the tokens after the first."""
    stopped: str = ""
    """One of STOPPED's keys; empty while it runs."""

    @property
    def tokens_per_second(self) -> float | None:
        """Speed after the first token; None before there is a second one."""
        return (self.new_tokens - 1) / self.rest if self.new_tokens > 1 and self.rest > 0 else None


def check_prompt(ids: Sequence[int], model: ModelFacts) -> None:
    """Raise SpecError when a model cannot take these ids: none, outside the vocabulary, or more than its context."""
    wrong = Diagnostics()
    if not ids:
        wrong.error("bad-prompt", "the prompt has no tokens")
    outside = [i for i in ids if i < 0 or (model.vocab is not None and i >= model.vocab)]
    if outside:
        shown = ", ".join(map(str, outside[:5])) + (" …" if len(outside) > 5 else "")
        which = f"token id {shown} lies" if len(outside) == 1 else f"token ids {shown} lie"
        wrong.error("bad-prompt", f"{which} outside the vocabulary of {model.vocab}")
    if model.context_length is not None and len(ids) > model.context_length:
        wrong.error("bad-prompt", f"the prompt has {len(ids)} tokens; the model's context is {model.context_length}")
    wrong.raise_if_any()


def generate(
    decoder: Decoder,
    prompt: Sequence[int],
    *,
    max_tokens: int,
    sampler: Sampler,
    eos: Collection[int] = (),
    context_length: int | None = None,
    statistics: Statistics | None = None,
) -> Iterator[int]:
    """Yield the tokens that follow a prompt, the one that ends the text among them.

    Args:
        decoder: the model; what it held before is forgotten.
        prompt: token ids, at least one.
        max_tokens: at most so many new tokens.
        sampler: how the next token is chosen.
        eos: ids that end the text.
        context_length: prompt and new tokens, but for the last one, stay within it.
        statistics: filled in as tokens come.
    """
    seen = statistics if statistics is not None else Statistics(len(prompt))
    # The last new token is never fed: a prompt as long as the context still has a token that follows it.
    room = max_tokens if context_length is None else min(max_tokens, context_length - len(prompt) + 1)
    if room < 1:
        seen.stopped = "max-tokens" if max_tokens < 1 else "context"
        return
    begun = time.perf_counter()
    logits = decoder.start(np.array([list(prompt)], np.int64), capacity=len(prompt) + min(room, _ROOM_AT_ONCE))
    while True:
        token = sampler.pick(logits[0, -1])
        seen.new_tokens += 1
        now = time.perf_counter()
        if seen.new_tokens == 1:
            seen.first_token = now - begun
            begun = now
        seen.rest = now - begun
        if token in eos:
            seen.stopped = "eos"
        elif seen.new_tokens == room:
            seen.stopped = "max-tokens" if room == max_tokens else "context"
        yield token
        if seen.stopped:
            return
        logits = decoder.step(np.array([[token]], np.int64))
