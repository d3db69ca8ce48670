"""The keys of a spec and of its blocks, declared once: `flowc/spec/load.py` reads them, the JSON Schema tells them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from flowc.errors import Span
from flowc.ir.phases import PHASES, Kind, PhaseName
from flowc.ir.types import DTYPES, Dim, TensorType
from flowc.records.declare import Context, Either, Form, Own, attr, named_by
from flowc.records.record import Record
from flowc.records.values import Wrong
from flowc.text.nodes import ListNode, MapNode, Node, Scalar, plain

PORT_NAME = re.compile(r"[A-Za-z_][\w.-]*")
"""Names that graph inputs and outputs can have."""
_TYPE = re.compile(r"\s*(\w+)\s*\[([^\]]*)\]\s*")
_DIM = re.compile(r"[A-Za-z_]\w*(\s*\+\s*[A-Za-z_]\w*)*")


@dataclass(frozen=True, slots=True)
class Connection:
    """An input or output of another component."""

    component: str
    port: str

    def __str__(self) -> str:
        return f"{self.component}.{self.port}"


class ModelSizes(Context):
    """Entries of `model:` that the types of inputs refer to."""

    def __init__(self, root: Node) -> None:
        self._model = root.get("model") if isinstance(root, MapNode) else None
        self.used: set[str] = set()
        """Names that were asked for and are sizes."""

    def size(self, name: str) -> int | None:
        """An entry that is a size."""
        entry = self._model.get(name) if isinstance(self._model, MapNode) else None
        if not isinstance(entry, Scalar) or type(entry.value) is not int or not 0 < entry.value < 2**31:
            return None
        self.used.add(name)
        return entry.value


def _tensor_type(text: str, sizes: Any) -> TensorType | None:
    """The type that a text such as `int64[batch_size, $hidden]` spells; `sizes` are ModelSizes."""
    match = _TYPE.fullmatch(text)
    if match is None or match[1] not in DTYPES:
        return None
    dims: list[Dim | None] = []
    for part in (p.strip() for p in match[2].split(",")):
        if part.startswith("$"):
            dims.append(sizes.size(part[1:]))
        elif part.isdecimal():
            dims.append(int(part) if 0 < int(part) < 2**31 else None)
        else:
            dims.append(" + ".join(t.strip() for t in part.split("+")) if _DIM.fullmatch(part) else None)
    known = tuple(dim for dim in dims if dim is not None)
    return TensorType(match[1], known) if len(known) == len(dims) else None


def _port(what: str) -> Form:
    """The name of an input or an output of a graph."""
    return named_by(PORT_NAME, what, "letters, digits, '_', '.' and '-', a letter first")


_A_TYPE = "a type such as int64[batch_size, sequence_length]"
_INPUT_TYPE = Form(
    _A_TYPE, _tensor_type, rf"^\s*({'|'.join(DTYPES)})\s*\[[^\]]*\]\s*$",
    f"element types: {', '.join(DTYPES)}; `$name` stands for a model symbol",
)  # fmt: skip
_COMPONENT = named_by(
    re.compile(rf"(?!(?:{'|'.join(PHASES)})$)[a-z][a-z0-9_]*"), "the name of a component",
    f"small letters, digits and '_', a letter first; not {', '.join(PHASES)}",
)  # fmt: skip
_JOINED = re.compile(r"([a-z][a-z0-9_]*)\.([A-Za-z_][\w.-]*)")


def _type_or_port(text: str, sizes: Any) -> TensorType | Connection | None:
    """What an input of a component is: a type, or a port of another one."""
    match = _JOINED.fullmatch(text)
    return Connection(match[1], match[2]) if match is not None else _tensor_type(text, sizes)


_CONNECTED = Form(
    f"{_A_TYPE}, or COMPONENT.port", _type_or_port, rf"{_INPUT_TYPE.pattern}|^{_JOINED.pattern}$", _INPUT_TYPE.hint
)
_SYMBOL = named_by(re.compile(r"[A-Za-z_]\w*"), "the name of a model symbol")


@dataclass(frozen=True, slots=True)
class Symbol(Own):
    """An entry of `model:`."""

    title: ClassVar[str] = "value or list of values"
    takes: ClassVar[tuple[type[Node], ...]] = (Scalar, ListNode)
    value: object
    span: Span

    @classmethod
    def of(cls, node: Node) -> Symbol:
        """The entry; raises Wrong."""
        items = node.items if isinstance(node, ListNode) else (node,)
        if not all(isinstance(item, Scalar) for item in items):
            raise Wrong("must be a value or a list of values")
        return cls(plain(node), node.span)

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """One value or several."""
        scalar = {"type": ["string", "number", "boolean", "null"]}
        return {"anyOf": [scalar, {"type": "array", "items": scalar}]}


class Flow(Own):
    """The stages of a flow: a list that is left as it is, because stages are bound one by one."""

    title = "list of stages"
    takes = (ListNode,)

    @classmethod
    def of(cls, node: Node) -> ListNode:
        """The list; raises Wrong."""
        if not isinstance(node, ListNode):
            raise Wrong(wanted="a list of stages", node=node)
        if not node.items:
            raise Wrong("a flow needs at least one stage", code="empty-flow", sentence=True)
        return node

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """What the schema of specs defines as a flow."""
        return {"$ref": "#/definitions/flow"}


class WeightsDecl(Record):
    """The `weights:` block."""

    what = "'weights'"
    written = "a mapping with `file` or `random`"
    nulls = False
    placed = True
    either = (Either(("file", "random"), "'weights' takes `file` or `random`, not both", needed=False),)

    file: str | None = attr(
        doc="A .safetensors file, its .index.json, a folder, .gguf or .npz; relative to the spec.",
        default=None, least=1, called="a path",
    )  # fmt: skip
    random: int | None = attr(
        doc="Seed of random weights.", default=None, ge=0, le=2**64 - 1, called="a seed (a whole number)"
    )
    allow_unused: tuple[str, ...] = attr(
        doc="Names of spare tensors; * stands for any text.", default=(), called="a list of patterns",
        each="an entry of 'allow_unused'",
    )  # fmt: skip
    span: Span


class ComponentKeys(Record):
    """A part of a model with graphs of its own."""

    what = "a component"
    nulls = False
    placed = True

    kind: Kind | None = attr(doc="decoder or encoder; by default what the stages say.", default=None)
    inputs: Mapping[str, TensorType | Connection] = attr(
        doc="Its inputs as `name: dtype[dim, dim]`, or `name: COMPONENT.port` for what an earlier component takes or "
        "gives; the first one starts the flow.",
        default={}, keys=_port("the name of an input"), form=_CONNECTED, called="a mapping of names to types",
        each="input '{key}'", item=_A_TYPE,
    )  # fmt: skip
    flow: Flow | Mapping[PhaseName, Flow] = attr(
        doc="Its stages in order, or a map of phases to stages.",
        called="a list of stages, or a map of phases to lists", code="empty-flow", noun="phase", least=1,
        each="the flow of '{key}'",
    )  # fmt: skip
    output: str | None = attr(
        doc="Name of the flow's final value.", default=None, form=_port("the name of an output"),
    )  # fmt: skip
    span: Span


class Keys(Record):
    """What a transformer computes: a list of stages."""

    what = "a spec"
    nulls = False
    either = (
        Either(
            ("flow", "components"),
            "a spec needs `flow:`, a list of stages or a map of phases to lists, or else `components:`",
        ),
        *(
            Either((key, "components"), f"'{key}' cannot stand beside 'components': {why}", needed=False)
            for key, why in (
                *((key, "each component has its own") for key in ("inputs", "kind", "output")),
                ("rename", "ports of components keep their names"),
            )
        ),
    )

    schema: str = attr(
        name="$schema", doc="The JSON Schema of specs, for editors; no part of the model.", default="", least=1
    )
    flowc: Literal[1] = attr(
        doc="Version of the spec language: 1.", code="bad-version",
        sentence="a spec starts with `flowc: 1`, the version of its language",
    )  # fmt: skip
    name: str = attr(doc="Name of the model, for people and for the manifest.", default="", least=1)
    description: str = attr(doc="One or two sentences for people.", default="", least=1)
    kind: Kind | None = attr(
        doc="decoder or encoder; by default what the stages say (a stage with a cache makes a decoder).", default=None
    )
    model: Mapping[str, Symbol] = attr(
        doc="Named numbers and words; `$name` in a stage stands for one, `$name[i]` for an entry of a list.",
        default={}, keys=_SYMBOL, called="a mapping of names to values", each="model symbol '{key}'",
    )  # fmt: skip
    weights: WeightsDecl | None = attr(
        doc="Where the weights are: `file`, or `random` with a seed; `allow_unused` lists spare tensors (patterns).",
        default=None,
    )
    inputs: Mapping[str, TensorType] = attr(
        doc="Graph inputs as `name: dtype[dim, dim]`; the first one starts the flow.", default={},
        keys=_port("the name of an input"), form=_INPUT_TYPE, called="a mapping of names to types",
        each="input '{key}'", item=_A_TYPE,
    )  # fmt: skip
    flow: Flow | Mapping[PhaseName, Flow] = attr(
        doc="The stages in order; or, for phases spelt out by hand, a map of prefill, decode and unified to stages.",
        default={},
        called="a list of stages, or a map of phases to lists", code="empty-flow", noun="phase", least=1,
        each="the flow of '{key}'",
    )  # fmt: skip
    components: Mapping[str, ComponentKeys] = attr(
        doc="In place of inputs, flow, kind and output: parts with graphs of their own; the last is the model's own.",
        default={}, least=1, keys=_COMPONENT, called="a mapping of names to components", each="the component '{key}'",
    )  # fmt: skip
    output: str | None = attr(
        doc="Name of the flow's final value; logits for decoders, last_hidden_state for encoders.", default=None,
        form=_port("the name of an output"),
    )  # fmt: skip
    rename: Mapping[str, str] = attr(
        doc="Other names for graph inputs and outputs.", default={}, form=_port("the name of an input or output"),
        called="a mapping of names to names", each="'rename' maps names to names; that of '{key}'",
    )  # fmt: skip
    expect: Mapping[str, Literal["all"] | int] = attr(
        doc="Passes that must fire: `pass: all`, or a number of places. A miss is an error.", default={}, ge=0,
        called="a mapping of passes to `all` or a number", each="how often '{key}' fires",
        item="`all` times, or a number of times",
    )  # fmt: skip
