from __future__ import annotations

from typing import Literal

import numpy as np

from flowc.blocks import Heads, add, linear
from flowc.expand import Expansion, Rope
from flowc.ir.graph import Value
from flowc.ir.ops.attention import Attention
from flowc.ir.ops.elementwise import Binary, Function, Unary
from flowc.ir.ops.layout import Concat, Slice
from flowc.ir.ops.linear import Linear
from flowc.ir.ops.norm import Norm
from flowc.ir.ops.rope import Rope as RopeOp
from flowc.ir.ops.vision import ExpandBatch, Patches
from flowc.ir.rope import axial_angles
from flowc.ir.weight import Constant, Reshape, Rows
from flowc.stage import Stage, attr


class PatchEmbed(Stage, name="patch_embed"):
    """Cuts images into patches and projects each: [batch, channels, height, width] -> [batch, patches, hidden].

    A convolution whose stride is its kernel is this linear map; the weight may have either shape.
    """

    weights = (
        "{weight}: [hidden, channels, height, width] or [hidden, channels * height * width]",
        "its `.bias` with `bias`",
    )
    reference = "ViTPatchEmbeddings, Dinov2PatchEmbeddings"
    example = "patch_embed: {weight: embeddings.projection.weight, patch: [8, 8], channels: 3, hidden: 48}"
    weight: str = attr(doc="Name of the projection.", main=True)
    patch: tuple[int, ...] = attr(doc="Height and width of a patch, in pixels.", symbol="patch", gt=0)
    channels: int = attr(doc="Channels of the image.", symbol="channels", gt=0)
    hidden: int | None = attr(doc="Width of the result.", symbol="hidden", gt=0)
    bias: bool = attr(doc="Whether the projection has a bias.", default=True)
    convolution: bool = attr(doc="Whether the weight has a convolution's four axes.", default=True)

    def expand(self, f: Expansion, x: Value) -> Value:
        if len(self.patch) != 2:
            raise f.fail("bad-value", f"`patch` is [height, width], not {list(self.patch)}")
        height, width = self.patch
        rows = f.op(Patches(height, width), x, name="patches")
        size = self.channels * height * width
        if self.convolution:
            kernel = f.tensor(self.weight, self.hidden, self.channels, height, width, at="weight")
            weight = f.constant(Reshape(kernel, (kernel.shape[0], size)))
        else:
            weight = f.weight(self.weight, self.hidden, size, at="weight")
        bias = (
            f.weight(self.weight.removesuffix(".weight") + ".bias", weight.shape[0], at="weight") if self.bias else None
        )
        return f.op(Linear(), rows, weight, bias, name="projection")


class PrependTokens(Stage, name="prepend_tokens"):
    """Puts learned tokens (class, registers) in front of every image's tokens, or after its first `after` tokens."""

    weights = ("{weight}: `shape`, by default [1, count, hidden]",)
    reference = "the cls_token and register_tokens of ViT, Dinov2WithRegisters"
    example = "prepend_tokens: {weight: embeddings.cls_token}"
    weight: str = attr(doc="Name of the tokens.", main=True)
    count: int = attr(doc="How many tokens.", default=1, gt=0)
    after: int = attr(doc="How many of the tokens there stay in front.", default=0, ge=0)
    flat: bool = attr(doc="Whether the tensor is [hidden] alone (CLIP).", default=False)

    def expand(self, f: Expansion, x: Value) -> Value:
        hidden = x.shape[-1]
        if self.flat:
            vector = f.tensor(self.weight, hidden, at="weight")
            tokens = f.constant(Reshape(vector, (1, 1, vector.shape[0])))
        else:
            tokens = f.weight(self.weight, 1, self.count, hidden, at="weight")
        rows = f.op(ExpandBatch(), tokens, x, name="tokens")
        if self.after == 0:
            return f.op(Concat(1), rows, x, name="with_tokens")
        front, rest = f.op(Slice(1, 0, self.after), x, name="front"), f.op(Slice(1, self.after), x, name="rest")
        return f.op(Concat(1), front, rows, rest, name="with_tokens")


class AddPositions(Stage, name="add_positions"):
    """Adds a learned vector to each token by its place: [batch, tokens, hidden]."""

    weights = ("{weight}: [1, tokens, hidden], or [tokens, hidden] with `flat`",)
    reference = "the position_embeddings of ViT"
    example = "add_positions: {weight: embeddings.position_embeddings}"
    weight: str = attr(doc="Name of the vectors.", main=True)
    flat: bool = attr(doc="Whether the tensor has no leading 1 (CLIP, SigLIP).", default=False)

    def expand(self, f: Expansion, x: Value) -> Value:
        _, tokens, hidden = x.shape
        sizes = (tokens, hidden) if self.flat else (1, tokens, hidden)
        return add(f, x, f.weight(self.weight, *sizes, at="weight"), name="positioned")


class PatchRope(Stage, name="patch_rope"):
    """Names a two-dimensional rotary embedding of patches for the `vit_self_attn` stages that follow.

    `centred` turns half-split pairs by the patch's centre in [-1, 1] (DINOv3); `grid` turns neighbouring pairs by its row
    and column (EVA-02, Nomic Vision), scaled to `reference_grid` where there is one. Tokens in front do not turn.
    """

    reads = ()
    writes = ("rope",)
    reference = "DINOv3ViTRopePositionEmbedding; Fang et al. 2023 (EVA-02)"
    example = "patch_rope: {theta: 100, head_dim: 16, grid: [3, 3], style: centred}"
    theta: float = attr(doc="Base of the frequencies.", gt=0)
    head_dim: int = attr(doc="Channels of a head, a multiple of 4.", symbol="head_dim", gt=0)
    grid: tuple[int, ...] = attr(doc="Rows and columns of patches.", gt=0)
    style: Literal["centred", "grid"] = attr(doc="How places become angles.")
    leading: int = attr(doc="Tokens in front of the patches.", default=0, ge=0)
    reference_grid: tuple[int, ...] = attr(doc="grid: rows and columns that places are scaled to.", default=())
    name: str = attr(doc="Name that attention stages use.", default="rope")

    def expand(self, f: Expansion, x: Value) -> Value:
        if self.head_dim % 4 or len(self.grid) != 2 or len(self.reference_grid) not in (0, 2):
            raise f.fail("bad-value", "a patch rope needs a head_dim that 4 divides, and [rows, columns] for its grids")
        if self.name in f.slots.ropes:
            raise f.fail(
                "duplicate-rope", f"the rope '{self.name}' is made a second time", hint="give it another `name`"
            )
        angles = axial_angles(
            self.theta, self.head_dim, self.grid, self.reference_grid, centred=self.style == "centred"
        )
        still = np.zeros((self.leading, angles.shape[1]), np.float32)
        wide = np.concatenate([still, angles]).astype(np.float64)[None]
        tables = [
            Constant(t.astype(np.float32), f"patch_rope_{n}") for n, t in (("cos", np.cos(wide)), ("sin", np.sin(wide)))
        ]
        f.slots.ropes[self.name] = Rope(
            None, (f.constant(tables[0]), f.constant(tables[1])), interleaved=self.style == "grid"
        )
        return x


class VitSelfAttn(Stage, name="vit_self_attn"):
    """Bidirectional self-attention with its projections: [batch, tokens, hidden] -> same.

    Projections are three tensors, or the rows q, k, v of one (`qkv`). A mask that an `attn_mask` stage left is honoured.
    """

    reads = ("active", "attn_mask", "rope")
    weights = (
        "{q}, {k}, {v}: [hidden, hidden], or {qkv}: [3 * hidden, hidden]",
        "{out}: [hidden, hidden]",
        "their `.bias` for `.weight` with `bias`, `key_bias`, `out_bias`",
    )
    reference = "ViTSelfAttention, Dinov2Attention, DINOv3ViTAttention, CLIPAttention"
    example = "vit_self_attn: {qkv: blocks.0.attn.qkv.weight, out: blocks.0.attn.proj.weight, heads: 4, head_dim: 16}"
    out: str = attr(doc="Name of the output projection.")
    qkv: str | None = attr(doc="Name of the packed projection, rows q, k, v.", default=None)
    q: str | None = attr(doc="Name of the query projection, where they are not packed.", default=None)
    k: str | None = attr(doc="Name of the key projection.", default=None)
    v: str | None = attr(doc="Name of the value projection.", default=None)
    heads: int = attr(doc="Attention heads.", symbol="heads", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)
    bias: bool = attr(doc="Whether q and v (and k, unless `key_bias` says otherwise) have biases.", default=True)
    key_bias: bool | None = attr(doc="Whether k has a bias.", default=None)
    value_bias: bool | None = attr(doc="Whether v has a bias.", default=None)
    out_bias: bool = attr(doc="Whether the output projection has a bias.", default=True)
    rope: str | None = attr(doc="Name of a rope for q and k; none by default.", default=None)

    def expand(self, f: Expansion, x: Value) -> Value:
        q, k, v = self._projections(f, x)
        if self.rope is not None:
            cos, sin = f.rope_angles(self.rope)
            interleaved = f.slots.ropes[self.rope].interleaved
            q, k = (
                f.op(RopeOp(self.heads, interleaved), t, cos, sin, name=n) for t, n in ((q, "q_rope"), (k, "k_rope"))
            )
        facts = Heads(self.heads, self.heads, self.head_dim, causal=False)
        op = Attention(self.heads, self.heads, facts.factor)
        y = f.op(op, q, k, v, None, None, f.slots.named.get("attn_mask"), name="attention")
        return linear(f, y, self.out, x.shape[-1], bias=self.out_bias, at="out")

    def _projections(self, f: Expansion, x: Value) -> list[Value]:
        width = self.heads * self.head_dim
        if self.qkv is not None:
            if self.q or self.k or self.v:
                raise f.fail("bad-value", "stage 'vit_self_attn' takes `qkv` or q, k and v, not both")
            whole = f.tensor(self.qkv, 3 * width, x.shape[-1], at="qkv")
            bias = f.tensor(self.qkv.removesuffix(".weight") + ".bias", 3 * width, at="qkv") if self.bias else None
            found: list[Value] = []
            for i, name in enumerate("qkv"):
                rows = (i * width, (i + 1) * width)
                b = f.constant(Rows(bias, *rows)) if bias is not None else None
                found.append(f.op(Linear(), x, f.constant(Rows(whole, *rows)), b, name=f"{name}_proj"))
            return found
        if not (self.q and self.k and self.v):
            raise f.fail("missing-field", "stage 'vit_self_attn' needs `qkv`, or q, k and v")
        key_bias = self.bias if self.key_bias is None else self.key_bias
        value_bias = self.bias if self.value_bias is None else self.value_bias
        return [
            linear(f, x, self.q, width, bias=self.bias, at="q", name="q_proj"),
            linear(f, x, self.k, width, bias=key_bias, at="k", name="k_proj"),
            linear(f, x, self.v, width, bias=value_bias, at="v", name="v_proj"),
        ]


class LayerScale(Stage, name="layer_scale"):
    """Multiplies each channel by a learned factor (Touvron et al. 2021)."""

    weights = ("{weight}: [hidden]",)
    reference = "Dinov2LayerScale, DINOv3ViTLayerScale"
    example = "layer_scale: {weight: blocks.0.ls1.gamma}"
    weight: str = attr(doc="Name of the factors.", main=True)

    def expand(self, f: Expansion, x: Value) -> Value:
        return f.op(Binary("mul"), x, f.weight(self.weight, x.shape[-1], at="weight"), name="scaled")


class VisionSwiGluFfn(Stage, name="vision_swiglu_ffn"):
    """fc2(LayerNorm(fc11(x) * silu(fc12(x)))), the norm with its own epsilon (Fang et al. 2023; Nomic Vision)."""

    weights = (
        "{prefix}.fc11, {prefix}.fc12: .weight [ffn, hidden], .bias [ffn]",
        "{prefix}.norm: .weight [ffn], .bias [ffn] with `norm`",
        "{prefix}.fc2: .weight [hidden, ffn], .bias [hidden]",
    )
    reference = "NomicBertGatedMLP of nomic-embed-vision"
    example = "vision_swiglu_ffn: {prefix: layers.0.mlp, ffn: 128}"
    prefix: str = attr(doc="Name in front of fc11, fc12, norm and fc2.", main=True)
    ffn: int | None = attr(doc="Width between the projections.", symbol="ffn", gt=0)
    norm: bool = attr(doc="Whether the gated value is normed.", default=True)
    eps: float = attr(doc="Epsilon of that norm: LayerNorm's default, not the model's.", default=1e-5, ge=0)
    activation: Function = attr(doc="Function of the gate, fc12.", default="silu")
    bias: bool = attr(doc="Whether fc11, fc12 and fc2 have biases.", default=True)

    def expand(self, f: Expansion, x: Value) -> Value:
        p = self.prefix
        up = linear(f, x, f"{p}.fc11.weight", self.ffn, bias=self.bias)
        gate = linear(f, x, f"{p}.fc12.weight", up.shape[-1], bias=self.bias)
        h = f.op(Binary("mul"), f.op(Unary(self.activation), gate, name="activation"), up, name="gated")
        if self.norm:
            gain, shift = (f.weight(f"{p}.norm.{part}", h.shape[-1]) for part in ("weight", "bias"))
            h = f.op(Norm("layer", self.eps), h, gain, shift, name="norm")
        return linear(f, h, f"{p}.fc2.weight", x.shape[-1], bias=self.bias)


class AttentionPool(Stage, name="attention_pool"):
    """One learned query attends to all tokens: [batch, tokens, hidden] -> [batch, 1, hidden].

    Key and value are the last rows of `kv`; the query is projected by the first rows of the same tensor, or by `q`.
    """

    weights = (
        "{query}: [1, 1, hidden]",
        "{kv}: [3 * hidden, hidden] (rows q, k, v) or, with {q} [hidden, hidden], [2 * hidden, hidden] (rows k, v)",
        "{out}: [hidden, hidden]",
        "their biases: `.bias` for `.weight`, `_bias` for `_weight`",
    )
    reference = "SiglipMultiheadAttentionPoolingHead, NomicMultiHeadAttentionPooling"
    example = (
        "attention_pool: {query: head.probe, kv: head.attention.in_proj_weight, out: head.attention.out_proj.weight, "
        "heads: 4, head_dim: 16}"
    )
    query: str = attr(doc="Name of the learned query.")
    kv: str = attr(doc="Name of the packed projection.")
    out: str = attr(doc="Name of the output projection.")
    q: str | None = attr(doc="Name of the query's projection, where it is apart.", default=None)
    heads: int = attr(doc="Attention heads.", symbol="heads", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)
    bias: bool = attr(doc="Whether the packed and query projections have biases.", default=True)
    out_bias: bool = attr(doc="Whether the output projection has a bias.", default=True)

    def expand(self, f: Expansion, x: Value) -> Value:
        width, hidden = self.heads * self.head_dim, x.shape[-1]
        packed = ("k", "v") if self.q is not None else ("q", "k", "v")
        whole = f.tensor(self.kv, len(packed) * width, hidden, at="kv")
        bias = f.tensor(_bias_of(self.kv), len(packed) * width, at="kv") if self.bias else None
        probe = f.op(ExpandBatch(), f.weight(self.query, 1, 1, hidden, at="query"), x, name="query")
        parts: dict[str, Value] = {}
        for i, name in enumerate(packed):
            rows = (i * width, (i + 1) * width)
            b = f.constant(Rows(bias, *rows)) if bias is not None else None
            source = probe if name == "q" else x
            parts[name] = f.op(Linear(), source, f.constant(Rows(whole, *rows)), b, name=f"{name}_proj")
        if self.q is not None:
            parts["q"] = linear(f, probe, self.q, width, bias=self.bias, at="q", name="q_proj")
        facts = Heads(self.heads, self.heads, self.head_dim, causal=False)
        y = f.op(Attention(self.heads, self.heads, facts.factor), parts["q"], parts["k"], parts["v"], name="attention")
        return linear(f, y, self.out, hidden, bias=self.out_bias, at="out")


def _bias_of(weight: str) -> str:
    return weight.removesuffix("weight") + "bias"
