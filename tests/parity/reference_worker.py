"""Makes tiny models from configurations and says what HuggingFace computes from them; runs where torch is.

Reads one request a line, `{"folder": ..., "class": ..., "kind": ..., "seed": ...}`, with the `config.json` already in
the folder. Writes weights and `reference.npz` (inputs, and outputs in float32 and float64) there and answers
`{"ok": true}`, or `{"refused": "why"}` where transformers fails. Needs the `parity` extra.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="critical", OMP_NUM_THREADS="1")
warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers as hf  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402
from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: E402

from tests.parity.seeded import feeds_of, weight  # noqa: E402

LARGEST = 4_000_000
"""Parameters of a model that is tried: a size that was left out is that of a real model."""


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    folder, kind, seed = Path(request["folder"]), request["kind"], request["seed"]
    file, written = folder / "config.json", (folder / "config.json").read_text(encoding="utf-8")
    cls = getattr(hf, request["class"])
    with torch.device("meta"):
        size = sum(p.numel() for p in cls(cls.config_class.from_pretrained(folder)).parameters())
    if size > LARGEST:
        return {"skipped": "too large"}
    model = cls(cls.config_class.from_pretrained(folder)).float()
    model.generation_config = hf.GenerationConfig()
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    file.write_text(written, encoding="utf-8")
    weights = folder / "model.safetensors"
    made = {name: weight(name, a.shape, seed) for name, a in load_file(weights).items()}
    save_file(made, weights, metadata={"format": "pt"})
    model = cls.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    for part in (model.config, *(getattr(model.config, name) for name in model.config.sub_configs)):
        part._experts_implementation = "eager"
    arrays = feeds_of(kind, model.config.get_text_config().to_dict(), seed)
    given = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if kind == "decoder":
        given["position_ids"] = (given["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        given["use_cache"] = False
    result = model(**given)
    model.double()
    wide = model(
        **{n: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for n, v in given.items()}
    )
    named = {f"in/{k}": v for k, v in arrays.items()}
    for name in ("logits", "last_hidden_state", "pooler_output"):
        value = getattr(result, name, None)
        if value is not None:
            named[f"out/{name}"], named[f"wide/{name}"] = value.numpy(), getattr(wide, name).numpy()
    if not all(np.isfinite(a).all() for name, a in named.items() if name.startswith("out/")):
        return {"refused": "not finite"}
    np.savez(folder / "reference.npz", **named)
    return {"ok": True}


def _defaults() -> dict[str, dict[str, Any]]:
    """What the configuration classes say of each model type, as JSON."""
    found: dict[str, dict[str, Any]] = {}
    for model_type in CONFIG_MAPPING:
        with contextlib.suppress(Exception):  # classes of libraries that are not here
            fields = dataclasses.fields(CONFIG_MAPPING[model_type])
            plain = (bool, int, float, str, list)
            found[model_type] = {f.name: f.default for f in fields if isinstance(f.default, plain)}
    return found


def main() -> None:
    """Answer requests until there are no more."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = _defaults() if request.get("defaults") else _answer(request)
        except Exception as error:
            answer = {"refused": f"{type(error).__name__}: {error}"[:300]}
        out.write(json.dumps(answer) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
