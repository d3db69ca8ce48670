"""Records the tokens that HuggingFace's BART of golden/encoder_decoders chooses greedily: `greedy.json` beside it.

    python -m tests.parity.record_greedy

Needs torch and transformers; flowc and its tests never do.
"""

from __future__ import annotations

import json

import torch
import transformers

from tests.oracle_io import ROOT

FOLDER = ROOT / "golden" / "encoder_decoders" / "bart_base"
TEXTS = (
    [12, 3, 76, 34, 24, 16, 19, 44, 72, 83, 24, 65],
    [31, 8, 20, 76],
    [87, 82, 48, 80, 6],
    [5, 46, 89, 39, 6, 82, 43, 5, 54, 89, 9],
)
"""Texts after which few tokens repeat, none of them nearly tied with another."""
COUNT = 12


def main() -> None:
    """Write the record."""
    model = transformers.BartForConditionalGeneration.from_pretrained(
        str(FOLDER), attn_implementation="eager", dtype=torch.float32, local_files_only=True
    ).eval()
    start, record = model.config.decoder_start_token_id, []
    for ids in TEXTS:
        text = torch.tensor([ids])
        tokens = [start]
        with torch.no_grad():
            read = model.model.encoder(text, attention_mask=torch.ones_like(text))
            margin = float("inf")
            for _ in range(COUNT):
                given = {"encoder_outputs": read, "attention_mask": torch.ones_like(text)}
                logits = model(**given, decoder_input_ids=torch.tensor([tokens])).logits[0, -1]
                best = logits.topk(2).values
                margin = min(margin, float(best[0] - best[1]))
                tokens.append(int(logits.argmax()))
        record.append({"text": ids, "tokens": tokens[1:], "margin": round(margin, 4)})
    facts = {"transformers": transformers.__version__, "decoder_start": start, "texts": record}
    (FOLDER / "greedy.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
