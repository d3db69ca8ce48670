"""Turn a GGUF file into the float32 HuggingFace folder that the peers' builders read.

    .venvs/peers/bin/python tests/bench/hf_folder.py FILE.gguf OUT_DIR

Runs in the peers' venv only: transformers reads the GGUF, so that no number in the folder is of flowc's making.
OUT_DIR gets config.json, model.safetensors (float32) and the tokenizer's files; it appears whole or not at all.
"""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any


def convert(gguf: Path, out: Path) -> None:
    """Write the folder beside its final name, then rename it."""
    transformers: Any = importlib.import_module("transformers")
    torch: Any = importlib.import_module("torch")
    source = {"gguf_file": gguf.name, "dtype": torch.float32}
    model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, **source)
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    facts: dict[str, Any] = model.config.to_dict()
    for name in ("quantization_config", "_pre_quantization_dtype"):
        facts.pop(name, None)
    config: Any = model.config.__class__.from_dict({**facts, "dtype": "float32"})
    # A model that came from a GGUF refuses to be saved as float32: a plain one of the same weights does not.
    plain = type(model)(config)
    plain.load_state_dict(model.state_dict())
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        folder = Path(scratch) / "hf"
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
