"""The gated delta rule in standard operators: one token at once, or chunks of tokens one after the other.

Within a chunk the tokens' writes depend on each other. With c the running sum of g, D[i, j] = exp(c_i - c_j) where
j <= i, and L the part of (beta k) k^T * D below the diagonal, they are the rows of

    (I + L)^-1 (beta v - (beta exp(c) k) S)

so that a chunk is a few matrix products, and the state S is handed on once per chunk (Yang et al. 2024, section 3.3;
HF `torch_chunk_gated_delta_rule`). The inverse is put together from those of blocks of 1, 2, 4, ... tokens, which is as
exact as substitution, where a power series would cancel itself for tokens that are alike.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as onnx

from flowc.ir.core.recurrent import DeltaScan
from flowc.ir.graph import Node
from flowc.lowering.emitter import Emitter

CHUNK = 32
"""Tokens of a chunk, a power of two: fewest multiplications for heads of 128 channels."""


class _Parts:
    """The operands of one delta rule, their heads split as [key_heads, group] so that keys need no copies."""

    def __init__(self, e: Emitter, op: DeltaScan, node: Node, g: onnx.Value, beta: onnx.Value) -> None:
        self.e = e
        self.op = op
        self.group = op.value_heads // op.key_heads
        _, _, self.key_dim, self.value_dim = (int(d) if isinstance(d, int) else 0 for d in node.outputs[1].shape)
        self.q = e.op("Mul", e.need("q"), e.array(np.float32(op.scale)), label="Scaled")
        self.k, self.v, self.g, self.beta = e.need("k"), e.need("v"), g, beta
        v = node.input("v")
        assert v is not None
        self.tokens = v

    def before(self) -> onnx.Value:
        """The state as [batch, key_heads, group, key_dim, value_dim]."""
        e, split = self.e, (self.op.key_heads, self.group, self.key_dim, self.value_dim)
        state = e.operand("state")
        if state is not None:
            return e.op("Reshape", state, e.ints(0, *split), label="State")
        zero = e.array(np.zeros((1,) * 5, np.float32))
        return e.op("Expand", zero, e.sizes(self.tokens, (0,), *split), label="NoState")

    def after(self, state: onnx.Value) -> onnx.Value:
        """The state as the operator hands it on."""
        shape = self.e.ints(0, self.op.value_heads, self.key_dim, self.value_dim)
        return self.e.op("Reshape", state, shape, label="StateAfter")


def one_step(e: Emitter, op: DeltaScan, node: Node, g: onnx.Value, beta: onnx.Value) -> tuple[onnx.Value, onnx.Value]:
    """One token: S is decayed, what it recalls is compared with v, and the difference written."""
    p = _Parts(e, op, node, g, beta)

    def heads(x: onnx.Value, *sizes: int) -> onnx.Value:
        return e.op("Reshape", x, e.ints(0, op.key_heads, *sizes), label="Heads")

    decay = heads(e.op("Exp", p.g, label="Decay"), p.group, 1, 1)
    decayed = e.op("Mul", p.before(), decay, label="Decayed")
    recalled = e.op("MatMul", heads(p.k, 1, 1, p.key_dim), decayed, label="Recalled")
    surprise = e.op("Sub", heads(p.v, p.group, 1, p.value_dim), recalled, label="Surprise")
    change = e.op("Mul", surprise, heads(p.beta, p.group, 1, 1), label="Change")
    state = e.op("Add", decayed, e.op("Mul", heads(p.k, 1, p.key_dim, 1), change, label="Write"))
    y = e.op("MatMul", heads(p.q, 1, 1, p.key_dim), state)
    return e.op("Reshape", y, e.ints(0, 1, op.value_heads * p.value_dim), label="Together"), p.after(state)


def in_chunks(e: Emitter, op: DeltaScan, node: Node, g: onnx.Value, beta: onnx.Value) -> tuple[onnx.Value, onnx.Value]:
    """Several tokens, filled up to whole chunks with tokens that neither decay nor write."""
    p = _Parts(e, op, node, g, beta)
    length = e.size(p.tokens, 1)
    missing = e.shared(
        ("missing", id(length)), lambda: e.op("Mod", e.op("Neg", length), e.ints(CHUNK), label="Missing")
    )
    fill = e.shared(("fill", id(length)), lambda: e.op("Concat", e.ints(0), missing, axis=0, label="Fill"))

    def chunks(x: onnx.Value, group: int, width: int) -> onnx.Value:
        """[batch, sequence, ...] as [chunks, batch, key_heads, group, CHUNK, width]."""
        padded = e.op("Pad", x, fill, None, e.ints(1), label="Filled")
        split = e.op("Reshape", padded, e.ints(0, -1, CHUNK, op.key_heads, group, width), label="Chunks")
        return e.op("Transpose", split, perm=[1, 0, 3, 4, 2, 5])

    q, k = chunks(p.q, 1, p.key_dim), chunks(p.k, 1, p.key_dim)
    v, beta = chunks(p.v, p.group, p.value_dim), chunks(p.beta, p.group, 1)
    g = chunks(p.g, p.group, 1)
    # Sums over the tokens between, instead of differences of running sums: no cancellation, and -inf stays -inf.
    between = e.op("Where", e.array(np.tri(CHUNK, k=-1, dtype=bool)), g, e.array(np.float32(0)))
    between = e.op("CumSum", between, e.array(4, "int64"), label="Between")
    hidden = e.array(np.float32(-np.inf))
    decay = e.op("Exp", e.op("Where", e.array(np.tri(CHUNK, dtype=bool)), between, hidden), label="DecayBetween")
    seen = e.op("Exp", e.op("CumSum", g, e.array(4, "int64")), label="DecayToHere")
    turned = e.op("Transpose", k, perm=[0, 1, 2, 3, 5, 4], label="KeysTurned")
    keys = e.op("Mul", k, beta, label="BetaKeys")
    inverse = _inverse(e, e.op("Mul", e.op("MatMul", keys, turned), decay, label="Alike"))
    values = e.op("MatMul", inverse, e.op("Mul", v, beta), label="Values")
    recall = e.op("MatMul", inverse, e.op("Mul", keys, seen), label="Recall")
    queries = e.op("Mul", q, seen, label="Queries")
    scores = e.op("Mul", e.op("MatMul", q, turned), decay, label="Scores")
    last = (e.ints(CHUNK - 1), e.ints(CHUNK), e.ints(4))
    write = e.op("Mul", turned, e.op("Slice", decay, *last, label="DecayFromHere"), label="Write")
    steps = [values, recall, queries, scores, write, e.op("Slice", seen, *last, label="DecayInAll")]
    state, y = e.ops("Scan", p.before(), *steps, outputs=2, body=_chunk(), num_scan_inputs=len(steps))
    y = e.op("Transpose", y, perm=[1, 0, 4, 2, 3, 5])
    y = e.op("Reshape", y, e.ints(0, -1, op.value_heads * p.value_dim), label="Together")
    return e.op("Slice", y, e.ints(0), length, e.ints(1)), p.after(state)


def _inverse(e: Emitter, matrix: onnx.Value) -> onnx.Value:
    """(I + L)^-1 for the part L of each matrix [CHUNK, CHUNK] below the diagonal.

    The inverse of [[A, 0], [B, D]] is [[A', 0], [-D' B A', D']]: from those of blocks of `size` rows to twice the size,
    for all blocks at once.
    """
    place = np.arange(CHUNK)
    found, size, none = e.array(np.eye(CHUNK, dtype=np.float32)), 1, e.array(np.float32(0))
    while size < CHUNK:
        block = place // size
        below = (block[:, None] == block[None] + 1) & (block[:, None] % 2 == 1)
        part = e.op("Where", e.array(below), matrix, none, label="Below")
        if size > 1:
            part = e.op("MatMul", e.op("MatMul", found, part), found)
        found = e.op("Sub", found, part, label="Inverse")
        size *= 2
    return found


def _chunk() -> onnx.Graph:
    """One chunk of every head: S, values, recall, queries, scores, write, decay -> S, y."""
    names = ("state", "values", "recall", "queries", "scores", "write", "decay")
    state, values, recall, queries, scores, write, decay = inputs = [_float(name) for name in names]
    nodes: list[onnx.Node] = []

    def add(op_type: str, a: onnx.Value, b: onnx.Value, name: str) -> onnx.Value:
        result = _float(name)
        nodes.append(onnx.Node("", op_type, [a, b], outputs=[result], name=f"chunk/{name}"))
        return result

    change = add("Sub", values, add("MatMul", recall, state, "recalled"), "change")
    inside = add("MatMul", scores, change, "inside")
    y = add("Add", add("MatMul", queries, state, "from_before"), inside, "y")
    after = add("Add", add("Mul", state, decay, "decayed"), add("MatMul", write, change, "written"), "state_after")
    return onnx.Graph(inputs, [after, y], nodes=nodes, name="gated_delta_chunk")


def _float(name: str) -> onnx.Value:
    """A float32 value of the Scan's body, of five axes that onnxruntime infers."""
    return onnx.Value(name=name, type=onnx.TensorType(onnx.DataType.FLOAT), shape=onnx.Shape([None] * 5))
