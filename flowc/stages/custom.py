from __future__ import annotations

from typing import Any

from flowc.errors import Source, Span, nearest
from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.ir.core.custom import Custom as CustomOp
from flowc.ir.graph import Value
from flowc.ir.onnx_text import parse as onnx_text
from flowc.ir.types import TensorType
from flowc.stages.blocks.tokens import position_ids
from flowc.stages.streams import stream

_SLOTS = ("attention_mask", "position_ids")


class Custom(Stage, name="custom"):
    """A subgraph in ONNX text form (opset 24), for what no other stage says.

    `onnx` holds the text, or `file` names a file of it beside the spec. Each of its inputs is a tensor of the weights
    (`weight_inputs`), a stream or one of the slots attention_mask and position_ids (`stream_inputs`), or, at most one,
    the active value. Each of its outputs becomes a stream (`stream_outputs`) or, at most one, the active value.

    The types that the text declares are checked against what comes in and against what onnx infers; a name of a
    dimension stands for one size throughout. Operators are those of standard ONNX and, on targets that have them, of
    com.microsoft; none that draws random numbers, and no Loop.
    """

    reads = ("active", "streams", "positions", "attention_mask")
    writes = ("active", "streams")
    weights = ("{weight_inputs}: of the shapes that the text declares",)
    reference = "https://onnx.ai/onnx/repo-docs/Syntax.html"
    example = (
        'custom: {onnx: "scaled (float[batch, sequence, 64] x, float[64] w) => (float[batch, sequence, 64] y) '
        '{ y = Mul(x, w) }", weight_inputs: {w: model.scale}}'
    )
    onnx: str | None = attr(doc="The text; braces and dollar signs in it stand for themselves.", default=None,
                            main=True, raw=True)  # fmt: skip
    file: str | None = attr(
        doc="A file in the spec's folder (or below) that holds the text; nothing is filled in.", default=None, raw=True
    )
    weight_inputs: dict[str, str] | None = attr(doc="Inputs that are tensors of the weights.", default=None)
    stream_inputs: dict[str, str] | None = attr(doc="Inputs that are streams or slots.", default=None)
    stream_outputs: dict[str, str] | None = attr(doc="Outputs that become streams.", default=None)

    def expand(self, b: Builder, x: Value) -> Value:
        source, span = self._source(b)
        try:
            graph = onnx_text.parse(source.text)
        except onnx_text.BadText as error:
            place = _place(source, span, error)
            raise b.fail("bad-custom", f"the subgraph of stage 'custom' is not valid: {error}", place) from None
        weights, given = self.weight_inputs or {}, self.stream_inputs or {}
        inputs = {v.name: onnx_text.declared(v) for v in graph.input}
        outputs = [v.name for v in graph.output]
        _known(b, "input", list(weights), list(inputs), "weight_inputs")
        _known(b, "input", list(given), list(inputs), "stream_inputs")
        _known(b, "output", list(self.stream_outputs or {}), outputs, "stream_outputs")
        if twice := sorted(weights.keys() & given.keys()):
            raise b.fail("bad-custom", f"the input '{twice[0]}' is both a weight and a stream",
                         b.place("stream_inputs"))  # fmt: skip
        _one_at_most(b, "input", [n for n in inputs if n not in weights and n not in given])
        streams = self.stream_outputs or {}
        _one_at_most(b, "output", [n for n in outputs if n not in streams])
        operands: list[Value] = []
        for name, type_ in inputs.items():
            if name in weights:
                operands.append(_weight(b, name, weights[name], type_))
            else:
                operands.append(_slot(b, given[name]) if name in given else x)
        results = dict(zip(outputs, b.emit(CustomOp(source.text), *operands, name=graph.name or "custom"), strict=True))
        active = [value for name, value in results.items() if name not in streams]
        b.state.streams.update({streams[name]: value for name, value in results.items() if name in streams})
        return active[0] if active else x

    def _source(self, b: Builder) -> tuple[Source, Span | None]:
        """The text with the name to show for it, and the place of the field in the spec."""
        if (self.onnx is None) == (self.file is None):
            raise b.fail("missing-field", "stage 'custom' needs `onnx`, the text, or `file`, and not both")
        if self.onnx is not None:
            return Source("onnx", self.onnx), b.place("onnx")
        name = self.file or ""
        try:
            text = b.read_beside(name, onnx_text.MAX_BYTES)
        except ValueError as error:
            raise b.fail("bad-custom", f"stage 'custom': {error}", b.place("file")) from None
        return Source(str(b.spec.path.parent / name), text), None


def _place(source: Source, span: Span | None, error: onnx_text.BadText) -> Span | None:
    """Where a text is wrong: in its file, or in the spec when its lines stand there as they are (a `|` block)."""
    if error.line is None:
        return span or Span(source, 1, 1, 1, 2)
    if span is None:
        return Span(source, error.line, error.column, error.line, error.column + 1)
    opening = span.source.line(span.line)[span.column - 1 :]
    if not opening.startswith("|"):
        return span
    line = span.line + error.line
    first = span.source.line(span.line + 1)
    column = len(first) - len(first.lstrip(" ")) + error.column
    return Span(span.source, line, column, line, column + 1)


def _known(b: Builder, what: str, names: list[str], declared: list[str], at: str) -> None:
    for name in names:
        if name not in declared:
            hint = nearest(name, declared) or f"it has {', '.join(declared)}"
            raise b.fail("bad-custom", f"the subgraph has no {what} '{name}'", b.place(at), hint)


def _one_at_most(b: Builder, what: str, left: list[str]) -> None:
    if len(left) > 1:
        raise b.fail("bad-custom", f"the active value can be one {what} of the subgraph, not {', '.join(left)}",
                     hint=f"name the others in `stream_{what}s`" + (" or `weight_inputs`" if what == "input" else ""))  # fmt: skip


def _weight(b: Builder, name: str, tensor: str, type_: TensorType) -> Value:
    if type_.dtype != "float32":
        raise b.fail("bad-custom", f"the input '{name}' is a weight, and those are float, not {type_.dtype}",
                     b.place("weight_inputs"))  # fmt: skip
    sizes: list[Any] = [d if isinstance(d, int) else None for d in type_.shape]
    return b.weight(tensor, *sizes, at="weight_inputs")


def _slot(b: Builder, name: str) -> Value:
    """A stream, or a slot that flowc fills."""
    if name in b.state.streams or name not in _SLOTS:
        return stream(b, name)
    value = b.attention_mask() if name == "attention_mask" else position_ids(b)
    if value is None:
        raise b.fail("undefined-slot", "a graph built with --assume no-padding has no attention_mask",
                     b.place("stream_inputs"))  # fmt: skip
    return value
