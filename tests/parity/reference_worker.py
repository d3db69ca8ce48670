"""Makes tiny models from configurations and says what HuggingFace computes from them; runs where torch is.

Reads one request a line, `{"folder": ..., "class": ..., "kind": ..., "seed": ...}`, with the `config.json` already in
the folder. Writes weights and `reference.npz` (inputs and outputs) there and answers `{"ok": true}`, or
`{"refused": "why"}` where transformers fails. Needs the `parity` extra.
"""

from __future__ import annotations

import contextlib
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

LENGTH = 10
LARGEST = 4_000_000


def _randomise(model: Any, generator: Any) -> None:
    """Weights, biases and gains that all show in the output."""
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if p.ndim >= 2:
            p.data = noise * (1.2 / max(1, p.shape[-1]) ** 0.5) if "embed" not in name else noise * 0.7
        elif "norm" in name.lower() or "lambda" in name or "scale" in name:
            p.data = p.data + 0.3 * noise
        else:
            p.data = 0.3 * noise


def _text(model: Any, config: Any, kind: str, generator: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    text = config.get_text_config()
    lengths = [LENGTH, LENGTH - 3]
    ids = torch.randint(3, min(36, text.vocab_size), (2, LENGTH), generator=generator)
    mask = torch.ones_like(ids)
    left = kind == "decoder" and bool(torch.randint(0, 2, (1,), generator=generator))
    pad = config.pad_token_id if isinstance(getattr(config, "pad_token_id", None), int) else 0
    for row, length in enumerate(lengths):
        gone = slice(0, LENGTH - length) if left else slice(length, LENGTH)
        mask[row, gone] = 0
        ids[row, gone] = pad if pad >= 0 else 0
    feeds = {"input_ids": ids, "attention_mask": mask}
    types = getattr(config, "type_vocab_size", 0)
    if kind == "encoder" and types and types > 1:
        feeds["token_type_ids"] = torch.randint(0, types, ids.shape, generator=generator)
    given: dict[str, Any] = dict(feeds)
    if left:
        given["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    return feeds, given


def _images(config: Any, generator: Any) -> dict[str, Any]:
    size = config.image_size
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return {"pixel_values": torch.randn(2, config.num_channels, height, width, generator=generator)}


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    folder, kind = Path(request["folder"]), request["kind"]
    text = (folder / "config.json").read_text(encoding="utf-8")
    cls = getattr(hf, request["class"])
    config = cls.config_class.from_pretrained(folder)
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        part._attn_implementation, part._experts_implementation = "eager", "eager"
    with torch.device("meta"):
        if sum(p.numel() for p in cls(config).parameters()) > LARGEST:
            return {"skipped": "too large"}
    # Making the first one on no device may have changed the configuration; a rope is standardised once more.
    config = cls.config_class.from_pretrained(folder)
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        part._attn_implementation, part._experts_implementation = "eager", "eager"
    generator = torch.Generator().manual_seed(request["seed"])
    model = cls(config).float().eval()
    _randomise(model, generator)
    if kind == "vision":
        feeds = given = _images(config, generator)
    else:
        feeds, given = _text(model, config, kind, generator)
    result = model(**given, **({"use_cache": False} if kind == "decoder" else {}))
    arrays = {f"in/{k}": v.numpy() for k, v in feeds.items()}
    for name in ("logits", "last_hidden_state", "pooler_output"):
        value = getattr(result, name, None)
        if value is not None:
            arrays[f"out/{name}"] = value.numpy()
    if not all(np.isfinite(a).all() for a in arrays.values()):
        return {"refused": "not finite"}
    model.generation_config = hf.GenerationConfig()
    model.save_pretrained(folder)
    (folder / "config.json").write_text(text, encoding="utf-8")
    (folder / "generation_config.json").unlink(missing_ok=True)
    np.savez(folder / "reference.npz", **arrays)
    return {"ok": True}


def defaults() -> dict[str, dict[str, Any]]:
    """What the configuration classes say of each model type, as JSON."""
    import dataclasses

    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    found: dict[str, dict[str, Any]] = {}
    for model_type in CONFIG_MAPPING:
        with contextlib.suppress(Exception):  # classes of libraries that are not here
            fields = dataclasses.fields(CONFIG_MAPPING[model_type])
            found[model_type] = {
                f.name: f.default for f in fields if isinstance(f.default, (bool, int, float, str, list))
            }
    return found


def main() -> None:
    """Answer requests until there are no more."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    out = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("defaults"):
            answer: dict[str, Any] = defaults()
        else:
            try:
                answer = _answer(request)
            except Exception as error:
                answer = {"refused": f"{type(error).__name__}: {error}"[:300]}
        out.write(json.dumps(answer) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
