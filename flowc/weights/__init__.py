"""Weights: names, shapes and formats known at once; data read when it is written out, one tensor at a time."""

from __future__ import annotations

from pathlib import Path

from flowc.errors import FlowError, Span, WeightsError
from flowc.outside.reading import reason_of
from flowc.weights.checkpoint import Checkpoint, TensorInfo, at_span, check_finite

__all__ = ["Checkpoint", "TensorInfo", "check_finite", "find_tokenizer_files", "open_checkpoint"]

# In a folder, the names that HuggingFace's own loaders look for, in their order.
_FOLDER_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
)
_TOKENIZER_NAMES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "sentencepiece.bpe.model",
)


def open_checkpoint(path: Path, *, span: Span | None = None) -> Checkpoint:
    """Weights by what the path is: a folder, `.safetensors`, `.index.json`, `.gguf` or `.npz`. Reads headers only.

    `span` is the place in the spec that named the path; errors point there. WeightsError `missing-file`,
    `unknown-weights-format`, or what the format's reader raises.
    """
    try:
        return _open(_in_folder(path) if path.is_dir() else path)
    except FlowError as error:
        raise at_span(error, span) from None
    except OSError as error:  # of a path that cannot even be looked at
        reason = WeightsError.of("unreadable-file", f"cannot read '{path}': {reason_of(error)}")
        raise at_span(reason, span) from None


def find_tokenizer_files(path: Path) -> list[Path]:
    """The tokenizer's and the generation's files beside the weights, or in the weights' folder."""
    folder = path if path.is_dir() else path.parent
    return [folder / name for name in _TOKENIZER_NAMES if (folder / name).is_file()]


def _open(path: Path) -> Checkpoint:
    # a reader is imported when it is needed: gguf alone takes 0.2 s
    if path.name.endswith(".safetensors"):
        from flowc.weights.safetensors import SafetensorsCheckpoint

        return SafetensorsCheckpoint.open(path)
    if path.name.endswith(".index.json"):
        from flowc.weights.safetensors import SafetensorsCheckpoint

        return SafetensorsCheckpoint.open_index(path)
    if path.suffix == ".gguf":
        from flowc.weights.gguf.checkpoint import GgufCheckpoint

        return GgufCheckpoint.open(path)
    if path.suffix == ".npz":
        from flowc.weights.npz import NpzCheckpoint

        return NpzCheckpoint.open(path)
    if not path.exists():
        raise WeightsError.of("missing-file", f"there is no file '{path}'")
    hint = "convert it to safetensors: a pickle can run code" if path.suffix in (".bin", ".pt", ".pth") else ""
    formats = ".safetensors, .safetensors.index.json, .gguf, .npz, or a folder of safetensors"
    raise WeightsError.of("unknown-weights-format", f"'{path}' is not one of {formats}", hint=hint)


def _in_folder(folder: Path) -> Path:
    for name in _FOLDER_NAMES:
        if (folder / name).exists():
            return folder / name
    try:
        found = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".gguf", ".npz"))
    except OSError as error:
        raise WeightsError.of("unreadable-file", f"cannot read '{folder}': {reason_of(error)}") from None
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(p.name for p in found[:5])
        raise WeightsError.of(
            "ambiguous-weights", f"'{folder}' has several files of weights: {names}; name one of them"
        )
    hint = "flowc reads no pickles; convert the weights to safetensors" if list(folder.glob("*.bin")) else ""
    raise WeightsError.of("missing-file", f"'{folder}' has no model.safetensors, no index and no .gguf", hint=hint)
