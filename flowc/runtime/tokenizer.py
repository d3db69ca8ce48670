"""Text to token ids and back, with the tokenizer files that lie beside a model.

    tokenizer.json           how text becomes ids (the `tokenizers` library's own format)
    tokenizer_config.json    names of the special tokens; often the chat template
    chat_template.jinja      the chat template, where it is a file of its own (it wins)

The build has made these of all that the checkpoint's folder says (`flowc.tokenizer.assemble`); which tokens end a text
stands in the manifest.

Chat templates are rendered as HuggingFace's `apply_chat_template` does: an immutable jinja sandbox, trimmed blocks, the
functions `raise_exception` and `strftime_now`, the filter `tojson`, the special tokens as variables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flowc.build.manifest import Manifest
from flowc.errors import SpecError, WeightsError
from flowc.outside.foreign import foreign
from flowc.outside.reading import read_bytes
from flowc.tokenizer.assemble import SAVE, VOCABULARIES
from flowc.tokenizer.reading import read_json, read_text
from flowc.tokenizer.sentences import TextFacts
from flowc.tokenizer.special import special_tokens
from flowc.tokenizer.templates import DEFAULT, named

if TYPE_CHECKING:
    import tokenizers

_LARGEST = 256 << 20
"""Bytes of a `tokenizer.json`; those of the largest vocabularies have 35 MB."""


class Tokenizer:
    """A model's tokenizer with its chat templates and what is done to a text before it."""

    def __init__(
        self,
        inner: tokenizers.Tokenizer,
        *,
        template: str | None = None,
        specials: Mapping[str, str] | None = None,
        templates: Mapping[str, str] | None = None,
        text: TextFacts | None = None,
    ) -> None:
        self.inner = inner
        self.templates = dict(templates or ({} if template is None else {DEFAULT: template}))
        """Chat templates by name."""
        self.specials = dict(specials or {})
        self.text = text
        """What a sentence encoder does to a text first."""

    @property
    def template(self) -> str | None:
        """The chat template that is used when nobody names one."""
        return self.templates.get(DEFAULT)

    @classmethod
    def load(cls, manifest: Manifest) -> Tokenizer:
        """The tokenizer of a model.

        Raises:
            SpecError: the model has none.
            WeightsError: one of its files cannot be read.
        """
        path = manifest.tokenizer_file("tokenizer.json")
        if path is None:
            there = [record.file for record in manifest.tokenizer if record.file in VOCABULARIES]
            lies = f": {', '.join(there)} lies there, and flowc needs tokenizer.json" if there else ""
            raise SpecError.of(
                "no-tokenizer", f"'{manifest.name}' has no tokenizer beside it{lies}",
                hint=f"{SAVE}; or give token ids with --ids 1,2,3" if there else "give token ids with --ids 1,2,3",
            )  # fmt: skip
        config = read_json(_recorded(manifest, "tokenizer_config.json"))
        file = _recorded(manifest, "chat_template.jinja")
        return cls(
            _read_tokenizer(path, manifest.text),
            templates=named(config.get("chat_template")) if file is None else {DEFAULT: read_text(file)},
            specials=special_tokens(config, {}, {}).texts(),
            text=manifest.text,
        )

    def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """Ids of a text; with `special_tokens`, also those that the tokenizer itself puts around every text.

        What a sentence encoder does first, a prompt before the text, lower case and a length, is done.

        Raises:
            SpecError: half a surrogate pair, as Python makes of bytes that are no UTF-8, is no text.
        """
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                why = f"the prompt is not Unicode text: {text[error.start]!a} at character {error.start}"
                raise SpecError.of("bad-prompt", why) from None
        if self.text is not None:
            text = self.text.prepare(text)
        return list(self.inner.encode(text, add_special_tokens=special_tokens).ids)

    def encode_prompt(self, text: str, *, raw: bool = False, system: str | None = None) -> list[int]:
        """Ids of a prompt: a user's message in the chat template where there is one, else (or `raw`) the text itself.

        Raises:
            SpecError: several templates and none of them the default, a system message without a template to put it in,
                or the template refuses the messages.
        """
        whole, special_tokens = self.prompt_text(text, raw=raw, system=system)
        return self.encode(whole, special_tokens=special_tokens)

    def prompt_text(self, text: str, *, raw: bool = False, system: str | None = None) -> tuple[str, bool]:
        """The text that `encode_prompt` encodes, and whether the tokenizer's own special tokens go around it.

        Raises SpecError as `encode_prompt` does.
        """
        if self.templates and self.template is None and not raw:
            message = f"the model has the chat templates {', '.join(sorted(self.templates))}, and none is the default"
            raise SpecError.of("chat-template", message, hint="use --raw, and write the template's text yourself")
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


def _recorded(manifest: Manifest, name: str) -> Path | None:
    """A file that the manifest names, which must then be there; None where it names none."""
    path = manifest.tokenizer_file(name)
    if path is not None and not path.exists():
        raise WeightsError.of(
            "broken-tokenizer", f"cannot read {path}: it is named in {manifest.path.name} and not there"
        )
    return path


def _read_tokenizer(path: Path, text: TextFacts | None) -> tokenizers.Tokenizer:
    import tokenizers

    with foreign(lambda why: WeightsError.of("broken-tokenizer", f"cannot read {path}: {why}")):
        found = tokenizers.Tokenizer.from_buffer(read_bytes(path, _LARGEST))
    # Files of sentence encoders often pad or cut every text to 128 tokens; HuggingFace drops that too unless asked.
    found.no_padding()
    found.no_truncation()
    if text is not None and text.max_tokens is not None:
        found.enable_truncation(text.max_tokens)
    return found
