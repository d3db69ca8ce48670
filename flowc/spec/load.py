"""The top level of a spec, read and checked as far as that needs no stage to be expanded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from flowc.errors import Diagnostics, Span, SpecError, nearest
from flowc.ir.types import DTYPES, Dim, TensorType
from flowc.spec.spec import (
    PHASES,
    PORT_NAME,
    TOP_LEVEL,
    Expectation,
    InputDecl,
    Rename,
    Spec,
    Symbol,
    WeightsDecl,
)
from flowc.text.source import ListNode, MapNode, Node, Scalar, plain, read_spec

_SIZES = ("context_length", "vocab", "layers")
_TOKENS = ("eos", "bos", "pad")


def load(path: Path, problems: Diagnostics | None = None) -> Spec:
    """Read a spec file; raises SpecError with everything that is wrong outside the stages themselves.

    With `problems`, what the stages can be judged without is added there instead, so that their errors are told too.
    """
    return build(read_spec(path), path, problems)


def build(root: Node, path: Path, later: Diagnostics | None = None) -> Spec:
    """Make a spec of parsed text; `later` is the `problems` of `load`."""
    problems = Diagnostics()
    if not isinstance(root, MapNode):
        raise SpecError.of("bad-type", "a spec is a mapping of keys to values", root.span)
    reader = _Reader(root, problems)
    reader.version()
    model, inputs, flows = reader.model(), reader.inputs(), reader.flows()
    decisive = bool(problems) or reader.misspelt()
    reader.unknown_keys()
    spec = Spec(
        path=path,
        root=root,
        name=reader.text("name") or path.name.split(".")[0],
        kind=reader.choice("kind", ("decoder", "encoder")),
        model=model,
        weights=reader.weights(),
        inputs=inputs,
        flows=flows,
        output=reader.output(),
        rename=reader.renames(),
        expect=reader.expect(),
        input_symbols=frozenset(reader.input_symbols),
    )
    reader.text("description")
    reader.text("$schema")
    if later is None or decisive:
        problems.raise_if_any()
    else:
        later.update(problems)
    return spec


class _Reader:
    """Reads the top-level blocks, collecting problems."""

    def __init__(self, root: MapNode, problems: Diagnostics) -> None:
        self.root = root
        self.problems = problems
        self.input_symbols: set[str] = set()

    def version(self) -> None:
        node = self.root.get("flowc")
        if not isinstance(node, Scalar) or type(node.value) is not int or node.value != 1:
            span = node.span if node else self.root.span
            self.problems.error("bad-version", "a spec starts with `flowc: 1`, the version of its language", span)

    def unknown_keys(self) -> None:
        for entry in self.root.entries:
            key = str(entry.key.value)
            if key not in TOP_LEVEL:
                hint = nearest(key, TOP_LEVEL) or f"its keys: {', '.join(TOP_LEVEL)}"
                self.problems.error("unknown-key", f"a spec has no key '{key}'", entry.key.span, hint)

    def misspelt(self) -> bool:
        """Whether an unknown key may be meant for one that the stages need."""
        absent = [key for key in ("model", "inputs", "flow") if self.root.get(key) is None]
        return any(nearest(str(e.key.value), absent) for e in self.root.entries if e.key.value not in TOP_LEVEL)

    def _typed(self, key: str, node: Node, kind: type, what: str) -> bool:
        if isinstance(node, kind):
            return True
        self.problems.error("bad-type", f"'{key}' must be {what}", node.span)
        return False

    def text(self, key: str) -> str | None:
        node = self.root.get(key)
        if node is None:
            return None
        if isinstance(node, Scalar) and isinstance(node.value, str) and node.value:
            return node.value
        self.problems.error("bad-type", f"'{key}' must be a text", node.span)
        return None

    def choice(self, key: str, choices: tuple[str, ...]) -> str | None:
        value = self.text(key)
        node = self.root.get(key)
        if value is not None and value not in choices and node is not None:
            message = f"'{key}' must be one of {', '.join(choices)}, not '{value}'"
            self.problems.error("bad-value", message, node.span, nearest(value, choices))
        return value

    def name(self, text: str, what: str, span: Span) -> bool:
        """Whether a text can be the name of a graph input or output."""
        if PORT_NAME.fullmatch(text):
            return True
        self.problems.error("bad-value", f"'{text}' cannot be the name of {what}", span,
                            "letters, digits, '_', '.' and '-', a letter first")  # fmt: skip
        return False

    def output(self) -> str | None:
        """The name of the final value."""
        text, node = self.text("output"), self.root.get("output")
        return text if text and node is not None and self.name(text, "an output", node.span) else None

    def model(self) -> dict[str, Symbol]:
        node = self.root.get("model")
        symbols: dict[str, Symbol] = {}
        if node is None or not self._typed("model", node, MapNode, "a mapping of names to values"):
            return symbols
        for entry in cast("MapNode", node).entries:
            name = str(entry.key.value)
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                self.problems.error("bad-value", f"'{name}' cannot be the name of a model symbol", entry.key.span)
                continue
            ok = isinstance(entry.value, Scalar) or (
                isinstance(entry.value, ListNode) and all(isinstance(i, Scalar) for i in entry.value.items)
            )
            if not ok:
                self.problems.error(
                    "bad-type", f"model symbol '{name}' must be a value or a list of values", entry.value.span
                )
                continue
            symbols[name] = Symbol(plain(entry.value), entry.value.span)
            self._metadata(name, symbols[name])
        return symbols

    def _metadata(self, name: str, symbol: Symbol) -> None:
        """Check the entries that flowc itself reads: sizes, and token ids; null says that there is none."""
        first, what = (1, "a whole number") if name in _SIZES else (0, "a token id, or a list of them")
        values: list[object] = [symbol.value]
        if isinstance(symbol.value, list) and name in _TOKENS:
            values = cast("list[object]", symbol.value)
        for value in values:
            sound = type(value) is int and first <= value < 2**31
            if name in (*_SIZES, *_TOKENS) and value is not None and not sound:
                message = f"model symbol '{name}' must be {what}, from {first} to 2147483647"
                self.problems.error("bad-value", message, symbol.span)

    def renames(self) -> dict[str, Rename]:
        node = self.root.get("rename")
        if node is None or not self._typed("rename", node, MapNode, "a mapping of names to names"):
            return {}
        out: dict[str, Rename] = {}
        for entry in cast("MapNode", node).entries:
            if not isinstance(entry.value, Scalar) or not isinstance(entry.value.value, str):
                self.problems.error("bad-type", "'rename' maps names to names", entry.value.span)
            elif self.name(entry.value.value, "an input or output", entry.value.span):
                out[entry.name] = Rename(entry.name, entry.value.value, entry.key.span, entry.value.span)
        return out

    def expect(self) -> tuple[Expectation, ...]:
        node = self.root.get("expect")
        out: list[Expectation] = []
        if node is None or not self._typed("expect", node, MapNode, "a mapping of passes to `all` or a number"):
            return ()
        for entry in cast("MapNode", node).entries:
            value = entry.value.value if isinstance(entry.value, Scalar) else None
            if value == "all" or (isinstance(value, int) and not isinstance(value, bool)):
                out.append(Expectation(entry.name, cast("str | int", value), entry.key.span, entry.value.span))
            else:
                self.problems.error(
                    "bad-value", "a pass is expected to fire `all` times, or a number of times", entry.value.span
                )
        return tuple(out)

    def weights(self) -> WeightsDecl | None:
        node = self.root.get("weights")
        if node is None or not self._typed("weights", node, MapNode, "a mapping with `file` or `random`"):
            return None
        node = cast("MapNode", node)
        file, random, patterns = None, None, list[str]()
        for entry in node.entries:
            key, value = str(entry.key.value), entry.value
            if key == "file" and isinstance(value, Scalar) and isinstance(value.value, str) and value.value:
                file = value.value
            elif key == "random" and isinstance(value, Scalar) and type(value.value) is int and value.value >= 0:
                random = value.value
            elif key == "allow_unused" and isinstance(value, ListNode):
                for item in value.items:
                    if isinstance(item, Scalar) and isinstance(item.value, str):
                        patterns.append(item.value)
                    else:
                        self.problems.error("bad-type", "'allow_unused' lists name patterns", item.span)
            elif key in ("file", "random", "allow_unused"):
                wanted = {"file": "a path", "random": "a seed (a whole number)", "allow_unused": "a list of patterns"}
                self.problems.error("bad-type", f"'{key}' of 'weights' must be {wanted[key]}", value.span)
            else:
                hint = nearest(key, ("file", "random", "allow_unused")) or "its keys: file, random, allow_unused"
                self.problems.error("unknown-key", f"'weights' has no key '{key}'", entry.key.span, hint)
        if file is not None and random is not None:
            self.problems.error("bad-value", "'weights' takes `file` or `random`, not both", node.span)
        return WeightsDecl(file, random, tuple(patterns), node.span)

    def inputs(self) -> tuple[InputDecl, ...]:
        node = self.root.get("inputs")
        if node is None or not self._typed("inputs", node, MapNode, "a mapping of names to types"):
            return ()
        found: list[InputDecl] = []
        for entry in cast("MapNode", node).entries:
            text = entry.value.value if isinstance(entry.value, Scalar) else None
            declared = self._tensor_type(text) if isinstance(text, str) else None
            if declared is None:
                self.problems.error(
                    "bad-value", f"input '{entry.key.value}' must be a type such as int64[batch_size, sequence_length]",
                    entry.value.span, f"element types: {', '.join(DTYPES)}; `$name` stands for a model symbol",
                )  # fmt: skip
                continue
            if self.name(entry.name, "an input", entry.key.span):
                found.append(InputDecl(entry.name, declared, entry.key.span))
        return tuple(found)

    def _tensor_type(self, text: str) -> TensorType | None:
        match = re.fullmatch(r"\s*(\w+)\s*\[([^\]]*)\]\s*", text)
        if match is None or match[1] not in DTYPES:
            return None
        dims: list[Dim] = []
        for part in (p.strip() for p in match[2].split(",")):
            if part.isdecimal() and 0 < int(part) < 2**31:
                dims.append(int(part))
            elif part.startswith("$"):
                model = self.root.get("model")
                entry = model.get(part[1:]) if isinstance(model, MapNode) else None
                if not isinstance(entry, Scalar) or type(entry.value) is not int or not 0 < entry.value < 2**31:
                    return None
                self.input_symbols.add(part[1:])
                dims.append(entry.value)
            elif re.fullmatch(r"[A-Za-z_]\w*(\s*\+\s*[A-Za-z_]\w*)*", part):
                dims.append(" + ".join(term.strip() for term in part.split("+")))
            else:
                return None
        return TensorType(match[1], tuple(dims))

    def flows(self) -> dict[str, ListNode]:
        node = self.root.get("flow")
        if node is None:
            self.problems.error("missing-key", "a spec needs `flow:`, the list of its stages", self.root.span)
            return {}
        if isinstance(node, ListNode):
            return {"*": self._not_empty(node)}
        if not self._typed("flow", node, MapNode, "a list of stages, or a map of phases to lists"):
            return {}
        out: dict[str, ListNode] = {}
        for entry in cast("MapNode", node).entries:
            phase = str(entry.key.value)
            if phase not in PHASES:
                hint = nearest(phase, PHASES) or f"phases: {', '.join(PHASES)}"
                self.problems.error("unknown-key", f"there is no phase '{phase}'", entry.key.span, hint)
            elif isinstance(entry.value, ListNode):
                out[phase] = self._not_empty(entry.value)
            else:
                self.problems.error("bad-type", f"the flow of '{phase}' must be a list of stages", entry.value.span)
        if not cast("MapNode", node).entries:
            self.problems.error("empty-flow", "a flow by phases needs at least one of them", node.span)
        return out

    def _not_empty(self, flow: ListNode) -> ListNode:
        if not flow.items:
            self.problems.error("empty-flow", "a flow needs at least one stage", flow.span)
        return flow
