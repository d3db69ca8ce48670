"""The ONNX graph under construction, as the emitters of kernels see it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import onnx_ir as onnx
from onnx_ir import DataType

from flowc.errors import InternalError
from flowc.ir.dtypes import numpy_dtype
from flowc.ir.graph import Graph, Node, Value
from flowc.ir.op import Op
from flowc.ir.weights.expressions import Weight
from flowc.ir.weights.place import lies_in_graph, weight_name

CONTRIB = "com.microsoft"

DTYPES = {
    "float32": DataType.FLOAT, "float16": DataType.FLOAT16, "bfloat16": DataType.BFLOAT16,
    "float64": DataType.DOUBLE, "int64": DataType.INT64, "int32": DataType.INT32, "bool": DataType.BOOL,
    "uint8": DataType.UINT8,
}  # fmt: skip

Attribute = bool | int | float | str | Sequence[int] | Sequence[float] | onnx.Graph | onnx.TensorProtocol | None
"""What an attribute of an ONNX node may be; None leaves it out."""

Emit = Callable[["Emitter", Any, Node], None]
EMITTERS: dict[type[Op], Emit] = {}
"""The emitter of each kernel."""


def emits(op: type[Op]) -> Callable[[Emit], Emit]:
    """Register the emitter of a kernel."""

    def register(function: Emit) -> Emit:
        EMITTERS[op] = function
        return function

    return register


class Emitter:
    """Translates one graph. Emitters of operators call `op`, `ints`, `get` and `bind`."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[onnx.Node] = []
        self.initializers: dict[str, onnx.Value] = {}
        self.weights: dict[str, Weight] = {}
        """Initializers that lie in the data file, by name."""
        self._values: dict[Value, onnx.Value] = {}
        self._shared: dict[Hashable, onnx.Value] = {}
        self._names: set[str] = {o.name for o in graph.outputs} | {v.name for v in graph.inputs}
        self._node: Node | None = None
        for value in graph.inputs:
            self._values[value] = self._typed(value, value.name)
        self._bound: set[int] = {id(v) for v in self._values.values()}

    def _shape(self, value: Value) -> onnx.Shape:
        return onnx.Shape(self.graph.port_type(value).shape)

    def _typed(self, value: Value, name: str) -> onnx.Value:
        return onnx.Value(name=name, type=onnx.TensorType(DTYPES[value.dtype]), shape=self._shape(value))

    def run(self) -> None:
        """Emit every node of the graph."""
        for node in self.graph.nodes:
            self._node = node
            emit = EMITTERS.get(type(node.op))
            if emit is None:
                raise InternalError(f"there is no emitter for the operator '{node.op.name}'")
            emit(self, node.op, node)

    # For the emitters

    @property
    def node(self) -> Node:
        """The node being emitted."""
        if self._node is None:
            raise InternalError("no node is being emitted")
        return self._node

    def get(self, value: Value) -> onnx.Value:
        """The ONNX value of an operand."""
        if value.weight is not None:
            return self.weight(value.weight)
        return self._values[value]

    def operand(self, name: str) -> onnx.Value | None:
        """An operand of the current node by name, None when absent."""
        value = self.node.input(name)
        return self.get(value) if value is not None else None

    def need(self, name: str) -> onnx.Value:
        """An operand of the current node that is always there."""
        return self.get(self.node.need(name))

    def weight(self, weight: Weight) -> onnx.Value:
        """The initializer of a weight expression; small constants lie in the graph file."""
        if lies_in_graph(weight):
            return self.array(weight.values)
        name = weight_name(weight)
        if name not in self.initializers:
            self.initializers[name] = onnx.Value(
                name=name, type=onnx.TensorType(DTYPES[weight.dtype]), shape=onnx.Shape(weight.shape)
            )
            self.weights[name] = weight
            self._names.add(name)
        return self.initializers[name]

    def array(self, values: Any, dtype: str | None = None) -> onnx.Value:
        """A small constant that lies in the graph file; equal ones are shared."""
        array = np.asarray(values, dtype=dtype)
        key = ("const", array.dtype.name, array.shape, array.tobytes())
        if key not in self._shared:
            text = "x".join(map(str, array.reshape(-1)[:6].tolist())) or "empty"
            name = self._fresh(f"const.{array.dtype.name}.{text}" if array.size <= 6 else f"const.{array.dtype.name}")
            value = onnx.Value(name=name, type=onnx.TensorType(DTYPES[array.dtype.name]), shape=onnx.Shape(array.shape))
            value.const_value = onnx.tensor(array, name=name)
            self.initializers[name] = value
            self._shared[key] = value
        return self._shared[key]

    def number(self, value: float) -> onnx.Value:
        """A scalar constant of the type of the current node's first result."""
        return self.array(np.asarray(value, numpy_dtype(self.node.outputs[0].dtype)))

    def ints(self, *values: int) -> onnx.Value:
        """A 1-D int64 constant."""
        return self.array(list(values), "int64")

    def op(
        self, op_type: str, *inputs: onnx.Value | None, domain: str = "", label: str = "", **attributes: Attribute
    ) -> onnx.Value:
        """Add an ONNX node with one result."""
        (result,) = self.ops(op_type, *inputs, outputs=1, domain=domain, label=label, **attributes)
        return result

    def ops(
        self,
        op_type: str,
        *inputs: onnx.Value | None,
        outputs: int,
        domain: str = "",
        label: str = "",
        **attributes: Attribute,
    ) -> tuple[onnx.Value, ...]:
        """Add an ONNX node with so many results; attributes that are None are left out."""
        base = f"/{self.node.outputs[0].name.replace('.', '/')}/{label or op_type}"
        name = self._fresh(base)
        operands = list(inputs)
        while operands and operands[-1] is None:
            operands.pop()
        results = [onnx.Value(name=f"{name}:{i}") for i in range(outputs)]
        attrs = [onnx.Attr(k, *_attribute(v)) for k, v in attributes.items() if v is not None]
        meta = self._provenance()
        self.nodes.append(onnx.Node(domain, op_type, operands, attrs, outputs=results, name=name, metadata_props=meta))
        return tuple(results)

    def adopt(self, node: onnx.Node) -> None:
        """Take over a finished ONNX node (its operands are this graph's) under fresh names, nested graphs included."""
        self._rename(node, f"/{self.node.outputs[0].name.replace('.', '/')}")
        node.metadata_props.update(self._provenance())
        self.nodes.append(node)

    def _rename(self, node: onnx.Node, base: str) -> None:
        node.name = self._fresh(f"{base}/{node.op_type}")
        for i, value in enumerate(node.outputs):
            value.name = f"{node.name}:{i}" if value.name else ""
        for attribute in node.attributes.values():
            if isinstance(attribute.value, onnx.Graph):
                for i, value in enumerate(attribute.value.inputs):
                    value.name = f"{node.name}/{attribute.name}:{i}"
                for inner in attribute.value:
                    self._rename(inner, f"{node.name}/{attribute.name}")

    def _provenance(self) -> dict[str, str]:
        origin = self.node.origin
        place = {"flowc.source": str(origin.span)} if origin.span is not None else {}
        return {"flowc.stage": origin.stage, **place}

    def body(self, name: str, inputs: Sequence[onnx.Value], make: Callable[[], Sequence[onnx.Value]]) -> onnx.Graph:
        """A graph inside the graph, as `Loop` takes it; `make` emits its nodes. What they share must lie outside."""
        outer, self.nodes = self.nodes, []
        try:
            outputs = make()
            return onnx.Graph(inputs, outputs, nodes=self.nodes, name=name)
        finally:
            self.nodes = outer

    def local(self, name: str, dtype: str, shape: Sequence[int | str | None]) -> onnx.Value:
        """An input of a graph inside the graph."""
        label = self._fresh(f"/{self.node.outputs[0].name.replace('.', '/')}/{name}")
        return onnx.Value(name=label, type=onnx.TensorType(DTYPES[dtype]), shape=onnx.Shape(shape))

    def bind(self, *values: onnx.Value) -> None:
        """Name the results of the current node: ONNX values in the order of its outputs, typed as the IR says."""
        for ours, onnx_value in zip(self.node.outputs, values, strict=True):
            if id(onnx_value) not in self._bound:
                self._bound.add(id(onnx_value))
                onnx_value.type = onnx.TensorType(DTYPES[ours.dtype])
                onnx_value.shape = self._shape(ours)
                if ours.name not in self._names:
                    self._names.add(ours.name)
                    onnx_value.name = ours.name
            self._values[ours] = onnx_value

    def shared(self, key: Hashable, make: Callable[[], onnx.Value]) -> onnx.Value:
        """A value made once per graph."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def size(self, value: Value, axis: int) -> onnx.Value:
        """Size of an axis as a 1-D int64 value of one element."""
        dim = value.shape[axis]
        if isinstance(dim, int):
            return self.ints(dim)
        onnx_value = self.get(value)
        return self.shared(
            ("size", id(onnx_value), axis),
            lambda: self.op("Shape", onnx_value, start=axis, end=axis + 1, label=f"Shape_{axis}"),
        )

    def computed(self, size: onnx.Value, dtype: str = "int64") -> onnx.Value:
        """A size (one element) for computing with: made where values are, since Range takes its bounds from the host.

        A size comes of a shape, which is known on the host; read by a kernel on a device, it would be copied there.
        """
        return self.shared(("computed", id(size), dtype), lambda: self._ranged(size, dtype))

    def _ranged(self, size: onnx.Value, dtype: str) -> onnx.Value:
        if size.const_value is not None:
            return size
        one = self.array([1], dtype)
        start, stop = (self.op("Squeeze", x) for x in (size, self.op("Add", size, one)))
        return self.op("Range", start, stop, self.array(1, dtype), label="Size")

    def sizes(self, value: Value, axes: Sequence[int], *tail: int) -> onnx.Value:
        """Sizes of axes and then given numbers, as one int64 vector."""
        dims = [value.shape[a] for a in axes]
        if all(isinstance(d, int) for d in dims):
            return self.ints(*[d for d in dims if isinstance(d, int)], *tail)
        parts = [self.size(value, a) for a in axes]
        return self.op("Concat", *parts, *([self.ints(*tail)] if tail else []), axis=0, label="Sizes")

    def _fresh(self, base: str) -> str:
        name, count = base, 1
        while name in self._names:
            count += 1
            name = f"{base}_{count}"
        self._names.add(name)
        return name

    # The result

    def outputs(self) -> list[onnx.Value]:
        """Graph outputs under their names; a value with two names, or an input, gets an Identity."""
        results: list[onnx.Value] = []
        made = {id(v) for n in self.nodes for v in n.outputs}
        for output in self.graph.outputs:
            value = self.get(output.value)
            taken = any(value is r for r in results)
            if taken or id(value) not in made:
                value = self.op("Identity", value, label=f"Output_{output.name}")
                value.type, value.shape = onnx.TensorType(DTYPES[output.value.dtype]), self._shape(output.value)
            value.name = output.name
            results.append(value)
        return results


def _attribute(value: Attribute) -> tuple[onnx.AttributeType, Any]:
    kinds = onnx.AttributeType
    if isinstance(value, bool):
        return kinds.INT, int(value)
    if isinstance(value, int):
        return kinds.INT, value
    if isinstance(value, float):
        return kinds.FLOAT, value
    if isinstance(value, str):
        return kinds.STRING, value
    if isinstance(value, onnx.Graph):
        return kinds.GRAPH, value
    if isinstance(value, onnx.TensorProtocol):
        return kinds.TENSOR, value
    if value is None:
        raise InternalError("an attribute that is left out has no value")
    items = list(value)
    return (kinds.FLOATS, items) if items and isinstance(items[0], float) else (kinds.INTS, items)
