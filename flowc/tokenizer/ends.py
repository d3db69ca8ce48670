"""Which tokens end a text: one list, of all the places that name one.

The spec (its importer read the configuration), generation_config.json, the tokenizer's eos token; in a GGUF its eos,
eot and eom tokens and those that llama.cpp takes for ends by their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from flowc.tokenizer.reading import Json

_LLAMA_CPP_ENDS = frozenset({
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>",
    "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>",
})  # fmt: skip
"""llama.cpp's `special_eog_ids` by name (`llama-vocab.cpp`)."""


def numbers(value: Any) -> list[int]:
    """Token numbers in an `eos_token_id` field: a number, a list of them, or nothing."""
    several = cast("list[Any]", value) if isinstance(value, list) else [value]
    return [i for i in several if type(i) is int and i >= 0]


def gguf_ends(metadata: Mapping[str, object]) -> list[int]:
    """The tokens that end a text in llama.cpp."""
    ends: list[int] = []
    for role in ("eos", "eot", "eom"):
        ends += numbers(metadata.get(f"tokenizer.ggml.{role}_token_id"))
    tokens = metadata.get("tokenizer.ggml.tokens")
    names = cast("list[object]", tokens) if isinstance(tokens, list) else []
    by_name = {str(name): number for number, name in enumerate(names) if name in _LLAMA_CPP_ENDS}
    if {"<|return|>", "<|call|>", "<|end|>"} <= by_name.keys():
        del by_name["<|end|>"]  # llama.cpp: gpt-oss ends a message by it, not a text
    return together(ends, sorted(by_name.values()))


def together(*lists: Iterable[int]) -> list[int]:
    """All numbers, each once, in the order in which they come."""
    return list(dict.fromkeys(number for several in lists for number in several))


def generation_ends(generation: Json) -> list[int]:
    """The end tokens of a generation_config.json."""
    return numbers(generation.get("eos_token_id"))
