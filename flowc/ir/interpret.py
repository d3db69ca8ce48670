"""Runs a graph by the numpy meaning of each core operator: the compiler's own reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from flowc.ir.graph import Graph, Node, Value
from flowc.ir.weights.expressions import Read

Array = np.ndarray[Any, np.dtype[Any]]


def interpret(
    graph: Graph,
    feeds: Mapping[str, Array],
    read: Read,
    watch: Callable[[Node, tuple[Array, ...]], None] | None = None,
    change: Callable[[Node, tuple[Array, ...]], tuple[Array, ...]] | None = None,
) -> dict[str, Array]:
    """Named results of a graph for named inputs.

    `read` gives tensors of the checkpoint. Weights are evaluated when a node needs them and dropped after it, so
    memory holds the activations and one operator's weights. `watch` sees every node with its results;
    `change` gives what its readers are to get in their place.
    """
    values: dict[Value, Array] = {v: feeds[v.name] for v in graph.inputs}
    last: dict[Value, int] = {}
    for index, node in enumerate(graph.nodes):
        for value in node.inputs:
            if value is not None:
                last[value] = index
    wanted = {output.value for output in graph.outputs}

    def get(value: Value | None) -> Array | None:
        if value is None:
            return None
        return value.weight.evaluate(read) if value.weight is not None else values[value]

    for index, node in enumerate(graph.nodes):
        results = node.op.reference(*[get(v) for v in node.inputs])
        if watch is not None:
            watch(node, results)
        if change is not None:
            results = change(node, results)
        values.update(zip(node.outputs, results, strict=True))
        for value in {v for v in node.inputs if v is not None and last[v] == index and v not in wanted}:
            values.pop(value, None)
    found: dict[str, Array] = {}
    for output in graph.outputs:
        array = get(output.value)
        if array is not None:
            found[output.name] = array
    return found
