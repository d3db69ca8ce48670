"""Special and added tokens of a folder: which there are, and how transformers adds them to a tokenizer.

tokenizer_config.json     the names (bos_token ...), added_tokens_decoder, extra_special_tokens
special_tokens_map.json   names, where there is no added_tokens_decoder (files of transformers before 4.34)
added_tokens.json         tokens by number, on the same condition
tokenizer.json            its added_tokens, on the same condition where a class builds the tokenizer anew
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from flowc.errors import WeightsError
from flowc.tokenizer.reading import Json

if TYPE_CHECKING:
    import tokenizers

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""The special tokens that every class knows, in the order in which they are added."""

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True, slots=True)
class Token:
    """A token as the files describe it; `flags` are those that they state."""

    text: str
    flags: Mapping[str, bool] = field(default_factory=dict[str, bool])

    def added(self, *, special: bool = False) -> tokenizers.AddedToken:
        """The library's object, with its own defaults for what the files do not state."""
        import tokenizers

        flags = dict(self.flags)
        if special:
            flags["special"] = True
        return tokenizers.AddedToken(self.text, **flags)


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The tokens of a folder that tokenizer.json's vocabulary may lack."""

    named: Mapping[str, Token]
    """By name: bos_token and its like, then the model's own (image_token)."""
    extra: tuple[Token, ...]
    """Special ones without a name."""
    numbered: tuple[Token, ...]
    """Added ones, in the order of their numbers."""

    def texts(self) -> dict[str, str]:
        """The named tokens' texts, as a chat template sees them."""
        return {name: token.text for name, token in self.named.items()}


def token_of(value: Any, where: str) -> Token | None:
    """A token as a text or as an object with `content`; None for null. WeightsError `broken-tokenizer`."""
    if value is None:
        return None
    entry: Json = cast("Json", value) if isinstance(value, dict) else {"content": value}
    if not isinstance(entry.get("content"), str):
        raise WeightsError.of("broken-tokenizer", f"{where} is no token: {repr(entry)[:60]}")
    return Token(str(entry["content"]), {k: bool(entry[k]) for k in _FLAGS if isinstance(entry.get(k), bool)})


def special_tokens(config: Json, beside: Mapping[str, Json], defaults: Mapping[str, Token]) -> SpecialTokens:
    """The tokens of a folder.

    `config` is its tokenizer_config.json, `beside` the JSON of its other files by name (tokenizer.json among them where
    its own added tokens count), `defaults` what the class has where the files name none.
    """
    said = dict(config)
    if said.get("additional_special_tokens") and not said.get("extra_special_tokens"):
        said["extra_special_tokens"] = said["additional_special_tokens"]
    by_number: dict[int, Token] = {}
    listed = config.get("added_tokens_decoder")
    if isinstance(listed, dict):
        by_number = {_number(k): _token(v) for k, v in cast("Json", listed).items()}
    else:
        _add_legacy(said, beside, by_number)
    known = {token.text: token for token in by_number.values()}
    named = {name: defaults[name] for name in NAMES if name in defaults}
    for name, value in said.items():
        if name in NAMES and value is None:
            named.pop(name, None)
        elif name in NAMES or (name.endswith("_token") and isinstance(value, (str, dict))):
            named[name] = _token(value)
    extra = said.get("extra_special_tokens")
    if isinstance(extra, dict):
        named |= {name: _token(value) for name, value in cast("Json", extra).items()}
        extra = []
    ordered = sorted(named, key=lambda n: NAMES.index(n) if n in NAMES else len(NAMES))
    return SpecialTokens(
        {name: known.get(named[name].text, named[name]) if name in NAMES else named[name] for name in ordered},
        tuple(_token(value) for value in cast("list[Any]", extra or [])),
        tuple(by_number[i] for i in sorted(by_number)),
    )


def _add_legacy(said: Json, beside: Mapping[str, Json], by_number: dict[int, Token]) -> None:
    """What the older files say; see the module's list."""
    for name, value in beside.get("special_tokens_map.json", {}).items():
        if name == "additional_special_tokens":
            said.setdefault("extra_special_tokens", value)
        elif name == "extra_special_tokens" and isinstance(value, list):
            had: list[Any] = list(said.get(name) or [])
            said[name] = had + [v for v in cast("list[Any]", value) if v not in had]
        elif isinstance(value, dict) and name != "extra_special_tokens":
            said[name] = {**cast("Json", value), "special": True}
        else:
            said[name] = value
    extra: Any = said.get("extra_special_tokens") or []
    special = {token.text for token in (_token(said[n]) for n in NAMES if said.get(n))}
    special |= {_token(value).text for value in cast("list[Any]", extra if isinstance(extra, list) else [])}
    for text, number in beside.get("added_tokens.json", {}).items():
        flags = {"lstrip": False, "rstrip": False, "normalized": text not in special, "special": text in special}
        by_number[_number(number)] = Token(text, flags)
    entries: Any = beside.get("tokenizer.json", {}).get("added_tokens") or []
    for entry in cast("list[Any]", entries):
        if isinstance(entry, dict):
            by_number[_number(cast("Json", entry).get("id"))] = _token(entry)


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise WeightsError.of("broken-tokenizer", f"an added token has the number {str(value)[:40]}") from None


def _token(value: Any) -> Token:
    token = token_of(value, "an added token")
    if token is None:
        raise WeightsError.of("broken-tokenizer", "an added token is null")
    return token


def add_tokens(tokenizer: tokenizers.Tokenizer, tokens: SpecialTokens, *, again: bool) -> None:
    """Add what the tokenizer lacks, in transformers' order; `again` adds all special ones once more as such."""
    adding = list(tokens.numbered)
    there = {t.content for t in tokenizer.get_added_tokens_decoder().values()} | {t.text for t in adding}
    for token in (*tokens.named.values(), *tokens.extra):
        if token.text not in there:
            there.add(token.text)
            adding.append(Token(token.text, {**token.flags, "special": True}))
    names = {token.text for token in tokens.named.values()}
    tokenizer.add_tokens([t.added(special=t.text in names) for t in adding])
    if again:
        every = dict.fromkeys(t.text for t in (*tokens.named.values(), *tokens.extra))
        tokenizer.add_tokens([Token(text).added(special=True) for text in every])
