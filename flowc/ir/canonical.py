"""A graph as text that says what it computes and nothing else, for comparing two graphs.

    input attention_mask: int64[batch_size, total_sequence_length]
    0 = gather(w"model.embed_tokens.weight", input_ids) : float32[batch_size, 1, 64]
    1 = norm(0, w"model.layers.0.input_layernorm.weight") {eps = 1e-05, kind = 'rms'} : float32[batch_size, 1, 64]
    output logits = 9

Values are numbers in the order in which the outputs need them, so neither names, nor places in the spec, nor the order
of independent operators matter. Names of inputs and outputs are part of what a graph is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from flowc.ir.graph import Graph, Node, Value


def canonical(graph: Graph) -> str:
    """The canonical text; equal texts mean equal computations."""
    lines = [f"input {v.name}: {v.type}" for v in sorted(graph.inputs, key=lambda v: v.name)]
    numbers: dict[Value, str] = {v: v.name for v in graph.inputs}
    count = 0
    for node in _in_order(graph):
        results: list[str] = []
        for value in node.outputs:
            numbers[value] = str(count)
            results.append(numbers[value])
            count += 1
        operands = [_operand(v, numbers) for v in node.inputs]
        while operands and operands[-1] == "_":
            operands.pop()
        facts = ", ".join(f"{k} = {v!r}" for k, v in sorted(node.op.attributes().items()))
        types = ", ".join(str(v.type) for v in node.outputs)
        braces = f" {{{facts}}}" if facts else ""
        lines.append(f"{', '.join(results)} = {node.op.name}({', '.join(operands)}){braces} : {types}")
    outputs = sorted((o.name, _operand(o.value, numbers)) for o in graph.outputs)
    return "\n".join([*lines, *(f"output {name} = {value}" for name, value in outputs), ""])


def difference(a: Graph, b: Graph) -> list[str]:
    """Lines of a unified diff of two graphs' canonical texts; empty when they compute the same in the same way."""
    texts = [canonical(g).splitlines() for g in (a, b)]
    return list(difflib.unified_diff(texts[0], texts[1], str(a.phase), str(b.phase), lineterm="", n=2))


def _operand(value: Value | None, numbers: dict[Value, str]) -> str:
    if value is None:
        return "_"
    return value.weight.key if value.weight is not None else numbers[value]


def _in_order(graph: Graph) -> Iterator[Node]:
    """Nodes in depth-first order from the outputs (by name), operands first."""
    makers = graph.producers()
    done: set[Node] = set()
    for output in sorted(graph.outputs, key=lambda o: o.name):
        stack = [(makers.get(output.value), False)]
        while stack:
            node, ready = stack.pop()
            if node is None or node in done:
                continue
            if ready:
                done.add(node)
                yield node
                continue
            stack.append((node, True))
            stack += [(makers.get(v), False) for v in reversed(node.inputs) if v is not None]
