from __future__ import annotations

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.ir.core.gather import Gather
from flowc.ir.core.layout import Slice
from flowc.ir.core.relative_bias import RelativeBias
from flowc.ir.core.token_positions import AllOnes, Columns, PositionsFromIds
from flowc.ir.graph import Value
from flowc.ir.types import BATCH, SEQUENCE, TensorType
from flowc.ir.weights.expressions import Rows
from flowc.stages.blocks.decoder import add
from flowc.stages.blocks.tokens import position_ids, require_sequence, require_whole

_IDS = TensorType("int64", (BATCH, SEQUENCE))


class ColumnPositions(Stage, name="column_positions"):
    """Makes position ids 0, 1, 2 ... of the columns, padding included, for a `gather_add` that follows."""

    reads = ("tokens",)
    writes = ("ids",)
    reference = "BertEmbeddings.position_ids"
    example = "column_positions"
    name: str = attr(doc="Name that `gather_add` uses.", default="position_ids", main=True)

    def expand(self, b: Builder, x: Value) -> Value:
        require_whole(b)
        b.state.ids[self.name] = b.op(Columns(), require_sequence(b), name=self.name)
        return x


class TokenPositions(Stage, name="token_positions"):
    """Makes position ids of a decoder's tokens for a `gather_add`: the valid tokens before each, by the mask; 0 at padding."""

    reads = ("positions",)
    writes = ("ids",)
    reference = "BartLearnedPositionalEmbedding, OPTLearnedPositionalEmbedding"
    example = "token_positions"
    name: str = attr(doc="Name that `gather_add` uses.", default="position_ids", main=True)

    def expand(self, b: Builder, x: Value) -> Value:
        b.state.ids[self.name] = position_ids(b)
        return x


class PositionsFromIdsStage(Stage, name="positions_from_ids"):
    """Makes position ids that skip the padding token and start behind its number: cumsum(ids != pad) * (ids != pad) + pad."""

    reads = ("tokens",)
    writes = ("ids",)
    reference = "RobertaEmbeddings.create_position_ids_from_input_ids, MPNetEmbeddings (pad 1)"
    example = "positions_from_ids: {pad: 1}"
    pad: int = attr(doc="Id of the padding token.", symbol="pad", main=True, ge=0)
    name: str = attr(doc="Name that `gather_add` uses.", default="position_ids")

    def expand(self, b: Builder, x: Value) -> Value:
        require_whole(b)
        b.state.ids[self.name] = b.op(PositionsFromIds(self.pad), b.tokens(), name=self.name)
        return x


class GatherFromInput(Stage, name="gather_from_input"):
    """Replaces the active value by rows of a table, picked by ids: [batch, sequence] -> [batch, sequence, hidden].

    The ids are a graph input, or what a stage such as `column_positions` made under that name.
    """

    reads = ("input", "ids")
    weights = ("{weight}: [rows, hidden]",)
    reference = "torch.nn.Embedding on a side input"
    example = "gather_from_input: {weight: embeddings.word_embeddings.weight, input: input_ids, rows: 97, hidden: 64}"
    weight: str = attr(doc="Name of the table.")
    input: str = attr(doc="Name of the ids.")
    rows: int | None = attr(doc="Rows of the table; as the file says by default.", default=None, gt=0)
    hidden: int | None = attr(doc="Columns of the table.", symbol="hidden", gt=0)

    def expand(self, b: Builder, x: Value) -> Value:
        table = b.weight(self.weight, self.rows, self.hidden, at="weight")
        return b.op(Gather(), table, _ids(b, self.input))


class GatherAdd(Stage, name="gather_add"):
    """Adds rows of a table to the active value, picked by ids, or one row for every token.

    The ids are a graph input, or what `column_positions` or `positions_from_ids` made under that name.
    """

    reads = ("active", "input", "ids")
    weights = ("{weight}: [rows, hidden]",)
    reference = "BertEmbeddings.position_embeddings, BertEmbeddings.token_type_embeddings"
    example = "gather_add: {weight: embeddings.token_type_embeddings.weight, rows: 2, input: token_type_ids}"
    weight: str = attr(doc="Name of the table.")
    input: str | None = attr(doc="Name of the ids.", default=None)
    row: int | None = attr(doc="The row that every token gets, in place of ids.", default=None, ge=0)
    rows: int | None = attr(doc="Rows of the table; as the file says by default.", default=None, gt=0)
    offset: int = attr(doc="Rows in front of the one that id 0 picks (2 in BART and OPT).", default=0, ge=0)

    def expand(self, b: Builder, x: Value) -> Value:
        if (self.input is None) == (self.row is None):
            raise b.fail("missing-field", "stage 'gather_add' needs `input`, the name of ids, or `row`, and not both")
        whole = b.tensor(self.weight, self.rows, x.shape[-1], at="weight")
        if self.offset >= whole.shape[0]:
            message = f"stage 'gather_add' leaves out {self.offset} rows of a table of {whole.shape[0]}"
            raise b.fail("bad-value", message, b.place("offset"))
        table = b.constant(Rows(whole, self.offset, whole.shape[0]) if self.offset else whole)
        if self.row is not None:
            size = table.shape[0]
            if isinstance(size, int) and self.row >= size:
                raise b.fail("bad-value", f"stage 'gather_add' takes row {self.row} of a table of {size} rows")
            found = b.op(Slice(0, self.row, self.row + 1), table, name="row")
        else:
            found = b.op(Gather(), table, _ids(b, self.input or ""))
        return add(b, x, found, "sum")


def _ids(b: Builder, name: str) -> Value:
    """Ids that a stage made, or a graph input."""
    made = b.state.ids.get(name)
    return made if made is not None else b.input(name, _IDS)


class AttnMask(Stage, name="attn_mask"):
    """Chooses the padding mask of the encoder stages that follow: an input, or ones (nothing is padding).

    Without this stage they use the graph's attention_mask. A mask of ones costs nothing: it is folded away.
    """

    reads = ("active", "input")
    writes = ("attn_mask", "positions")
    reference = "transformers.masking_utils.create_bidirectional_mask"
    example = "attn_mask: {input: attention_mask}"
    input: str | None = attr(doc="Name of the mask, 1 where a token counts; ones by default.", default=None, main=True)

    def expand(self, b: Builder, x: Value) -> Value:
        if b.phase.emits_cache:
            raise b.fail("wrong-phase", f"stage 'attn_mask' is for encoders; the '{b.phase}' graph has its own mask")
        mask = b.op(AllOnes(), x, name="ones") if self.input is None else b.input(self.input, _IDS)
        b.state.token_mask = mask
        b.state.position_ids = None  # those of another mask, and so are the angles
        b.state.angles.clear()
        return x


class RelativeBiasStage(Stage, name="relative_bias"):
    """Makes a bias of attention scores by the distance of two tokens, for the encoder layers that follow.

    T5's bidirectional buckets (Raffel et al. 2020): one table for all layers.
    """

    reads = ("tokens",)
    writes = ("bias",)
    weights = ("{weight}: [rows, heads]",)
    reference = "MPNetEncoder.compute_position_bias"
    example = (
        "relative_bias: {weight: encoder.relative_attention_bias.weight, heads: 4, buckets: 32, max_distance: 128}"
    )
    weight: str = attr(doc="Name of the table.", main=True)
    heads: int = attr(doc="Columns of the table.", symbol="heads", gt=0)
    buckets: int = attr(doc="Buckets of distances, half of them on each side.", gt=0)
    max_distance: int = attr(doc="Distance in tokens from which on all share a bucket.", gt=0)
    rows: int | None = attr(doc="Rows of the table; `buckets` by default.", default=None, gt=0)
    name: str = attr(doc="Name that encoder layers use.", default="relative")

    def expand(self, b: Builder, x: Value) -> Value:
        require_whole(b)
        table = b.weight(self.weight, self.rows or self.buckets, self.heads, at="weight")
        bias = b.op(RelativeBias(self.buckets, self.max_distance), require_sequence(b), table, name="bias")
        b.state.biases[self.name] = bias
        return x
