"""Every operator of the core level becomes a kernel of the target.

    %y = linear(%x, w"w", %b)       =>      %y = fused_mat_mul(%x, w"w", %b)
    %h = norm(%y, w"g") {rms}       =>      %h = rms_normalization(%y, w"g") {rms}

Which one is the target's table (`flowc/targets/`): the first row for the operator, the graph's phase, the assumption
and the element type whose kernel can compute the node. The pass ends the core level, so no build can leave it out.
"""

from __future__ import annotations

from dataclasses import replace

from flowc.errors import Diagnostics
from flowc.ir.core.cast import Cast
from flowc.ir.core.custom import Custom
from flowc.ir.core.gather import Gather
from flowc.ir.dtypes import FLOAT
from flowc.ir.graph import Graph, Node, Rewriter, Value, rewrite
from flowc.ir.onnx_text import parse as onnx_text
from flowc.ir.onnx_text.schemas import unknown
from flowc.passes.audit import Audit, Context, place
from flowc.targets.standard import STANDARD
from flowc.targets.target import Row, Target


def select_kernels(graph: Graph, context: Context, audit: Audit) -> Graph:
    """Give every operator the target's best kernel for it; SpecError with all stages that the target cannot run."""
    target, problems = context.target, Diagnostics()

    def rule(node: Node, rewriter: Rewriter) -> tuple[Value, ...] | None:
        why = _foreign(node, target)
        if why is not None:
            problems.error("bad-custom", why[0], node.origin.span, why[1])
        dtype = _float_type(node)
        stored = isinstance(node.op, (Cast, Gather)) and dtype in target.stores
        if dtype is not None and dtype not in target.dtypes and not stored:
            message = f"{node.origin.kind}: the target '{target.name}' does not compute '{node.op.name}' in {dtype}"
            problems.error("unsupported-precision", message, node.origin.span, f"it has {', '.join(target.dtypes)}")
            return None
        if "kernel" in node.op.levels:
            return None
        refused: list[str] = []
        for row in target.rows(type(node.op), graph.phase, context.assume, dtype or "float32"):
            if row.kernel.by_pass:
                continue
            why_not = row.why_not(node, rewriter.maker)
            if not why_not:
                audit.fired.append(place(node))
                return _taken(node, row, rewriter)
            refused.append(f"{row.kernel.__name__}: {why_not}")
            if row not in STANDARD:  # those differ by what they compute, not by what pays
                audit.missed.append((place(node), refused[-1]))
        message = f"{node.origin.kind}: the target '{target.name}' has no kernel for '{node.op.name}' in {dtype}"
        problems.error("unsupported-precision", message, node.origin.span, "; ".join(refused))
        return None

    chosen = rewrite(graph, rule)
    problems.raise_if_any()
    return chosen


def _taken(node: Node, row: Row, rewriter: Rewriter) -> tuple[Value, ...]:
    """The results of the row's kernel, which may compute in another float type than its operands have."""
    if row.computes is None:
        return row.kernel.take(node, rewriter)
    to = row.computes
    wide = [
        rewriter.once(Cast(to), (v,), node, "cast")[0] if v is not None and v.dtype in FLOAT else v for v in node.inputs
    ]
    results = row.kernel.take(replace(node, inputs=tuple(wide)), rewriter)
    pairs = zip(results, node.outputs, strict=True)
    return tuple(
        v if v.type == own.type else rewriter.emit(Cast(own.dtype), (v,), node, "rounded")[0] for v, own in pairs
    )


def _float_type(node: Node) -> str | None:
    """The float type of an operator's results; None where they are whole numbers or truth values."""
    return next((v.dtype for v in node.outputs if v.dtype in FLOAT), None)


def _foreign(node: Node, target: Target) -> tuple[str, str] | None:
    """What in a text of ONNX the target does not know, and a hint; None where it knows all of it."""
    if not isinstance(node.op, Custom):
        return None
    nodes = list(onnx_text.nodes(onnx_text.parse(node.op.text)))
    if not target.contrib:
        names = sorted({n.op_type for n in nodes if n.domain == onnx_text.CONTRIB})
        if names:
            message = f"target '{target.name}' has standard operators only, not {', '.join(names)}"
            return message, f"build for a target with operators of {onnx_text.CONTRIB}"
    if target.opset != onnx_text.OPSET:
        for inner in (n for n in nodes if not n.domain):
            missing = unknown(inner.op_type, [a.name for a in inner.attribute], target.opset)
            if missing:
                message = f"target '{target.name}' has operators of opset {target.opset}, not {missing}"
                return message, "the target `portable` has it"
    return None
