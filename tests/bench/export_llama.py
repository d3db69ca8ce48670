"""A Llama with seeded float16 weights, in HuggingFace's form: export_llama.py FACTS (JSON) CONTEXT OUT.

Runs where torch and transformers are, beside the peers.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any


def main(facts: dict[str, Any], context: int, out: str) -> None:
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    tokenizers: Any = importlib.import_module("tokenizers")
    config = transformers.LlamaConfig(
        hidden_size=facts["hidden"], num_hidden_layers=facts["layers"], num_attention_heads=facts["heads"],
        num_key_value_heads=facts["kv_heads"], head_dim=facts["head_dim"], intermediate_size=facts["ffn"],
        vocab_size=facts["vocab"], tie_word_embeddings=facts["tied"], max_position_embeddings=context,
        rope_theta=500000.0, bos_token_id=1, eos_token_id=2, pad_token_id=0, dtype="float16",
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float16)
    with torch.device("cuda"):
        model = transformers.LlamaForCausalLM(config)
    model.half().cpu().save_pretrained(out)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(out)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
