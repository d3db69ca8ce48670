"""Asks transformers' AutoTokenizer about every case; run by a Python that has transformers.

python -m tests.tokenizer.make_reference        writes tests/tokenizer/reference.json
"""

from __future__ import annotations

import importlib
import json
import tempfile
from pathlib import Path
from typing import Any

from tests.tokenizer.cases import CASES, MESSAGES, TEXTS, write


def ask(folder: Path) -> dict[str, Any]:
    """Ids of all texts, the special tokens, the conversation's text (None where it is refused), and the end."""
    transformers: Any = importlib.import_module("transformers")
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(folder))
    try:
        chat: Any = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    except ValueError as error:
        chat = None if "is not set" in str(error) else {"refused": True}
    named = {k: str(v) for k, v in dict(tokenizer.special_tokens_map).items()}
    ids = [list(map(int, tokenizer(text).input_ids)) for text in TEXTS]
    bare = [list(map(int, tokenizer(text, add_special_tokens=False).input_ids)) for text in TEXTS]
    return {"ids": ids, "bare": bare, "named": named, "chat": chat, "eos": tokenizer.eos_token_id}


def main() -> None:
    """Write the reference."""
    transformers: Any = importlib.import_module("transformers")
    found: dict[str, Any] = {"transformers": transformers.__version__}
    for name, files in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = ask(write(files, Path(folder)))
    lines = ",\n".join(f" {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in found.items())
    Path(__file__).with_name("reference.json").write_text("{\n" + lines + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
