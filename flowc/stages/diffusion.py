from __future__ import annotations

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.frontend.state import Rope
from flowc.ir.core.attention import Attention
from flowc.ir.core.diffusion import AxialAngles, Sinusoid
from flowc.ir.core.elementwise import Binary, Unary
from flowc.ir.core.layout import Concat, Reshape, Slice, Split
from flowc.ir.core.norm import Norm
from flowc.ir.graph import Value
from flowc.ir.visibility import EVERYTHING
from flowc.ir.weights.expressions import scalar
from flowc.stages.blocks.decoder import AttentionFacts, linear, rms_norm, rotate
from flowc.stages.blocks.tokens import add_rope, require_whole
from flowc.stages.streams import per_token, stream


class TimestepSinusoid(Stage, name="timestep_sinusoid"):
    """Cosines, then sines of the active value times `factor` at falling frequencies: [batch] -> [batch, dim]."""

    reference = "diffusers get_timestep_embedding with flip_sin_to_cos and no frequency shift"
    example = "sequence: [input: timestep, timestep_sinusoid: {dim: 256, factor: 1000}]"
    dim: int = attr(doc="Channels of the result, an even number.", gt=0)
    factor: float = attr(doc="What the value is multiplied by first.", default=1.0)
    max_period: float = attr(doc="Longest period.", default=10000.0, gt=0)

    def expand(self, b: Builder, x: Value) -> Value:
        return b.op(Sinusoid(self.dim, self.factor, self.max_period), x)


class Modulation(Stage, name="modulation"):
    """Makes shifts, scales and gates from a condition: silu, one linear map, equal chunks kept as streams.

    The condition is a stream [batch, channels]; each chunk is [batch, hidden]. The active value is left alone.
    """

    reads = ("streams",)
    writes = ("streams",)
    weights = ("{weight}: [chunks * hidden, channels], and its bias with `bias`",)
    reference = "the linear of diffusers AdaLayerNormZero, AdaLayerNormZeroSingle and AdaLayerNormContinuous"
    example = (
        "sequence: [store_stream: temb, modulation: {condition: temb, weight: norm1.linear.weight, "
        "hidden: 64, into: [shift, scale, gate]}]"
    )
    condition: str = attr(doc="Name of the stream that decides.")
    weight: str = attr(doc="Name of the linear's weight.")
    into: tuple[str, ...] = attr(doc="Names of the streams that the chunks become, in the order of the rows.")
    hidden: int = attr(doc="Channels of a chunk.", symbol="hidden", gt=0)
    bias: bool = attr(doc="Whether the linear has a bias.", default=True)

    def expand(self, b: Builder, x: Value) -> Value:
        if len(set(self.into)) != len(self.into) or not self.into:
            raise b.fail("bad-value", "stage 'modulation' needs chunks of different names in `into`")
        condition = b.op(Unary("silu"), stream(b, self.condition), name="condition")
        sizes = (self.hidden,) * len(self.into)
        rows = linear(b, condition, self.weight, sum(sizes), bias=self.bias, at="weight")
        b.state.streams.update(dict(zip(self.into, b.emit(Split(sizes), rows, name="chunks"), strict=True)))
        return x


class Modulate(Stage, name="modulate"):
    """LayerNorm without a gain, then `x * (1 + scale) + shift` by streams [batch, hidden]."""

    reads = ("active", "streams")
    reference = "diffusers AdaLayerNormZero; Peebles & Xie 2023 (adaLN)"
    example = "sequence: [store_stream: temb, modulate: {shift: temb, scale: temb, eps: 1e-6}]"
    shift: str = attr(doc="Name of the stream that is added.")
    scale: str = attr(doc="Name of the stream that, with 1 added, is multiplied by.")
    eps: float = attr(doc="Added to the variance.", symbol="norm_eps", ge=0)

    def expand(self, b: Builder, x: Value) -> Value:
        one = b.constant(scalar(1.0))
        factor = b.op(Binary("add"), stream(b, self.scale), one, name="factor")
        y = b.op(Norm("layer", self.eps), x, name="norm")
        y = b.op(Binary("mul"), y, per_token(b, factor, x), name="scaled")
        return b.op(Binary("add"), y, per_token(b, stream(b, self.shift), x), name="shifted")


class ProjectQkv(Stage, name="project_qkv"):
    """Queries, keys and values of a stream, side by side for `joint_attention`: [.., hidden] -> [.., 3 * heads * head_dim].

    With `q_norm` and `k_norm` each head of q and k is RMS-normed.
    """

    weights = (
        "{q}, {k}, {v}: [heads * head_dim, hidden], and its bias with `bias`",
        "{q_norm}, {k_norm}: [head_dim]",
    )
    reference = "diffusers FluxAttention (to_q, add_q_proj, norm_q, norm_added_q)"
    example = "project_qkv: {q: attn.to_q.weight, k: attn.to_k.weight, v: attn.to_v.weight, heads: 4, head_dim: 16}"
    q: str = attr(doc="Name of the query weight.")
    k: str = attr(doc="Name of the key weight.")
    v: str = attr(doc="Name of the value weight.")
    q_norm: str | None = attr(doc="Name of the gain of q's norm; null for none.", default=None)
    k_norm: str | None = attr(doc="Name of the gain of k's norm; null for none.", default=None)
    heads: int = attr(doc="Attention heads.", symbol="heads", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)
    bias: bool = attr(doc="Whether the projections have biases.", default=True)
    eps: float | None = attr(doc="Epsilon of the norms of q and k.", default=None, ge=0)

    def expand(self, b: Builder, x: Value) -> Value:
        width = self.heads * self.head_dim
        q, k, v = (linear(b, x, w, width, bias=self.bias, at=n) for n, w in zip("qkv", self._names(), strict=True))
        return b.op(Concat(-1), self._normed(b, q, self.q_norm), self._normed(b, k, self.k_norm), v, name="qkv")

    def _names(self) -> tuple[str, str, str]:
        return self.q, self.k, self.v

    def _normed(self, b: Builder, x: Value, gain: str | None) -> Value:
        if gain is None:
            return x
        if self.eps is None:
            raise b.fail("missing-field", "stage 'project_qkv' with `q_norm` or `k_norm` needs `eps`")
        return rms_norm(b, x, gain, self.eps, groups=self.heads)


class JointAttention(Stage, name="joint_attention"):
    """Attention of every token to every token, over what `project_qkv` made: [.., 3 * width] -> [.., width].

    Inside a `dual_stream` its tokens are those of both streams. There is no mask, and no output projection.
    """

    reads = ("active", "rope")
    reference = "diffusers FluxAttnProcessor"
    example = (
        "sequence: [project_qkv: {q: attn.to_q.weight, k: attn.to_k.weight, v: attn.to_v.weight, heads: 4, head_dim: 16}, "
        "joint_attention: {heads: 4, head_dim: 16, rope: null}]"
    )
    heads: int = attr(doc="Attention heads.", symbol="heads", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)
    scale: float | None = attr(doc="Factor of the scores; 1 / sqrt(head_dim) by default.", default=None, gt=0)
    rope: str | None = attr(doc="Name of the rope for q and k; null for none.", default="rope")

    def expand(self, b: Builder, x: Value) -> Value:
        require_whole(b)
        q, k, v = b.emit(Split((self.heads * self.head_dim,) * 3), x, name="qkv")
        interleaved = self.rope is not None and self.rope in b.state.ropes and b.state.ropes[self.rope].interleaved
        facts = AttentionFacts(
            self.heads, self.heads, self.head_dim, self.scale, None, EVERYTHING, self.rope, interleaved=interleaved
        )
        q, k = rotate(b, q, self.heads, facts, "q_rope"), rotate(b, k, self.heads, facts, "k_rope")
        return b.op(Attention(self.heads, self.heads, facts.factor), q, k, v, name="attention")


class AxialRope(Stage, name="axial_rope"):
    """Names a rope whose angles come from positions along several axes, float32 [tokens, axes] graph inputs.

    Several inputs stand one after the other, in the order of the tokens that turn. Neighbouring channels are pairs.
    """

    reads = ("input",)
    writes = ("rope",)
    reference = "diffusers FluxPosEmbed"
    example = "axial_rope: {ids: [txt_ids, img_ids], dims: [4, 6, 6], theta: 10000}"
    ids: tuple[str, ...] = attr(doc="Names of the inputs with the positions.")
    dims: tuple[int, ...] = attr(doc="Channels of a head that each axis turns.", gt=0)
    theta: float = attr(doc="Base of the frequencies.", gt=0)
    name: str = attr(doc="Name that attention stages use.", default="rope")
    interleaved: bool = attr(doc="Whether pairs are neighbours; else halves of the head.", default=True)

    def expand(self, b: Builder, x: Value) -> Value:
        if not self.ids:
            raise b.fail("bad-value", "stage 'axial_rope' needs at least one input in `ids`")
        ids = [b.input(name) for name in self.ids]
        joined = b.op(Concat(0), *ids, name="ids") if len(ids) > 1 else ids[0]
        cos, sin = b.emit(AxialAngles(self.dims, self.theta), joined, name="angles")
        _name_rope(b, self.name, cos, sin, interleaved=self.interleaved)
        return x


class RopeInputs(Stage, name="rope_inputs"):
    """Names a rope whose cosine and sine are graph inputs [tokens, head_dim], as diffusers hands them to its blocks.

    Every angle stands there twice, once for each channel of a pair of neighbours.
    """

    reads = ("input",)
    writes = ("rope",)
    reference = "image_rotary_emb of diffusers FluxTransformerBlock"
    example = "rope_inputs: {cos: rope_cos, sin: rope_sin}"
    cos: str = attr(doc="Name of the input with the cosines.")
    sin: str = attr(doc="Name of the input with the sines.")
    name: str = attr(doc="Name that attention stages use.", default="rope")
    interleaved: bool = attr(doc="Whether pairs are neighbours; else halves of the head.", default=True)

    def expand(self, b: Builder, x: Value) -> Value:
        cos, sin = (self._once(b, b.input(name)) for name in (self.cos, self.sin))
        _name_rope(b, self.name, cos, sin, interleaved=self.interleaved, whole=True)
        return x

    def _once(self, b: Builder, table: Value) -> Value:
        """[tokens, dim], each angle twice in a row -> [1, tokens, dim / 2]."""
        width = table.shape[-1]
        if table.type.rank != 2 or not isinstance(width, int) or width % 2:
            raise b.fail(
                "bad-shape", f"stage 'rope_inputs' takes [tokens, head_dim] with an even head_dim, not {table.type}"
            )
        tokens = table.shape[0]
        pairs = b.op(Reshape((1, tokens, width // 2, 2)), table, name="pairs")
        return b.op(Reshape((1, tokens, width // 2)), b.op(Slice(3, 0, 1), pairs, name="first"), name="once")


def _name_rope(b: Builder, name: str, cos: Value, sin: Value, *, interleaved: bool, whole: bool = False) -> None:
    """Keep a rope of angles; `whole` when all channels of a head turn."""
    angles = cos.shape[-1]
    head_dim = 2 * angles if whole and isinstance(angles, int) else None
    add_rope(b, name, Rope(None, (cos, sin), interleaved, head_dim))
