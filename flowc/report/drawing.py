"""A picture of a graph's flow: stages from top to bottom, equal layers once, operators as boxes, data as lines.

The picture is SVG text, drawn from the graph alone, and the same for the same graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

from flowc.ir.graph import Graph, Node, Value

ROW, BOX, GAP, PAD, CHAR = 46, 26, 18, 22, 7.0
"""Heights of a row and of a box, distances, and the width of a letter, in pixels."""

Shape = tuple[tuple[str, ...], ...]


@dataclass(slots=True)
class Group:
    """Consecutive stages that belong together: one stage, or one layer; `times` equal ones drawn once."""

    label: str
    nodes: list[Node]
    times: int = 1
    last: str = ""
    at: dict[Node, tuple[float, float, float]] = field(default_factory=dict[Node, tuple[float, float, float]])
    """Centre x, top y and width of each box."""
    width: float = 0.0
    height: float = 0.0


def groups(graph: Graph) -> list[Group]:
    """The graph cut into layers and stages, runs of equal layers folded."""
    cut: list[Group] = []
    for node in graph.nodes:
        label = _layer(node.origin.stage)
        if not cut or cut[-1].label != label:
            known = next((p for p in cut if p.label == label), None)
            if known is not None:
                known.nodes.append(node)
                continue
            cut.append(Group(label, []))
        cut[-1].nodes.append(node)
    folded: list[Group] = []
    for part in cut:
        if folded and _shape(folded[-1]) == _shape(part) and _number(part.label) is not None:
            folded[-1].times += 1
            folded[-1].last = part.label
        else:
            folded.append(part)
    return folded


def _layer(stage: str) -> str:
    """The part of a stage's path up to its last index of a repeat."""
    pieces = [piece for piece in stage.split(".") if piece != "repeat"] or ["repeat"]
    indices = [i for i, piece in enumerate(pieces) if piece.isdigit()]
    return ".".join(pieces[: indices[-1] + 1]) if indices else pieces[0]


def _number(label: str) -> int | None:
    piece = label.rsplit(".", 1)[-1]
    return int(piece) if piece.isdigit() else None


def _shape(part: Group) -> Shape:
    return tuple((n.op.name, repr(n.op), *(str(v.type) for v in n.outputs)) for n in part.nodes)


def draw(graph: Graph) -> str:
    """The SVG of a graph."""
    found = groups(graph)
    makers = graph.producers()
    for part in found:
        _place(part, makers)
    width = max([p.width for p in found] + [320.0]) + 2 * PAD
    body: list[str] = []
    top = 8.0
    middle = width / 2
    body.append(_port(middle, top, " · ".join(v.name for v in graph.inputs if not v.name.startswith("past_"))))
    top += 34
    for part in found:
        body.append(_arrow(middle, top - 8, top + 8))
        top += 8
        body += _box(part, middle, top, makers)
        top += part.height + 14
    body.append(_arrow(middle, top - 14, top + 2))
    names = [o.name for o in graph.outputs if not o.name.startswith("present.")]
    body.append(_port(middle, top + 2, " · ".join(names)))
    height = top + 40
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img" '
        f'aria-label="flow of the {escape(graph.phase)} graph">{"".join(body)}</svg>'
    )


def _place(part: Group, makers: dict[Value, Node]) -> None:
    """Rows by depth: a box stands below everything in its part that it reads."""
    inside = set(part.nodes)
    depth: dict[Node, int] = {}
    for node in part.nodes:
        above = [makers[v] for v in node.inputs if v is not None and v in makers and makers[v] in inside]
        depth[node] = 1 + max((depth.get(a, -1) for a in above), default=-1)
    rows: dict[int, list[Node]] = {}
    for node in part.nodes:
        rows.setdefault(depth[node], []).append(node)
    for row, nodes in sorted(rows.items()):
        widths = [max(58.0, len(_text(n)) * CHAR + 18) for n in nodes]
        total = sum(widths) + GAP * (len(nodes) - 1)
        x = -total / 2
        for node, width in zip(nodes, widths, strict=True):
            part.at[node] = (x + width / 2, 34 + row * ROW, width)
            x += width + GAP
        part.width = max(part.width, total + 70)
    part.height = 34 + ROW * len(rows)


def _text(node: Node) -> str:
    """A box's text: the operator's own, or its name in its stage."""
    return node.op.caption() or node.outputs[0].name.rsplit(".", 1)[-1]


def _box(part: Group, middle: float, top: float, makers: dict[Value, Node]) -> list[str]:
    left = middle - max(part.width, 260) / 2
    wide = max(part.width, 260)
    title = part.label if part.times == 1 else f"{part.label} … {_number(part.last)}"
    out = [f'<rect class="part" x="{left:.0f}" y="{top:.0f}" width="{wide:.0f}" height="{part.height:.0f}" rx="10"/>',
           f'<text class="title" x="{left + 12:.0f}" y="{top + 19:.0f}">{escape(title)}</text>']  # fmt: skip
    if part.times > 1:
        out.append(f'<text class="times" x="{left + wide - 12:.0f}" y="{top + 19:.0f}">× {part.times}</text>')
    for node, (x, y, _) in part.at.items():
        for value in dict.fromkeys(v for v in node.inputs if v is not None and v.weight is None):
            maker = makers.get(value)
            if maker is not None and maker in part.at:
                out.append(_line(part, maker, node, middle, top))
            else:
                out.append(f'<path class="enter" d="M{middle + x:.0f},{top + y - 9:.0f} v9"/>')
    for node, (x, y, width) in part.at.items():
        shape = ", ".join(str(v.type) for v in node.outputs)
        facts = ", ".join(f"{k} = {v}" for k, v in node.op.attributes().items())
        tip = escape(f"{node.op.name} {facts}\n{shape}\n{node.origin}")
        x0 = middle + x - width / 2
        out.append(f'<g class="op {node.op.category}"><title>{tip}</title>'
                   f'<rect x="{x0:.1f}" y="{top + y:.0f}" width="{width:.1f}" height="{BOX}" rx="6"/>'
                   f'<text x="{middle + x:.1f}" y="{top + y + 17:.0f}">{escape(_text(node))}</text></g>')  # fmt: skip
    return out


def _line(part: Group, a: Node, b: Node, middle: float, top: float) -> str:
    """From the bottom of one box to the top of another; around what lies between when they are far apart."""
    (xa, ya, wa), (xb, yb, wb) = part.at[a], part.at[b]
    x1, y1, x2, y2 = middle + xa, top + ya + BOX, middle + xb, top + yb
    if yb - ya <= ROW:
        bend = f"C{x1:.0f},{y1 + 12:.0f} {x2:.0f},{y2 - 12:.0f} {x2:.0f},{y2:.0f}"
        return f'<path class="data" d="M{x1:.0f},{y1:.0f} {bend}"/>'
    side = middle + part.width / 2 - 16 if xa >= xb - 1 else middle - part.width / 2 + 16
    start, end = (x1 + wa / 2, x2 + wb / 2) if side > middle else (x1 - wa / 2, x2 - wb / 2)
    y1, y2 = y1 - BOX / 2, y2 + BOX / 2
    out = f"M{start:.0f},{y1:.0f} C{side:.0f},{y1:.0f} {side:.0f},{y1:.0f} {side:.0f},{y1 + 22:.0f}"
    back = f"L{side:.0f},{y2 - 22:.0f} C{side:.0f},{y2:.0f} {side:.0f},{y2:.0f} {end:.0f},{y2:.0f}"
    return f'<path class="skip" d="{out} {back}"/>'


def _port(x: float, y: float, text: str) -> str:
    width = len(text) * CHAR + 28
    return (f'<g class="port"><rect x="{x - width / 2:.0f}" y="{y:.0f}" width="{width:.0f}" height="24" rx="12"/>'
            f'<text x="{x:.0f}" y="{y + 16:.0f}">{escape(text)}</text></g>')  # fmt: skip


def _arrow(x: float, y1: float, y2: float) -> str:
    return f'<path class="flow" d="M{x:.0f},{y1:.0f} V{y2:.0f} m-4,-5 l4,5 l4,-5"/>'
