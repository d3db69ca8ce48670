from __future__ import annotations

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.ir.core.elementwise import Binary, Softcap
from flowc.ir.core.positions import TakeLast
from flowc.ir.graph import Value
from flowc.stages.blocks.decoder import linear
from flowc.stages.blocks.tokens import require_sequence


class LmHead(Stage, name="lm_head"):
    """Scores of every word of the vocabulary, the output `logits`: [batch, tokens, hidden] -> [batch, tokens, vocab].

    Either `tied: true`, which uses the table of the flow's `embed` stage, or a `weight` of its own.
    """

    reads = ("active", "embedding")
    weights = ("{weight}, else {embedding}: [vocab, hidden], and its bias with `bias`",)
    reference = "*ForCausalLM.lm_head"
    example = "lm_head: {tied: true}"
    tied: bool = attr(doc="Whether the embedding table is the weight.", default=False)
    weight: str | None = attr(doc="Name of the weight when it is not tied.", default=None, main=True)
    bias: bool = attr(doc="Whether the sibling `.bias` is added.", default=False)
    vocab: int | None = attr(doc="Rows of the weight.", symbol="vocab", gt=0)

    def expand(self, b: Builder, x: Value) -> Value:
        weight = self.weight
        if self.tied:
            if weight is not None:
                raise b.fail("bad-value", "stage 'lm_head' is tied or has a weight of its own, not both")
            weight = b.state.embedding
            if weight is None:
                raise b.fail("undefined-slot", "stage 'lm_head' is tied, but no `embed` stage came before it")
        if weight is None:
            raise b.fail("missing-field", "stage 'lm_head' needs `tied: true` or a `weight`")
        logits = linear(b, x, weight, self.vocab, bias=self.bias, at="weight", name="logits")
        b.facts["vocab_size"] = logits.shape[-1]
        return logits


class AddWeight(Stage, name="add_weight"):
    """Adds a tensor of the weights to every token: a bias that belongs to no projection."""

    weights = ("{weight}: [1, hidden]",)
    reference = "BartForConditionalGeneration.final_logits_bias"
    example = "add_weight: final_logits_bias"
    weight: str = attr(doc="Name of the tensor.", main=True)

    def expand(self, b: Builder, x: Value) -> Value:
        return b.op(Binary("add"), x, b.weight(self.weight, 1, x.shape[-1], at="weight"), name="sum")


class LogitSoftcap(Stage, name="logit_softcap"):
    """cap * tanh(x / cap): bounds the logits (Gemma 2)."""

    reference = "Gemma2ForCausalLM, `final_logit_softcapping`"
    example = "logit_softcap: {cap: 30}"
    cap: float = attr(doc="The bound.", gt=0, main=True)

    def expand(self, b: Builder, x: Value) -> Value:
        return b.op(Softcap(self.cap), x, name="softcap")


class GatherLastToken(Stage, name="gather_last_token"):
    """Keeps each row's last token that is not padding: [batch, sequence, hidden] -> [batch, 1, hidden].

    A build with `--logits all` skips this stage.
    """

    reads = ("active", "attention_mask")
    reference = "transformers `logits_to_keep=1`, per row"
    example = "gather_last_token"

    def expand(self, b: Builder, x: Value) -> Value:
        if b.options.logits == "all":
            return x
        if x.shape[1] not in (1, require_sequence(b).shape[1]):
            raise b.fail("bad-shape", f"stage 'gather_last_token' picks one of the flow's own tokens, not of {x.type}")
        b.facts["last_token"] = True
        return b.op(TakeLast(), x, b.attention_mask())
