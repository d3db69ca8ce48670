from __future__ import annotations

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.ir.core.elementwise import Function, Unary
from flowc.ir.core.pool import L2Normalize, Pool, PoolKind
from flowc.ir.graph import Value
from flowc.stages.blocks.decoder import linear
from flowc.stages.blocks.encoder import layer_norm, token_mask
from flowc.stages.blocks.tokens import require_whole

_OUTPUT = "Name of a graph output for the result; the active value then stays as it is."


def _hand_out(b: Builder, x: Value, result: Value, output: str | None) -> Value:
    """The result as the active value, or as a graph output beside it."""
    if output is None:
        return result
    b.output(output, result)
    return x


class PoolStage(Stage, name="pool"):
    """One vector per row: [batch, sequence, hidden] -> [batch, hidden], over the tokens that are not padding."""

    reads = ("active", "attn_mask", "attention_mask")
    writes = ("active", "output")
    reference = "sentence-transformers Pooling and Normalize"
    example = "pool: {how: mean, normalize: true, output: mean_pooled_l2}"
    how: PoolKind = attr(
        doc="Mean, sum over the square root of the number of tokens, greatest value, first or last token.", main=True
    )
    normalize: bool = attr(doc="Whether the vector is scaled to Euclidean length 1 afterwards.", default=False)
    output: str | None = attr(doc=_OUTPUT, default=None)

    def expand(self, b: Builder, x: Value) -> Value:
        y = b.op(Pool(self.how), x, token_mask(b, x))
        if self.normalize:
            y = b.op(L2Normalize(1e-12), y, name="normalized")
        return _hand_out(b, x, y, self.output)


class ClsTokenPool(Stage, name="cls_token_pool"):
    """Keeps the first column of each row: [batch, sequence, hidden] -> [batch, hidden]."""

    writes = ("active", "output")
    reference = "last_hidden_state[:, 0]"
    example = "cls_token_pool"
    output: str | None = attr(doc=_OUTPUT, default=None, main=True)

    def expand(self, b: Builder, x: Value) -> Value:
        require_whole(b)
        return _hand_out(b, x, b.op(Pool("cls"), x, None), self.output)


class Pooler(Stage, name="pooler"):
    """activation(W x0 + b) of the first token that is not padding, x0: [batch, sequence, hidden] -> [batch, size]."""

    reads = ("active", "attn_mask", "attention_mask")
    writes = ("active", "output")
    weights = ("{weight}: [size, hidden], and its bias",)
    reference = "BertPooler, RobertaPooler, MPNetPooler, ViTPooler"
    example = "pooler: {weight: pooler.dense.weight, output: pooler_output}"
    weight: str = attr(doc="Name of the weight.", main=True)
    size: int | None = attr(doc="Rows of the weight; the width of the tokens by default.", default=None, gt=0)
    activation: Function = attr(doc="Function of the result.", default="tanh")
    output: str | None = attr(doc=_OUTPUT, default=None)

    def expand(self, b: Builder, x: Value) -> Value:
        first = b.op(Pool("cls"), x, token_mask(b, x), name="first")
        dense = linear(b, first, self.weight, self.size or x.shape[-1], bias=True, at="weight")
        return _hand_out(b, x, b.op(Unary(self.activation), dense, name="activation"), self.output)


class MlmHead(Stage, name="mlm_head"):
    """Scores of every word at every place: decoder(LN(activation(W x))), [.., hidden] -> [.., vocab]."""

    reads = ("active", "embedding")
    weights = (
        "{dense}: [hidden, hidden], and its bias with `dense_bias`",
        "{norm}: [hidden], and its bias with `norm_bias`",
        "{decoder}, else {embedding}: [vocab, hidden]",
        "{decoder_bias}: [vocab]",
    )
    reference = "BertLMPredictionHead, RobertaLMHead, MPNetLMHead, DistilBertForMaskedLM, ModernBertPredictionHead"
    example = "mlm_head: {dense: lm_head.dense.weight, norm: lm_head.layer_norm.weight, decoder_bias: lm_head.bias, eps: 1e-5}"
    dense: str = attr(doc="Name of the first weight.")
    norm: str = attr(doc="Name of the norm's gain.")
    decoder: str | None = attr(doc="Name of the last weight; the embedding table by default.", default=None)
    decoder_bias: str | None = attr(doc="Name of the last bias; null for none.", default=None)
    activation: Function = attr(doc="Function between the first weight and the norm.", default="gelu")
    eps: float = attr(doc="Epsilon of the norm.", symbol="norm_eps", ge=0)
    dense_bias: bool = attr(doc="Whether the first weight has a bias.", default=True)
    norm_bias: bool = attr(doc="Whether the norm has a bias.", default=True)
    vocab: int | None = attr(doc="Rows of the last weight.", symbol="vocab", gt=0)

    def expand(self, b: Builder, x: Value) -> Value:
        decoder = self.decoder or b.state.embedding
        if decoder is None:
            raise b.fail("undefined-slot", "stage 'mlm_head' has no `decoder`, and no `embed` stage came before it")
        h = linear(b, x, self.dense, x.shape[-1], bias=self.dense_bias, at="dense", name="dense")
        h = b.op(Unary(self.activation), h, name="activation")
        h = layer_norm(b, h, self.norm, self.eps, bias=self.norm_bias, at="norm")
        logits = linear(b, h, decoder, self.vocab, bias=self.decoder_bias or False, at="decoder", name="logits")
        b.facts["vocab_size"] = logits.shape[-1]
        return logits
