"""Records greedy tokens of Qwen2.5-Coder-0.5B-Instruct with transformers, which dequantises the GGUF itself.

    PEERS/bin/python tests/real/record_qwen.py FILE.gguf tests/real/qwen2.5-coder-0.5b.json

Run by an interpreter that has torch and transformers; flowc and its tests never import them.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

PROMPTS = (
    "def fibonacci(n):\n",
    "The capital of France is",
    "<|im_start|>user\nWrite a haiku about rain.<|im_end|>\n<|im_start|>assistant\n",
    "SELECT name FROM users WHERE",
    "1, 1, 2, 3, 5, 8,",
)
TOKENS = 12


def main() -> None:
    """The command line: the GGUF, and the file to write."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    source = Path(sys.argv[1])
    given = {"gguf_file": source.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(source.parent), **given)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(source.parent), dtype=torch.float32, attn_implementation="eager", **given
    ).eval()
    prompts: list[dict[str, Any]] = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        found = list(ids)
        with torch.no_grad():
            for _ in range(TOKENS):
                found.append(int(model(input_ids=torch.tensor([found])).logits[0, -1].argmax()))
        prompts.append({"prompt": prompt, "input_ids": ids, "greedy_ids": found[len(ids) :]})
        print(prompts[-1], flush=True)
    facts = {
        "file": source.name,
        "by": f"transformers {transformers.__version__}, torch {torch.__version__}, float32, eager attention",
        "prompts": prompts,
    }
    Path(sys.argv[2]).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
