"""The top level of a spec, read and checked as far as that needs no stage to be expanded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from flowc.errors import Diagnostics, Span, nearest
from flowc.ir.types import TensorType
from flowc.records.reader import Read, Reader
from flowc.spec.components import Component, InputDecl
from flowc.spec.keys import ComponentKeys, Connection, Keys, ModelSizes, Symbol
from flowc.spec.spec import Expectation, Rename, Spec
from flowc.text.nodes import ListNode, MapNode, Node
from flowc.text.source import read_spec

_SIZES = ("context_length", "vocab", "layers")
_TOKENS = ("eos", "bos", "pad", "decoder_start")
_DECISIVE = ("flowc", "model", "inputs", "flow", "components")
"""Keys without which nothing can be said of the stages."""


def load(path: Path, problems: Diagnostics | None = None) -> Spec:
    """Read a spec file; raises SpecError with everything that is wrong outside the stages themselves.

    With `problems`, what the stages can be judged without is added there instead, so that their errors are told too.
    """
    return build(read_spec(path), path, problems)


def build(root: Node, path: Path, later: Diagnostics | None = None) -> Spec:
    """Make a spec of parsed text; `later` is the `problems` of `load`."""
    problems, sizes = Diagnostics(), ModelSizes(root)
    read = Reader(problems, context=sizes).read(Keys, root)
    if read is None or not isinstance(root, MapNode):
        problems.raise_all()
    if later is None or not _metadata(read, problems) or not read.wrong.isdisjoint(_DECISIVE) or _misspelt(root):
        problems.raise_if_any()
    else:
        later.update(problems)
    return _spec(root, path, read, sizes)


def _misspelt(root: MapNode) -> bool:
    """Whether an unknown key may be meant for one that the stages need."""
    absent = [key for key in ("model", "inputs", "flow", "components") if root.get(key) is None]
    known = Keys.by_name()
    return any(nearest(e.name, absent) for e in root.entries if e.name not in known)


def _metadata(read: Read[Keys], problems: Diagnostics) -> bool:
    """Whether the entries of `model:` that flowc itself reads are sizes and token ids; null says that there is none."""
    sound = True
    for name, symbol in cast("dict[str, Symbol]", read.values.get("model", {})).items():
        if name not in (*_SIZES, *_TOKENS):
            continue
        first, what = (1, "a whole number") if name in _SIZES else (0, "a token id, or a list of them")
        several = isinstance(symbol.value, list) and name in _TOKENS
        values = cast("list[object]", symbol.value if several else [symbol.value])
        if not all(v is None or (type(v) is int and first <= v < 2**31) for v in values):
            message = f"model symbol '{name}' must be {what}, from {first} to 2147483647"
            problems.error("bad-value", message, symbol.span)
            sound = False
    return sound


def _components(root: MapNode, keys: Keys) -> tuple[Component, ...]:
    """The components that the spec names, or the one that it is."""
    if not keys.components:
        return (_component("", keys, root, root.span, main=True),)
    found: list[Component] = []
    for entry in cast("MapNode", root.get("components")).entries:
        main = len(found) == len(keys.components) - 1
        node = cast("MapNode", entry.value)
        found.append(_component(entry.name, keys.components[entry.name], node, entry.key.span, main=main))
    return tuple(found)


def _component(name: str, keys: Keys | ComponentKeys, node: MapNode, span: Span, *, main: bool) -> Component:
    declared = node.get("inputs")
    inputs: list[InputDecl] = []
    for entry in declared.entries if isinstance(declared, MapNode) else ():
        what: TensorType | Connection = keys.inputs[entry.name]
        joined = isinstance(what, Connection)
        span_of = entry.value.span if joined else entry.key.span
        inputs.append(InputDecl(entry.name, None if joined else what, span_of, what if joined else None))
    flow = cast("Any", keys.flow)
    flows = {"*": flow} if isinstance(flow, ListNode) else cast("dict[str, ListNode]", flow)
    return Component(name, keys.kind, tuple(inputs), flows, keys.output, span, main)


def _spec(root: MapNode, path: Path, read: Read[Keys], sizes: ModelSizes) -> Spec:
    keys = read.record()

    def placed(block: str) -> Any:
        """Entries of a block as the text has them: keys and values with their places."""
        node = root.get(block)
        return node.entries if isinstance(node, MapNode) and block not in read.wrong else ()

    return Spec(
        path=path,
        root=root,
        name=keys.name or path.name.split(".")[0],
        model=keys.model,
        weights=keys.weights,
        components=_components(root, keys),
        rename={e.name: Rename(e.name, keys.rename[e.name], e.key.span, e.value.span) for e in placed("rename")},
        expect=tuple(Expectation(e.name, keys.expect[e.name], e.key.span, e.value.span) for e in placed("expect")),
        input_symbols=frozenset(sizes.used),
    )
