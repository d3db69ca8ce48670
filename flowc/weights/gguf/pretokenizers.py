"""How byte-level BPE tokenizers cut text before merging, by the names that GGUF gives (`tokenizer.ggml.pre`).

The rules are those of the models' own `tokenizer.json`, where llama.cpp's are regular expressions that imitate them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Json = dict[str, object]

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_PUNCTUATION_AND_SPACE = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_PUNCTUATION_AND_SPACE}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_PUNCTUATION_AND_SPACE}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*")
_CASED_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT4O = "|".join([f"{word}{_CONTRACTIONS}?" for word in _CASED] + [r"\p{N}{1,3}", _CASED_TAIL])
_TEKKEN = "|".join([*_CASED, r"\p{N}", _CASED_TAIL])


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """Steps of a `tokenizer.json` pre-tokenizer and what goes with it; `add_bos` is for a GGUF that does not say."""

    steps: tuple[Json, ...]
    normalizer: Json | None = None
    ignore_merges: bool = False
    add_bos: bool = False


def _split(pattern: str) -> Json:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _bytes(*, use_regex: bool) -> Json:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _by_pattern(*patterns: str) -> tuple[Json, ...]:
    return (*map(_split, patterns), _bytes(use_regex=False))


_DIGITS: Json = {"type": "Digits", "individual_digits": True}
_NFC: Json = {"type": "NFC"}

_PLAIN = PreTokenizer((_bytes(use_regex=True),))
_SINGLE_DIGITS = PreTokenizer((_DIGITS, _bytes(use_regex=True)))
_LLAMA3_RULE = PreTokenizer(_by_pattern(_LLAMA3), ignore_merges=True, add_bos=True)
_QWEN2_RULE = PreTokenizer(_by_pattern(_QWEN2), normalizer=_NFC)

PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    # what llama.cpp does when a converter did not recognise the tokenizer
    "default": PreTokenizer(_by_pattern(r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    "gpt-2": _PLAIN,
    "smollm": _SINGLE_DIGITS,
    "starcoder": _SINGLE_DIGITS,
    "refact": _SINGLE_DIGITS,
    "command-r": _SINGLE_DIGITS,
    "llama-bpe": _LLAMA3_RULE,
    "llama3": _LLAMA3_RULE,
    "llama-v3": _LLAMA3_RULE,
    "smaug-bpe": PreTokenizer(_by_pattern(_LLAMA3)),
    "qwen2": _QWEN2_RULE,
    "deepseek-r1-qwen": _QWEN2_RULE,
    "tekken": PreTokenizer(_by_pattern(_TEKKEN), ignore_merges=True, add_bos=True),
    "gpt-4o": PreTokenizer(_by_pattern(_GPT4O)),
}
