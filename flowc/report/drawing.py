"""Where everything of a graph's picture lies: parts from top to bottom, operators as boxes, values as lines.

The picture is made of numbers, the same for the same graph; `page.html` writes them as SVG.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from flowc.ir.graph import Graph, Node, Value
from flowc.report.outline import Part, Port, outline, short

ROW, BOX, GAP, PAD, CHAR, HEAD, BETWEEN, LANE = 46.0, 26.0, 18.0, 22.0, 7.2, 34.0, 30.0, 12.0
"""Heights of a row, a box and a part's head, distances, and the width of a letter and of a lane, in pixels."""

MOST_NAMES = 6
"""Inputs or outputs that the first and the last pill name."""


@dataclass(frozen=True, slots=True)
class Box:
    """An operator, or a value that comes in or goes out: its middle, top and width."""

    text: str
    kind: str
    x: float
    y: float
    width: float
    node: Node | None = None
    port: Port | None = None

    @property
    def left(self) -> float:
        """Its left side."""
        return self.x - self.width / 2


@dataclass(frozen=True, slots=True)
class Line:
    """A value on its way: the SVG path, the kind of way, and what a pointer is told of it."""

    path: str
    kind: str
    tip: str


@dataclass(slots=True)
class Card:
    """A part as it is drawn."""

    part: Part
    left: float = 0.0
    top: float = 0.0
    width: float = 0.0
    height: float = 0.0
    boxes: list[Box] = field(default_factory=list[Box])
    lines: list[Line] = field(default_factory=list[Line])


@dataclass(slots=True)
class Picture:
    """A whole graph as it is drawn."""

    phase: str
    width: float
    height: float
    cards: list[Card]
    lines: list[Line]
    pills: list[Box]


def draw(graph: Graph) -> Picture:
    """The picture of a graph."""
    parts = outline(graph)
    makers = graph.producers()
    cards = [_card(part, makers) for part in parts]
    lanes = _lanes(parts)
    gutter = LANE * (max(lanes.values(), default=-1) + 1) + PAD
    inputs = _names([v.name for v in graph.inputs], graph.cache_ports)
    outputs = _names([o.name for o in graph.outputs], graph.cache_ports)
    wide = max([card.width for card in cards] + [len(t) * CHAR + 28 for t in (inputs, outputs)] + [320.0])
    middle = gutter + wide / 2
    top = 8.0
    pills = [_pill(inputs, middle, top)]
    top += 24 + BETWEEN
    for card in cards:
        _move(card, middle - card.width / 2, top)
        top += card.height + BETWEEN
    pills.append(_pill(outputs, middle, top))
    lines = [*_arrows(cards, middle, top), *_ways(cards, lanes)]
    return Picture(str(graph.phase), gutter + wide + PAD, top + 24 + 8, cards, lines, pills)


def _names(names: list[str], states: Collection[str]) -> str:
    """Names of ports on one line; those of caches are counted."""
    plain = [n for n in names if n not in states]
    caches = len(names) - len(plain)
    more = [f"and {len(plain) - MOST_NAMES} more"] if len(plain) > MOST_NAMES else []
    return " · ".join([*plain[:MOST_NAMES], *more, *([f"{caches} caches"] if caches else [])])


def _pill(text: str, x: float, y: float) -> Box:
    return Box(text, "pill", x, y, len(text) * CHAR + 28)


# Inside of a part


def _card(part: Part, makers: dict[Value, Node]) -> Card:
    """A part's boxes in rows: each below all in the part that it reads, what comes in just above its first reader."""
    inside = set(part.nodes)
    depth: dict[Node, int] = {}
    for node in part.nodes:
        above = [makers[v] for v in node.inputs if v is not None and v in makers and makers[v] in inside]
        depth[node] = 1 + max((depth[a] for a in above), default=-1)
    rows: dict[int, list[Node | Port]] = {}
    for port in part.entries:
        first = min(depth[n] for n in part.nodes if port.value in n.inputs)
        rows.setdefault(first - 1, []).append(port)
    for node in part.nodes:
        rows.setdefault(depth[node], []).append(node)
    for port in part.exits:
        rows.setdefault(depth[makers[port.value]] + 1, []).append(port)
    card = Card(part)
    title = len(part.title) * CHAR + 60
    placed: list[tuple[int, list[tuple[Node | Port, float]], float]] = []
    for row in sorted(rows):
        items = [(item, max(58.0, len(_text(item)) * CHAR + 18)) for item in rows[row]]
        placed.append((row, items, sum(w for _, w in items) + GAP * (len(items) - 1)))
    card.width = max([total + 70 for *_, total in placed] + [260.0, title])
    boxes: dict[Node | Port, Box] = {}
    for number, (_, items, total) in enumerate(placed):
        x = card.width / 2 - total / 2
        for item, width in items:
            boxes[item] = _box(item, x + width / 2, HEAD + number * ROW, width)
            x += width + GAP
    card.height = HEAD + ROW * len(placed)
    card.boxes = list(boxes.values())
    card.lines = list(_inner(part, boxes, makers, card.width))
    return card


def _box(item: Node | Port, x: float, y: float, width: float) -> Box:
    if isinstance(item, Port):
        return Box(_text(item), item.kind, x, y, width, port=item)
    return Box(_text(item), item.op.category, x, y, width, node=item)


def _text(item: Node | Port) -> str:
    """A box's text: the operator's own, or its name in its stage; for a port, the value and whence it comes."""
    if isinstance(item, Port):
        return f"{item.name} ← {item.other}" if item.other else item.name
    return item.op.caption() or short(item.outputs[0])


def _inner(part: Part, boxes: dict[Node | Port, Box], makers: dict[Value, Node], width: float) -> list[Line]:
    entries = {port.value: port for port in part.entries}
    lines: list[Line] = []
    for node in part.nodes:
        for value in dict.fromkeys(v for v in node.inputs if v is not None and v.weight is None):
            source = entries.get(value) or makers[value]
            kind = source.kind if isinstance(source, Port) else "stream"
            lines.append(_line(boxes[source], boxes[node], kind, value, width))
    lines += [_line(boxes[makers[p.value]], boxes[p], p.kind, p.value, width) for p in part.exits]
    return lines


def _line(a: Box, b: Box, kind: str, value: Value, width: float) -> Line:
    """From the bottom of one box to the top of another; around what lies between when they are far apart."""
    tip = f"{value.name}: {value.type}"
    x1, y1, x2, y2 = a.x, a.y + BOX, b.x, b.y
    if b.y - a.y <= ROW:
        return Line(f"M{x1:.0f},{y1:.0f} C{x1:.0f},{y1 + 12:.0f} {x2:.0f},{y2 - 12:.0f} {x2:.0f},{y2:.0f}", kind, tip)
    right = a.x >= b.x - 1
    side = width - 16 if right else 16.0
    start, end = (x1 + a.width / 2, x2 + b.width / 2) if right else (x1 - a.width / 2, x2 - b.width / 2)
    y1, y2 = y1 - BOX / 2, y2 + BOX / 2
    out = f"M{start:.0f},{y1:.0f} C{side:.0f},{y1:.0f} {side:.0f},{y1:.0f} {side:.0f},{y1 + 22:.0f}"
    back = f"L{side:.0f},{y2 - 22:.0f} C{side:.0f},{y2:.0f} {side:.0f},{y2:.0f} {end:.0f},{y2:.0f}"
    around = "residual" if kind == "stream" and b.text == "add" else kind
    return Line(f"{out} {back}", around, tip)


def _move(card: Card, left: float, top: float) -> None:
    card.left, card.top = left, top


# Between parts


def _arrows(cards: list[Card], middle: float, bottom: float) -> list[Line]:
    """From each part down to the next one, where the next one reads what it makes; from inputs, and to outputs."""
    found: list[Line] = []
    for number, card in enumerate(cards):
        before = cards[number - 1].part.nodes if number else []
        made = {v for n in before for v in n.outputs}
        given = [p.value for p in card.part.entries if (p.value in made if number else not p.other)]
        if given:
            found.append(_arrow(middle, card.top - BETWEEN, card.top, given))
    if cards and cards[-1].part.exits:
        found.append(_arrow(middle, bottom - BETWEEN, bottom, [p.value for p in cards[-1].part.exits]))
    return found


def _arrow(x: float, y1: float, y2: float, values: list[Value]) -> Line:
    tip = "\n".join(f"{v.name}: {v.type}" for v in values[:MOST_NAMES])
    return Line(f"M{x:.0f},{y1:.0f} V{y2:.0f} m-4,-5 l4,5 l4,-5", "stream", tip)


def _lanes(parts: list[Part]) -> dict[Value, int]:
    """A lane for each value that passes by a part on its way, none that two ways would share."""
    spans = sorted((span, value.name, value) for value, span in _spans(parts).items())
    lanes: dict[Value, int] = {}
    ends: list[int] = []
    for (first, last), _, value in spans:
        lane = next((i for i, end in enumerate(ends) if end <= first), len(ends))
        ends[lane : lane + 1] = [last]
        lanes[value] = lane
    return lanes


def _spans(parts: list[Part]) -> dict[Value, tuple[int, int]]:
    """The part that makes a value and the last that reads it, of values that are read beyond the next part."""
    makers = {v: number for number, part in enumerate(parts) for n in part.nodes for v in n.outputs}
    last: dict[Value, int] = {}
    for number, part in enumerate(parts):
        for port in part.entries:
            if port.value in makers and number > makers[port.value] + 1:
                last[port.value] = number
    return {value: (makers[value], number) for value, number in last.items()}


def _ways(cards: list[Card], lanes: dict[Value, int]) -> list[Line]:
    """Values that pass by parts: one line down the side, with a branch into each part that reads them."""
    spans = _spans([card.part for card in cards])
    found: list[Line] = []
    for value, (first, last) in spans.items():
        source = cards[first]
        x = PAD / 2 + LANE * lanes[value]
        box = next(b for b in source.boxes if b.node is not None and value in b.node.outputs)
        y = source.top + box.y + BOX / 2
        reading = [c for c in cards[first + 1 : last + 1] if any(p.value is value for p in c.part.entries)]
        path = [f"M{source.left:.0f},{y:.0f} H{x:.0f}"]
        kind = "shared"
        for card in reading:
            entry = next(b for b in card.boxes if b.port is not None and b.port.value is value)
            kind = entry.kind
            end = card.top + entry.y + BOX / 2
            path.append(f"M{x:.0f},{y:.0f} V{end:.0f} H{card.left:.0f} m-5,-4 l5,4 l-5,4")
        found.append(Line(" ".join(path), kind, f"{value.name}: {value.type}"))
    return found
