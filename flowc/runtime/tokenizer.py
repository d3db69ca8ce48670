"""Text to token ids and back, with the tokenizer files that lie beside a model.

    tokenizer.json           how text becomes ids (the `tokenizers` library's own format)
    tokenizer_config.json    names of the special tokens; often the chat template
    chat_template.jinja      the chat template, where it is a file of its own (it wins)
    generation_config.json   more end-of-sequence ids

Chat templates are rendered as HuggingFace's `apply_chat_template` does: an immutable jinja sandbox, trimmed blocks, the
functions `raise_exception` and `strftime_now`, the filter `tojson`, the special tokens as variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flowc.build.manifest import Manifest
from flowc.errors import SpecError, WeightsError
from flowc.outside.foreign import foreign
from flowc.outside.reading import Unreadable, read_bytes, read_json, read_text, reason_of

if TYPE_CHECKING:
    import tokenizers

_LARGEST = 256 << 20
"""Bytes of a `tokenizer.json`; those of the largest vocabularies have 35 MB."""

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Tokenizer:
    """A model's tokenizer with its chat template and its end-of-sequence ids."""

    def __init__(
        self,
        inner: tokenizers.Tokenizer,
        *,
        template: str | None = None,
        specials: dict[str, str] | None = None,
        eos: Sequence[int] = (),
    ) -> None:
        self.inner = inner
        self.template = template
        self.specials = dict(specials or {})
        named = self.inner.token_to_id(self.specials["eos_token"]) if "eos_token" in self.specials else None
        ends = [*eos] if named is None else [*eos, named]
        self.eos: tuple[int, ...] = tuple(dict.fromkeys(ends))
        """Ids that end a text, without repetition."""

    @classmethod
    def load(cls, manifest: Manifest) -> Tokenizer:
        """The tokenizer of a model.

        Raises:
            SpecError: the model has none.
            WeightsError: one of its files cannot be read.
        """
        path = manifest.tokenizer_file("tokenizer.json")
        if path is None:
            raise SpecError.of(
                "no-tokenizer", f"'{manifest.name}' has no tokenizer beside it", hint="give token ids with --ids 1,2,3"
            )
        config = _read_json(manifest.tokenizer_file("tokenizer_config.json"))
        generation = _read_json(manifest.tokenizer_file("generation_config.json"))
        ends: Any = generation.get("eos_token_id")
        listed = cast("list[object]", ends if isinstance(ends, list) else [ends])
        return cls(
            _read_tokenizer(path),
            template=_template(config, manifest.tokenizer_file("chat_template.jinja")),
            specials=_specials(config),
            eos=[*manifest.model.eos, *(i for i in listed if isinstance(i, int))],
        )

    def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """Ids of a text; with `special_tokens`, also those that the tokenizer itself puts around every text.

        Raises:
            SpecError: half a surrogate pair, as Python makes of bytes that are no UTF-8, is no text.
        """
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                why = f"the prompt is not Unicode text: {text[error.start]!a} at character {error.start}"
                raise SpecError.of("bad-prompt", why) from None
        return list(self.inner.encode(text, add_special_tokens=special_tokens).ids)

    def encode_prompt(self, text: str, *, raw: bool = False, system: str | None = None) -> list[int]:
        """Ids of a prompt: a user's message in the chat template where there is one, else (or `raw`) the text itself.

        Raises:
            SpecError: a system message without a template to put it in, or the template refuses the messages.
        """
        whole, special_tokens = self.prompt_text(text, raw=raw, system=system)
        return self.encode(whole, special_tokens=special_tokens)

    def prompt_text(self, text: str, *, raw: bool = False, system: str | None = None) -> tuple[str, bool]:
        """The text that `encode_prompt` encodes, and whether the tokenizer's own special tokens go around it.

        Raises SpecError as `encode_prompt` does.
        """
        if raw or self.template is None:
            if system is not None:
                why = "--raw leaves it out" if raw else "this model has none"
                raise SpecError.of("chat-template", f"a system message needs the chat template, and {why}")
            return text, True
        messages = [{"role": "user", "content": text}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        return self.render(messages), False  # the template writes the special tokens itself

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """The chat template's text for messages, up to where the assistant begins to speak."""
        from flowc.runtime.chat import render

        assert self.template is not None
        return render(self.template, messages, self.specials)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        return str(self.inner.decode(list(ids), skip_special_tokens=True))

    def stream(self, prompt: Sequence[int] = ()) -> TextStream:
        """A stream of the text that follows a prompt."""
        return TextStream(self, prompt)


class TextStream:
    """Text that comes token by token, in whole characters.

    A token can end inside a character, and some tokenizers drop a space at the beginning of what they decode. So each
    new token is decoded together with the ones before it, and held back while the text ends in an unfinished character.
    """

    _CONTEXT = 8
    _LONGEST = 4  # bytes of a character

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        # A window that begins inside a character would turn a whole run of fallback bytes into U+FFFD.
        starts = range(self._CONTEXT, self._CONTEXT + self._LONGEST)
        windows = [list(prompt[-start:]) for start in starts]
        self._window = next((w for w in windows if not tokenizer.decode(w).startswith("\ufffd")), windows[0])
        self._read = len(self._window)

    def push(self, token: int) -> str:
        """The text that a token completes; empty while a character is unfinished."""
        self._window.append(token)
        text = self._pending()
        if not text or text.endswith("\ufffd"):
            return ""
        self._window = self._window[self._read :]
        self._read = len(self._window)
        return text

    def finish(self) -> str:
        """What was held back, an unfinished character shown as U+FFFD."""
        text = self._pending()
        self._read = len(self._window)
        return text

    def _pending(self) -> str:
        shown = self._tokenizer.decode(self._window[: self._read])
        return self._tokenizer.decode(self._window)[len(shown) :]


def _read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    import tokenizers

    with foreign(lambda why: WeightsError.of("broken-tokenizer", f"cannot read {path}: {why}")):
        found = tokenizers.Tokenizer.from_buffer(read_bytes(path, _LARGEST))
    # Files of sentence encoders often pad or cut every text to 128 tokens; HuggingFace drops that too unless asked.
    found.no_padding()
    found.no_truncation()
    return found


def _read_json(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found: Any = read_json(path)
    except (OSError, Unreadable) as error:
        raise WeightsError.of("broken-tokenizer", f"cannot read {path}: {reason_of(error)}") from None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _specials(config: dict[str, Any]) -> dict[str, str]:
    """Special tokens by name; older files write each as an object with its text in `content`."""
    found: dict[str, str] = {}
    for name in _SPECIAL:
        value: Any = config.get(name)
        text: Any = cast("dict[str, Any]", value).get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[name] = text
    return found


def _template(config: dict[str, Any], file: Path | None) -> str | None:
    if file is not None:
        try:
            return read_text(file)
        except (OSError, Unreadable) as error:
            raise WeightsError.of("broken-tokenizer", f"cannot read {file}: {error}") from None
    template: Any = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        entries = [cast("dict[str, Any]", e) for e in cast("list[Any]", template) if isinstance(e, dict)]
        by_name = {str(entry.get("name")): entry.get("template") for entry in entries}
        template = by_name.get("default")
    return template if isinstance(template, str) else None
