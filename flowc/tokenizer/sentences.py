"""What sentence-transformers does to a text before the tokenizer: a prompt before it, lower case, a length.

sentence_bert_config.json              do_lower_case, max_seq_length (beside the transformer's config.json)
config_sentence_transformers.json      prompts by name, default_prompt_name (in the folder of modules.json)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from flowc.errors import WeightsError
from flowc.records.declare import attr
from flowc.records.record import Record
from flowc.tokenizer.reading import Json, read_json

TRANSFORMER, WHOLE = "sentence_bert_config.json", "config_sentence_transformers.json"


class TextFacts(Record):
    """How a text is made ready; in the manifest under `text`."""

    what = "'text'"
    prompt: str = attr(doc="What stands before every text.", default="")
    lower_case: bool = attr(doc="Whether texts are written in small letters.", default=False)
    max_tokens: int | None = attr(
        doc="Tokens that are kept, special ones among them.", default=None, ge=1, le=2**31 - 1
    )
    prompts: Mapping[str, str] = attr(doc="All prompts by name, for callers that know which one they mean.", default={})

    def record(self) -> Json:
        """As the manifest has it."""
        return {"prompt": self.prompt, "lower_case": self.lower_case, "max_tokens": self.max_tokens,
                "prompts": dict(self.prompts)}  # fmt: skip

    def prepare(self, text: str) -> str:
        """The text that the tokenizer sees."""
        text = (self.prompt + text).strip()
        return text.lower() if self.lower_case else text


def files_of(folder: Path) -> list[Path]:
    """The files that decide the texts of a sentence-transformers model, by its transformer's folder; none elsewhere."""
    root = folder if (folder / "modules.json").is_file() else folder.parent
    modules = root / "modules.json"
    if not modules.is_file() or (root != folder and f'"{folder.name}"' not in modules.read_text("utf-8", "replace")):
        return []
    return [f for f in (folder / TRANSFORMER, root / WHOLE) if f.is_file()]


def text_facts(folder: Path) -> TextFacts | None:
    """What the files of a folder say; None where they say nothing. WeightsError `broken-tokenizer`."""
    files = {f.name: read_json(f) for f in files_of(folder)}
    if not files:
        return None
    whole, transformer = files.get(WHOLE, {}), files.get(TRANSFORMER, {})
    prompts = {str(k): str(v) for k, v in _mapping(whole.get("prompts"), "prompts").items()}
    name = whole.get("default_prompt_name")
    if name is not None and name not in prompts:
        raise WeightsError.of("broken-tokenizer", f"{WHOLE}: default_prompt_name is {name!r}, which names no prompt")
    limits = [transformer.get("max_seq_length")]
    if limits == [None]:
        limits = [read_json(folder / "tokenizer_config.json").get("model_max_length"),
                  read_json(folder / "config.json").get("max_position_embeddings")]  # fmt: skip
    tokens = min((n for n in limits if type(n) is int and 0 < n < 1 << 31), default=None)
    lower = transformer.get("do_lower_case") is True
    prompt = prompts[name] if name is not None else ""
    return TextFacts(prompt=prompt, lower_case=lower, max_tokens=tokens, prompts=prompts)


def _mapping(value: Any, name: str) -> Json:
    if value is not None and not isinstance(value, dict):
        raise WeightsError.of("broken-tokenizer", f"{WHOLE}: {name} is no mapping")
    return cast("Json", value or {})
