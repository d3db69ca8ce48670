"""Subgraphs in ONNX text form: parsed by onnx itself, held to what a declarative compiler can vouch for.

    gate (float[batch, sequence, 64] x, float[64] w) => (float[batch, sequence, 64] y)
    { t = Mul(x, w)
      y = Sigmoid(t) }

A text is untrusted: its size and depth are bounded, and nothing in it reads files, draws random numbers or can run
forever. onnx is imported when a text is read, since most specs have none.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

from flowc.ir.types import Dim, TensorType

OPSET = 24
CONTRIB = "com.microsoft"
MAX_BYTES = 65536
MAX_NODES = 1000
MAX_DEPTH = 32
"""Brackets inside one another; onnx's parser is recursive."""

_ELEMENTS = {
    "FLOAT": "float32", "FLOAT16": "float16", "BFLOAT16": "bfloat16", "DOUBLE": "float64", "INT64": "int64",
    "INT32": "int32", "BOOL": "bool",
}  # fmt: skip
_RANDOM = frozenset({
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout",
})  # fmt: skip
_ENDLESS = frozenset({"Loop"})
_HEADER = f'<ir_version: 10, opset_import: ["" : {OPSET}, "{CONTRIB}" : 1]>'
_PLACE = re.compile(r"\(line: (\d+) column: (\d+)\)")


class BadText(Exception):
    """A text that is no subgraph, or one that is not allowed; with the place in the text where it is known."""

    def __init__(self, message: str, line: int | None = None, column: int = 1) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


@functools.lru_cache(maxsize=64)
def parse(text: str) -> Any:
    """The subgraph (a GraphProto) that a text holds, all of it allowed and its inputs and outputs typed.

    Raises BadText.
    """
    from onnx import checker, parser

    _bounded(text)
    try:
        whole = parser.parse_model(f"{_HEADER}\n{text}")  # parse_graph does not look at what follows the graph
    except (
        Exception
    ) as error:  # beside ParseError, several kinds come out of its C++: numbers too large, types too deep
        raise _explained(error) from None
    if whole.functions:
        raise BadText("a function follows the graph; flowc takes the graph alone")
    graph = whole.graph
    _allowed(graph)
    for value in (*graph.input, *graph.output):
        declared(value)
    try:
        checker.check_model(as_model(graph))
    except checker.ValidationError as error:
        raise BadText(" ".join(str(error).split())) from None
    names = [v.name for v in graph.input]
    if len(set(names)) != len(names):
        raise BadText("two inputs of the subgraph have the same name")
    if not graph.output:
        raise BadText("the subgraph has no output")
    return graph


def _bounded(text: str) -> None:
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise BadText(f"the text is longer than {MAX_BYTES} bytes")
    if odd := next((c for c in text if not c.isprintable() and c not in "\r\n\t"), None):
        raise BadText(f"the text holds the character {odd!a}")
    depth = deepest = 0
    for character in text:
        depth += (character in "({[<") - (character in ")}]>")
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise BadText(f"the text has more than {MAX_DEPTH} brackets inside one another")


def _explained(error: Exception) -> BadText:
    """What onnx's parser says, without its decoration, and where."""
    message = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else str(error)
    place = _PLACE.search(message)
    reason = message.strip().splitlines()[-1].removeprefix("Error context: ").strip()
    if reason == "stoll":  # the C function that gave up
        reason = "a whole number does not fit into 64 bits"
    if place is None:
        return BadText(reason)
    return BadText(reason, max(1, int(place[1]) - 1), int(place[2]))


def _allowed(graph: Any) -> None:
    """Refuse operators and data that a spec may not bring in."""
    from onnx import TensorProto, defs

    for count, node in enumerate(nodes(graph)):
        if count == MAX_NODES:
            raise BadText(f"the subgraph has more than {MAX_NODES} nodes")
        if node.domain not in ("", "ai.onnx", CONTRIB):
            raise BadText(f"the operator '{node.op_type}' is of the domain '{node.domain}'; flowc takes standard ones"
                          f" and, on targets that have them, those of {CONTRIB}")  # fmt: skip
        if node.domain != CONTRIB and not defs.has(node.op_type, OPSET, ""):
            raise BadText(f"there is no operator '{node.op_type}' in opset {OPSET} of ONNX")
        if node.domain != CONTRIB:
            known = defs.get_schema(node.op_type, OPSET, "").attributes
            if odd := next((a.name for a in node.attribute if a.name not in known), None):
                hint = f"it has {', '.join(sorted(known))}" if known else "it has none"
                raise BadText(f"the operator '{node.op_type}' has no attribute '{odd}'; {hint}")
        if node.op_type in _RANDOM:
            raise BadText(f"the operator '{node.op_type}' is not the same on every run")
        if node.op_type in _ENDLESS:
            raise BadText(f"the operator '{node.op_type}' might never end; Scan does")
    for tensor in _tensors(graph):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise BadText(f"the tensor '{tensor.name}' lies in another file; weights come in as `weight_inputs`")
    if any(g.initializer for g in _nested(graph)):
        raise BadText("an initializer stands in a nested graph; write it as a Constant")


def nodes(graph: Any) -> Iterator[Any]:
    """All nodes of a subgraph, those of nested graphs too."""
    for inner in (graph, *_nested(graph)):
        yield from inner.node


def _nested(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.output:
                    yield inner
                    yield from _nested(inner)


def _tensors(graph: Any) -> Iterator[Any]:
    for inner in (graph, *_nested(graph)):
        yield from inner.initializer
        for sparse in inner.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in inner.node:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)


def declared(value: Any) -> TensorType:
    """The declared type of an input or output; raises BadText for anything but a tensor with a shape."""
    tensor = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or not tensor.HasField("shape"):
        raise BadText(f"'{value.name}' needs a type with a shape, such as float[batch, 64] {value.name}")
    dtype = element_name(tensor.elem_type)
    if dtype not in _ELEMENTS.values():
        raise BadText(f"'{value.name}' is of the type {dtype}; flowc knows {', '.join(_ELEMENTS.values())}")
    dims: list[Dim] = []
    for dim in tensor.shape.dim:
        if dim.HasField("dim_value") and dim.dim_value < 0:
            raise BadText(f"a dimension of '{value.name}' is {dim.dim_value}")
        if dim.HasField("dim_value"):
            dims.append(dim.dim_value)
        elif dim.dim_param:
            dims.append(dim.dim_param)
        else:
            raise BadText(f"a dimension of '{value.name}' has neither a size nor a name")
    return TensorType(dtype, tuple(dims))


def element_name(element: int) -> str:
    """Our name of an element type of ONNX; its own where we have none, its number where ONNX knows none."""
    from onnx import TensorProto

    if element not in TensorProto.DataType.values():
        return f"type {element}"
    name = TensorProto.DataType.Name(element)
    return _ELEMENTS.get(name, name.lower())


def model(text: str) -> Any:
    """A text as a model of its own (a ModelProto)."""
    return as_model(parse(text))


def as_model(graph: Any) -> Any:
    """A parsed subgraph as a model (a ModelProto)."""
    from onnx import ModelProto

    found = ModelProto(ir_version=10, graph=graph)
    found.opset_import.add(domain="", version=OPSET)
    found.opset_import.add(domain=CONTRIB, version=1)
    return found


def uses_contrib(text: str) -> bool:
    """Whether a text has operators of onnxruntime's own."""
    return any(node.domain == CONTRIB for node in nodes(parse(text)))
