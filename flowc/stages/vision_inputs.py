from __future__ import annotations

from functools import partial

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.frontend.state import Rope
from flowc.ir.core.layout import Concat, Slice
from flowc.ir.core.linear import Linear
from flowc.ir.core.vision import ExpandBatch, PatchAngles, Patches, grid_of
from flowc.ir.graph import Value
from flowc.ir.patch_rope import PatchRopeFacts, PatchRopeStyle
from flowc.ir.weights.expressions import Generated, Reshape, Weight
from flowc.ir.weights.resample import Resampled
from flowc.stages.blocks.decoder import add, bias_name
from flowc.stages.blocks.tokens import add_rope, require_rank, require_whole


class PatchEmbed(Stage, name="patch_embed"):
    """Cuts images into patches and projects each: [batch, channels, height, width] -> [batch, patches, hidden].

    A convolution whose stride is its kernel is this linear map. Pixels at the bottom and on the right that fill no patch
    are left out, as the convolution does.
    """

    weights = (
        "{weight}: [hidden, channels, height, width] with `convolution`, and its bias with `bias`",
        "{weight}: [hidden, channels * height * width] without `convolution`, and its bias with `bias`",
    )
    reference = "ViTPatchEmbeddings, Dinov2PatchEmbeddings, CLIPVisionEmbeddings.patch_embedding"
    example = "patch_embed: {weight: embeddings.projection.weight, patch: [8, 8], channels: 3, hidden: 48}"
    weight: str = attr(doc="Name of the projection.", main=True)
    patch: tuple[int, ...] = attr(doc="Height and width of a patch, in pixels.", symbol="patch", gt=0)
    channels: int = attr(doc="Channels of the image.", symbol="channels", gt=0)
    hidden: int | None = attr(doc="Width of the result.", symbol="hidden", gt=0)
    bias: bool = attr(doc="Whether the projection has a bias.", default=True)
    convolution: bool = attr(doc="Whether the weight has a convolution's four axes.", default=True)

    def expand(self, b: Builder, x: Value) -> Value:
        height, width = pair(b, "patch", self.patch)
        rows = b.op(Patches(height, width), x, name="patches")
        if self.convolution:
            kernel = b.tensor(self.weight, self.hidden, self.channels, height, width, at="weight")
            weight = b.constant(Reshape(kernel, (kernel.shape[0], self.channels * height * width)))
        else:
            weight = b.weight(self.weight, self.hidden, self.channels * height * width, at="weight")
        bias = b.weight(bias_name(self.weight), weight.shape[0], at="weight") if self.bias else None
        return b.op(Linear(), rows, weight, bias, name="projection")


def pair(b: Builder, name: str, sizes: tuple[int, ...]) -> tuple[int, int]:
    """A field that has a vertical and a horizontal size."""
    if len(sizes) != 2:
        raise b.fail("bad-value", f"`{name}` is a vertical and a horizontal size, not {list(sizes)}")
    return sizes[0], sizes[1]


class PrependTokens(Stage, name="prepend_tokens"):
    """Puts learned tokens (class, registers) in front of every image's tokens, or behind the first `after` of them."""

    weights = ("{weight}: [1, count, hidden] without `flat`", "{weight}: [hidden] with `flat`")
    reference = "the cls_token and register_tokens of ViT, Dinov2WithRegisters"
    example = "prepend_tokens: {weight: embeddings.cls_token}"
    weight: str = attr(doc="Name of the tokens.", main=True)
    count: int = attr(doc="How many tokens.", default=1, gt=0)
    after: int = attr(doc="How many of the tokens there stay in front.", default=0, ge=0)
    flat: bool = attr(doc="Whether the tensor is one token without other axes (CLIP).", default=False)

    def expand(self, b: Builder, x: Value) -> Value:
        require_whole(b)
        hidden = x.shape[-1]
        if self.flat and self.count > 1:
            raise b.fail("bad-value", "stage 'prepend_tokens' with `flat` has one token", b.place("count"))
        if self.flat:
            vector = b.tensor(self.weight, hidden, at="weight")
            tokens = b.constant(Reshape(vector, (1, self.count, vector.shape[0] // self.count)))
        else:
            tokens = b.weight(self.weight, 1, self.count, hidden, at="weight")
        rows = b.op(ExpandBatch(), tokens, x, name="tokens")
        if self.after == 0:
            return b.op(Concat(1), rows, x, name="with_tokens")
        there = x.shape[1]
        if isinstance(there, int) and self.after > there:
            raise b.fail("bad-value", f"`after` is {self.after}, but there are only {there} tokens")
        front, rest = b.op(Slice(1, 0, self.after), x, name="front"), b.op(Slice(1, self.after), x, name="rest")
        return b.op(Concat(1), front, rows, rest, name="with_tokens")


class AddPositions(Stage, name="add_positions"):
    """Adds a learned vector to each token by its place: [batch, tokens, hidden].

    Vectors of another `grid` than the images have are interpolated when compiling, by bicubic convolution as
    HuggingFace does it.
    """

    weights = ("{weight}: [1, tokens, hidden] without `flat`", "{weight}: [tokens, hidden] with `flat`")
    reference = "the position_embeddings of ViT, CLIP, and their interpolate_pos_encoding"
    example = "add_positions: {weight: embeddings.position_embeddings}"
    weight: str = attr(doc="Name of the vectors.", main=True)
    flat: bool = attr(doc="Whether the tensor has no leading 1 (CLIP, SigLIP).", default=False)
    grid: tuple[int, ...] | None = attr(
        doc="Rows and columns of patches that the vectors are for; those of the images by default.", default=None, gt=0
    )
    leading: int = attr(doc="grid: vectors in front of those of the patches.", default=0, ge=0)
    antialias: bool = attr(doc="grid: whether the interpolation is antialiased.", default=False)
    patch: tuple[int, ...] | None = attr(
        doc="grid: height and width of a patch, in pixels.", symbol="patch", default=None, gt=0
    )

    def expand(self, b: Builder, x: Value) -> Value:
        require_rank(b, x, 3)
        _, tokens, hidden = x.shape
        first = () if self.flat else (1,)
        if self.grid is None:
            return add(b, x, b.weight(self.weight, *first, tokens, hidden, at="weight"), name="positioned")
        pixels, old = b.tokens(), pair(b, "grid", self.grid)
        if self.patch is None or pixels.type.rank != 4:
            raise b.fail("bad-value", "a `grid` of positions needs a flow that starts from images, and their `patch`")
        new = grid_of(pixels.type, *pair(b, "patch", self.patch))
        if new is None:
            raise b.fail("bad-shape", f"positions are interpolated when compiling, but the images are {pixels.type}")
        table: Weight = b.tensor(self.weight, *first, self.leading + old[0] * old[1], hidden, at="weight")
        if new != old:
            table = Resampled(table, self.leading, old, new, self.antialias)
        return add(b, x, b.constant(table), name="positioned")


class PatchRope(Stage, name="patch_rope"):
    """Makes a two-dimensional rope of patches for the `vit_self_attn` stages that follow.

    `centred` turns pairs from the two halves of a head by the patch's centre in [-1, 1] (DINOv3); `grid` turns
    neighbouring channels by its row and column (EVA-02, Nomic Vision). Tokens in front of the patches do not turn. The
    flow starts from images; their size may be open.
    """

    reads = ("tokens",)
    writes = ("rope",)
    reference = "DINOv3ViTRopePositionEmbedding; Fang et al. 2023 (EVA-02)"
    example = "patch_rope: {theta: 100, head_dim: 16, patch: [8, 8], style: centred, leading: 1}"
    theta: float = attr(doc="Base of the frequencies.", gt=0)
    head_dim: int = attr(doc="Channels of a head, a multiple of 4.", symbol="head_dim", gt=0)
    patch: tuple[int, ...] = attr(doc="Height and width of a patch, in pixels.", symbol="patch", gt=0)
    style: PatchRopeStyle = attr(doc="How places become angles, and which channels are a pair.")
    leading: int = attr(doc="Tokens in front of the patches.", default=0, ge=0)
    reference_grid: tuple[int, ...] | None = attr(
        doc="grid: rows and columns that places are stretched to.", default=None, gt=0
    )
    name: str = attr(doc="Name that attention stages use.", default="rope")

    def expand(self, b: Builder, x: Value) -> Value:
        pixels, (height, width) = b.tokens(), pair(b, "patch", self.patch)
        wanted = pair(b, "reference_grid", self.reference_grid) if self.reference_grid is not None else None
        self._check(b, pixels)
        facts = PatchRopeFacts(self.theta, self.head_dim, self.style, self.leading, wanted)
        cos, sin = b.emit(PatchAngles(facts, height, width), pixels, name=f"angles_{self.name}")
        grid = grid_of(pixels.type, height, width)
        if x.shape[1] != cos.shape[1]:
            raise b.fail(
                "bad-shape", f"{x.type} has {x.shape[1]} tokens, the patches and {self.leading} more are {cos.shape[1]}"
            )
        if grid is not None:
            label = f"{facts},{grid}"
            cos = b.constant(Generated(f"cos<{label}>", _sizes(cos), partial(facts.cos, *grid)))
            sin = b.constant(Generated(f"sin<{label}>", _sizes(sin), partial(facts.sin, *grid)))
        add_rope(b, self.name, Rope(None, (cos, sin), interleaved=self.style == "grid", head_dim=self.head_dim))
        return x

    def _check(self, b: Builder, pixels: Value) -> None:
        if self.head_dim % 4 or not 1e-30 < self.theta < 1e30:
            raise b.fail(
                "bad-value", "a rope of patches needs a `head_dim` that 4 divides and a `theta` that float32 holds"
            )
        if self.reference_grid is not None and self.style != "grid":
            raise b.fail("bad-value", "a `reference_grid` belongs to the style grid")
        if pixels.type.rank != 4:
            raise b.fail("bad-shape", f"the flow starts from {pixels.type}, not from images")


def _sizes(table: Value) -> tuple[int, ...]:
    return tuple(int(d) for d in table.shape)
