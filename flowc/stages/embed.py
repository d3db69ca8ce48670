from __future__ import annotations

import math

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.ir.core.elementwise import Scale
from flowc.ir.core.gather import Gather
from flowc.ir.graph import Value


class Embed(Stage, name="embed"):
    """Replaces token ids by rows of an embedding table: [batch, sequence] -> [batch, sequence, hidden]."""

    writes = ("active", "embedding")
    weights = ("{weight}: [vocab, hidden]",)
    reference = "torch.nn.Embedding"
    example = "embed: {weight: model.embed_tokens.weight}"
    weight: str = attr(doc="Name of the table.", main=True)
    vocab: int | None = attr(doc="Rows of the table.", symbol="vocab", gt=0)
    hidden: int | None = attr(doc="Columns of the table.", symbol="hidden", gt=0)

    def expand(self, b: Builder, x: Value) -> Value:
        table = b.weight(self.weight, self.vocab, self.hidden, at="weight")
        b.state.embedding = self.weight
        return b.op(Gather(), table, x)


class EmbedScale(Stage, name="embed_scale"):
    """Multiplies by sqrt(hidden), the factor rounded to float32."""

    reference = "GemmaModel, Gemma3TextScaledWordEmbedding"
    example = "embed_scale: {hidden: 64}"
    hidden: int = attr(doc="Channels of the embedding.", symbol="hidden", gt=0, main=True)

    def expand(self, b: Builder, x: Value) -> Value:
        if x.shape[-1] != self.hidden:
            message = f"stage 'embed_scale' is for {self.hidden} channels, and gets {x.type}"
            raise b.fail("bad-shape", message, b.place("hidden"))
        return b.op(Scale(math.sqrt(self.hidden)), x, name="scaled")
