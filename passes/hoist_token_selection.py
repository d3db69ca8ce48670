"""Where one token of a sequence is asked for, the layers' last steps run on that token alone.

    %h = norm(%x)                                         %h = norm(%x)          (keys and values need all of it)
    %q, %k, %v = linear(%h, …), …                         %q = linear(take_last(%h), w"q")
    %a = attention(%q, %k, %v, …)  : [b, s, w]        =>  %a = attention(%q, %k, %v, …)  : [b, 1, w]
    %y = binary(%x, linear(%a, w"o")) {add}               %y = binary(take_last(%x), linear(%a, w"o")) {add}
    %z = take_last(%y, %attention_mask)

It starts at `take_last`, at slices that take one token and at poolers that keep one (the CLS token of an encoder), and
moves them up through operators that work token by token, and through attention's queries.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

from flowc.ir.core.attention import Attention, AttentionMask
from flowc.ir.core.layout import Reshape, Slice
from flowc.ir.core.pool import Pool
from flowc.ir.core.positions import TakeFirst, TakeLast
from flowc.ir.graph import Graph, Node, Rewriter, Value, rewrite
from flowc.ir.visibility import EVERYTHING
from flowc.passes.audit import Audit, Context, place
from flowc.passes.fuse_attention import why_not_compact


@dataclass(frozen=True, slots=True)
class Selector:
    """Which token is kept: each row's first or last valid one by `mask`, or the one at a fixed place."""

    op: TakeFirst | TakeLast | Slice
    mask: Value | None = None

    @property
    def last(self) -> bool:
        """Whether it is the last token, for which a query's place is that of the last column."""
        return self.op.start == -1 if isinstance(self.op, Slice) else isinstance(self.op, TakeLast)

    def emit(self, value: Value, like: Node, rewriter: Rewriter, axis: int = 1) -> Value:
        """The kept token of a value."""
        op = replace(self.op, axis=axis) if isinstance(self.op, Slice) else self.op
        return rewriter.emit(op, (value, self.mask) if self.mask else (value,), like, "row")[0]


def hoist_token_selection(graph: Graph, context: Context, audit: Audit) -> Graph:
    """Move every choice of one token as far up as it goes."""
    whole, graph = graph, rewrite(graph, _as_choice)
    done: set[Hashable] = set()
    compact = not why_not_compact(graph, context)
    while True:
        chosen = {v: s for n in graph.nodes if (s := _selector(n)) for v in n.outputs}
        left = [s for s in chosen.values() if s not in done]
        if not left:
            return graph if audit.fired else whole
        done.add(left[0])
        graph = _move(graph, left[0], compact, audit)


def _as_choice(node: Node, rewriter: Rewriter) -> tuple[Value, ...] | None:
    """A pooler that keeps one token, as a choice and a reshape."""
    if not isinstance(node.op, Pool) or node.need("x").shape[1] == 1:
        return None
    if node.op.kind == "last":
        row = rewriter.emit(TakeLast(), node.inputs, node, "token")[0]
    elif node.op.kind == "cls":
        first = Slice(1, 0, 1) if node.input("mask") is None else TakeFirst()
        row = rewriter.emit(first, first.arrange(node.inputs), node, "token")[0]
    else:
        return None
    return rewriter.remake(node, Reshape(node.outputs[0].shape), (row,))


def _selector(node: Node) -> Selector | None:
    """What a node chooses, if it keeps one token of several."""
    x = node.inputs[0] if node.inputs else None
    if x is None or x.type.rank != 3 or x.shape[1] == 1:
        return None
    if isinstance(node.op, (TakeFirst, TakeLast)):
        return Selector(node.op, node.input("mask"))
    if isinstance(node.op, Slice) and node.op.axis in (1, -2) and node.outputs[0].shape[1] == 1:
        return Selector(replace(node.op, axis=1))
    return None


def _move(graph: Graph, selector: Selector, compact: bool, audit: Audit) -> Graph:
    narrow, refused = _narrowed(graph, selector, compact)
    for node in graph.nodes:
        if _selector(node) == selector:
            source = next((n for n in narrow if node.inputs[0] in n.outputs), None)
            if source is not None:
                audit.fired.append(place(node))
            else:
                audit.missed.append((place(node), _why_not(graph, node.inputs[0])))
    audit.missed += [(place(node), why) for node, why in refused.items()]
    if not narrow:
        return graph
    rows: dict[Value, Value] = {}
    originals = {n.outputs[0]: n for n in graph.nodes}

    def row(value: Value, node: Node, rewriter: Rewriter, axis: int = 1) -> Value:
        if value not in rows:
            current = rewriter.current(value)
            assert current is not None
            rows[value] = selector.emit(current, node, rewriter, axis)
        return rows[value]

    def rule(node: Node, rewriter: Rewriter) -> tuple[Value, ...] | None:
        old = originals[node.outputs[0]]
        if _selector(old) == selector:
            x = old.inputs[0]
            assert x is not None
            if x in rows:
                return (rows[x],)
            rows[x] = node.outputs[0]
            return None
        if old not in narrow:
            return None
        inputs = list(node.inputs)
        for index in _row_operands(old, selector):
            value = old.inputs[index]
            assert value is not None
            inputs[index] = row(value, node, rewriter)
        narrowed = replace(node, op=node.op.on_one_token(), inputs=tuple(inputs))
        if isinstance(narrowed.op, Attention):
            narrowed = _one_query(narrowed.op, narrowed, selector, rewriter)
        results = rewriter.remake(node, narrowed.op, narrowed.inputs)
        rows.update(zip(node.outputs, results, strict=True))
        return results

    return rewrite(graph, rule)


def _one_query(op: Attention, node: Node, selector: Selector, rewriter: Rewriter) -> Node:
    """The attention of the kept token: what hides keys from it is cut to its row."""
    for operand in ("bias", "mask"):
        value = node.input(operand)
        if value is not None and value.shape[2] != 1:
            node = node.with_operands(**{operand: selector.emit(value, node, rewriter, axis=2)})
    if selector.last or op.visibility.unlimited:
        return node
    facts, key_mask, past = AttentionMask(op.visibility), node.input("key_mask"), node.input("past_key")
    over = facts.arrange(new=node.need("k"), mask=key_mask, past=past if key_mask is None else None)
    whole = rewriter.emit(facts, over, node, "mask")[0]
    node = node.with_operands(key_mask=None, mask=selector.emit(whole, node, rewriter, axis=2))
    return replace(node, op=replace(op, visibility=EVERYTHING))


def _why_not(graph: Graph, value: Value | None) -> str:
    """Why nothing in front of a choice could move."""
    output = next((o.name for o in graph.outputs if o.value is value), None)
    if output is not None:
        return f"the whole is the output {output}"
    readers = [n for n in graph.users().get(value, []) if _selector(n) is None] if value is not None else []
    return f"{place(readers[0])} reads the whole" if readers else "nothing before it works token by token"


def _narrowed(graph: Graph, selector: Selector, compact: bool) -> tuple[set[Node], dict[Node, str]]:
    """Nodes whose every reader wants the kept token alone; and those that could not work on it, with the reason."""
    whole = {o.value for o in graph.outputs}
    partly: set[Value] = set()
    narrow: set[Node] = set()
    refused: dict[Node, str] = {}
    known = True
    for node in reversed(graph.nodes):
        known = known and selector.mask not in node.outputs
        if _selector(node) == selector:
            partly.update(v for v in node.inputs[:1] if v is not None)
            continue
        results = node.outputs[:1] if isinstance(node.op, Attention) else node.outputs
        wanted = any(v in partly for v in results)
        if wanted and not any(v in whole for v in results):
            reason = _refusal(node, selector, compact) if known else "the mask of the choice is made after it"
            if not reason:
                narrow.add(node)
                alone = _row_operands(node, selector)
                for index, value in enumerate(node.inputs):
                    if value is not None:
                        (partly if index in alone else whole).add(value)
                continue
            refused[node] = reason
        if wanted or any(v in whole for v in node.outputs):
            whole.update(v for v in node.inputs if v is not None)
    return narrow, refused


def _row_operands(node: Node, selector: Selector) -> list[int]:
    """Operands of which one token is enough; the others are the same for all tokens, or needed whole.

    A fixed place is the same in all rows of the batch, so what has but one row for all of them gives it too.
    """
    out = node.outputs[0]
    if isinstance(node.op, Attention):
        return [node.op.index_of("q")]
    names = node.op.tokenwise
    indices = [node.op.index_of(n) for n in names] if names else range(len(node.inputs))
    found: list[int] = []
    for index in indices:
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None or value.type.rank < 2:
            continue
        fixed = isinstance(selector.op, Slice) and value.type.rank == out.type.rank and value.shape[0] == 1
        if value.shape[:2] == out.shape[:2] or (fixed and value.shape[1] == out.shape[1]):
            found.append(index)
    return found


def _refusal(node: Node, selector: Selector, compact: bool) -> str:
    """Why an operator cannot work on the kept token alone; empty when it can."""
    op, out = node.op, node.outputs[0]
    mixes = f"{op.name} mixes tokens"
    if isinstance(op, Attention):
        if compact and op.cache:
            return "the kernel of a compact cache takes as many queries as new tokens"
        return _attention_refusal(node, op, selector)
    if not op.works_by_token(node.input_types, node.output_types):
        return mixes
    for name in op.tokenwise:
        value = node.input(name)
        if value is None or value.shape[:2] == out.shape[:2]:
            continue
        same = value.type.rank == out.type.rank and value.shape[1] != 1
        if same and not (isinstance(selector.op, Slice) and value.shape[1] == out.shape[1]):
            return f"operand {name} is the same for all rows of the batch"
        if op.broadcasts and value.type.rank == out.type.rank - 1 and value.shape[0] != 1:
            return f"operand {name} is the same for all rows of the batch"
    return ""


def _attention_refusal(node: Node, op: Attention, selector: Selector) -> str:
    q, k, key_mask = node.need("q"), node.need("k"), node.input("key_mask")
    if q.shape[:2] != k.shape[:2]:
        return "its queries are not those of its keys"
    placed = not op.visibility.unlimited
    if isinstance(selector.op, TakeFirst) and placed:
        return "what it sees depends on where it stands"
    if isinstance(selector.op, TakeLast) and key_mask is not selector.mask and (placed or key_mask is not None):
        return "the token is chosen by another mask than the keys'"
    if not isinstance(selector.op, Slice):
        for name in ("bias", "mask"):
            value = node.input(name)
            if value is not None and value.shape[2] != 1:
                return f"each row of the batch would need another row of the {name}"
    return ""
