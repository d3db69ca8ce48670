"""Tokenizers small enough to see through, built in the test."""

from __future__ import annotations

import json
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors


def byte_level(specials: tuple[str, ...] = ("<s>", "<|end|>")) -> tokenizers.Tokenizer:
    """One token a byte (ids from len(specials) on), no merges: every character beyond ASCII takes several tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*specials, *alphabet])}
    found = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    found.add_special_tokens(list(specials))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    return found


def sentencepiece() -> tokenizers.Tokenizer:
    """Llama's kind: a visible space before each word, unknown characters as bytes, <s> before every text."""
    words = ["<unk>", "<s>", "▁Paris", "▁is", "▁big", "s", "▁", *(f"<0x{i:02X}>" for i in range(256))]
    vocab = {token: i for i, token in enumerate(words)}
    merges: list[tuple[str, str]] = []
    found = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True))
    found.add_special_tokens(["<unk>", "<s>"])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    found.decoder = decoders.Sequence(steps)
    found.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return found


def files(inner: tokenizers.Tokenizer, config: dict[str, Any] | None = None, **others: str) -> dict[str, str]:
    """Texts of tokenizer.json, tokenizer_config.json and `others` (`chat_template_jinja=` for chat_template.jinja)."""
    found = {"tokenizer.json": inner.to_str()}
    if config is not None:
        found["tokenizer_config.json"] = json.dumps(config)
    dotted = {"chat_template_jinja": "chat_template.jinja", "generation_config_json": "generation_config.json"}
    return found | {dotted[name]: text for name, text in others.items()}
