"""What all vision families have in common: images, patches, and pre-norm layers of small stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from flowc.importers.config import Config
from flowc.importers.encoders import activation
from flowc.importers.family import Family, Shapes

Stages = list[Any]

TRAINING = (
    "layerscale_value", "drop_path_rate", "pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale", "use_mask_token",
)  # fmt: skip
"""Fields that matter in training only, or that a checkpoint's tensors have already obeyed."""
BACKBONE = (
    "out_features",
    "out_indices",
    "apply_layernorm",
    "reshape_hidden_states",
    "stage_names",
    "return_class_token",
)
"""Fields of the backbone classes, which are refused; the models themselves do not read them."""


@dataclass(frozen=True, slots=True)
class Images:
    """Sizes of the images that a model takes; [height, width]."""

    channels: int
    size: tuple[int, int]
    patch: tuple[int, int]
    open: bool = False
    """Whether the model takes images of any size."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.size[0] // self.patch[0], self.size[1] // self.patch[1]

    @property
    def inputs(self) -> dict[str, str]:
        """The `inputs:` block."""
        rows, columns = ("height", "width") if self.open else self.size
        return {"pixel_values": f"float32[batch_size, $channels, {rows}, {columns}]"}


def images(config: Config, *, size: str = "image_size", square: bool = False, open: bool = False) -> Images:
    """Sizes from `num_channels`, `patch_size` and the field `size`.

    `square` where HuggingFace takes such images only; `open` where images of any size are taken.
    """
    whole, patch = pair_of(config, size), pair_of(config, "patch_size")
    if patch[0] > whole[0] or patch[1] > whole[1]:
        config.refuse("patch_size", f"a patch is larger than the image, {whole[0]} x {whole[1]}")
    if square and whole[0] != whole[1]:
        config.refuse(size, "for images that are not square HuggingFace interpolates the positions")
    return Images(config.int("num_channels", 3), whole, patch, open)


def pair_of(config: Config, field: str) -> tuple[int, int]:
    """A whole number given once for both directions, or as [vertical, horizontal]."""
    value = config.get(field)
    both = cast("list[Any]", value) if isinstance(value, list) else [value, value]
    if len(both) != 2 or not all(type(n) is int and n > 0 for n in both):
        config.refuse(field, "it must be one whole number, or [vertical, horizontal]")
        return 1, 1
    return both[0], both[1]


def positions(weight: str, image: Images, leading: int, **facts: bool) -> dict[str, Any]:
    """An `add_positions` stage that says which patches it has vectors for; the images may have another size then."""
    return {"add_positions": {"weight": weight, "grid": list(image.grid), "leading": leading, **facts}}


VIT_NAMES = {
    "hidden": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads", "eps": "layer_norm_eps",
}  # fmt: skip


def symbols_of(
    config: Config, image: Images, ffn: int, names: dict[str, str] = VIT_NAMES, head_dim: int | None = None
) -> dict[str, Any]:
    """The `model:` block; `names` are the configuration's names of hidden, layers, heads and eps.

    `head_dim` where it need not be the width over the heads.
    """
    hidden, heads = config.int(names["hidden"]), config.int(names["heads"])
    if heads < 1 or (hidden % heads and not head_dim):
        config.refuse(names["heads"], f"the width {hidden} does not split into {heads} heads")
        heads = 1
    return {
        "hidden": hidden,
        "layers": config.int(names["layers"]),
        "heads": heads,
        "head_dim": head_dim or hidden // heads,
        "ffn": ffn,
        "norm_eps": config.float(names["eps"]),
        "channels": image.channels,
        "patch": list(image.patch),
    }


def class_of(config: Config, *allowed: str) -> str:
    """The checkpoint's model class, one of `allowed`; the first one where the configuration names none."""
    config.skip("tie_word_embeddings")  # in full dumps; there are no words here
    name = config.architecture or allowed[0]
    if name not in allowed:
        config.refuse("architectures", f"flowc imports {', '.join(allowed)}")
        return allowed[0]
    return name


def norm(name: str) -> dict[str, Any]:
    """A `layer_norm` stage."""
    return {"layer_norm": {"weight": f"{name}.weight"}}


def residual(*body: Any) -> Stages:
    """Stages whose result is added to what they started from."""
    return ["residual_save", *body, "residual_add"]


def layers(*branches: Stages) -> dict[str, Any]:
    """All layers; each branch is a residual of its own."""
    return {"repeat": {"count": "$layers", "body": [stage for branch in branches for stage in residual(*branch)]}}


def separate_attention(prefix: str, q: str, k: str, v: str, out: str, **facts: Any) -> dict[str, Any]:
    """A `vit_self_attn` stage with a weight for each projection; facts that are None are left to their defaults."""
    names = {"q": q, "k": k, "v": v, "out": out}
    stage: dict[str, Any] = {field: f"{prefix}.{name}.weight" for field, name in names.items()}
    return {"vit_self_attn": {**stage, **{key: value for key, value in facts.items() if value is not None}}}


def plain_ffn(config: Config, up: str, down: str, *, bias: bool = True, default: str = "gelu") -> dict[str, Any]:
    """A `gelu_ffn` stage with the configuration's activation."""
    stage: dict[str, Any] = {"intermediate": f"{up}.weight", "output": f"{down}.weight"}
    stage["activation"] = activation(config, "hidden_act", default)
    return {"gelu_ffn": stage if bias else {**stage, "bias": False}}


def vision(
    symbols: dict[str, Any],
    image: Images,
    flow: Stages,
    shapes: Shapes,
    spare: tuple[str, ...],
    output: str | None = None,
) -> Family:
    """The family of a flow; tensors whose names end in one of `spare` may be left over."""
    unused = [name for name in shapes if name.endswith(spare)]
    return Family(symbols, flow, image.inputs, unused, output)
