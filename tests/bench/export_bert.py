"""An encoder as onnxruntime's transformer tools make it.

    .venvs/peers/bin/python tests/bench/export_bert.py HF_FOLDER OUT/model.onnx

Runs in the peers' venv only: torch exports the model that transformers loads, and `onnxruntime.transformers.optimizer`
fuses its embeddings, attention, layer norms and activations.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

NAMES = ("input_ids", "attention_mask", "token_type_ids")


def export(source: Path, out: Path) -> None:
    """Write the optimised model; its output is `last_hidden_state`."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    optimizer: Any = importlib.import_module("onnxruntime.transformers.optimizer")
    options: Any = importlib.import_module("onnxruntime.transformers.fusion_options")
    loaded = transformers.AutoModel.from_pretrained(source, attn_implementation="eager", dtype=torch.float32)
    loaded.eval()

    class Tokens(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = loaded

        def forward(self, *inputs: Any) -> Any:
            return self.model(*inputs).last_hidden_state

    ids = torch.ones((2, 8), dtype=torch.int64)
    axes = {name: {0: "batch_size", 1: "sequence_length"} for name in (*NAMES, "last_hidden_state")}
    raw = out.with_suffix(".raw.onnx")
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        Tokens(), (ids, ids, ids), str(raw), input_names=NAMES, output_names=("last_hidden_state",), dynamic_axes=axes,
        opset_version=17, dynamo=False,
    )  # fmt: skip
    config = loaded.config
    chosen = options.FusionOptions("bert")
    sizes = (config.num_attention_heads, config.hidden_size)
    made = optimizer.optimize_model(str(raw), "bert", *sizes, optimization_options=chosen)
    if made.get_fused_operator_statistics()["Attention"] != config.num_hidden_layers:
        raise SystemExit("onnxruntime's optimizer did not fuse every attention")
    made.save_model_to_file(str(out))


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]))
