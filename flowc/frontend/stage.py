"""What a stage kind is, declared once.

    class RmsNorm(Stage, name="rms_norm"):
        '''RMSNorm over the last axis (HF `LlamaRMSNorm`).'''

        weights = ("{weight}: [hidden]",)
        example = "rms_norm: {weight: model.norm.weight, eps: 1e-5}"
        weight: str = attr(doc="Name of the gain.", main=True)
        eps: float = attr(symbol="norm_eps", gt=0, doc="Added to the mean square.")

        def expand(self, b: Builder, x: Value) -> Value: ...

From the declaration come the spec checker, the JSON Schema, the reference page and `flowc stages`. A stage expands,
once per phase, into core operators: `expand` gets the active value and returns the new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from flowc.frontend.builder import Builder
from flowc.ir.graph import Value
from flowc.records.declare import Own, attr
from flowc.records.record import Record
from flowc.records.values import Wrong
from flowc.text.nodes import ListNode, Node, plain

__all__ = ["REGISTRY", "Composite", "Runner", "Stage", "Stages", "attr"]

REGISTRY: dict[str, type[Stage]] = {}
"""Every stage kind by its name in a spec; filled by importing `flowc.stages`."""


@dataclass(frozen=True, slots=True)
class Stages(Own):
    """A field that holds a list of stages (the body of a `repeat`)."""

    title = "list of stages"
    takes = (ListNode,)
    items: tuple[Node, ...]
    """Nodes of the spec, bound when they are expanded, because an index may change them."""

    @classmethod
    def of(cls, node: Node) -> Stages:
        """The list's items as they are; raises Wrong."""
        if not isinstance(node, ListNode):
            raise Wrong(wanted="a list of stages", node=node)
        return cls(node.items)

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """A list of what the schema of specs defines as a stage."""
        return {"type": "array", "items": {"$ref": "#/definitions/stage"}}

    def spelt(self) -> list[object]:
        """The list."""
        return [plain(item) for item in self.items]


class Stage(Record):
    """Base of all stage kinds. Fields are keyword-only; instances are frozen."""

    by_value = False
    kind: ClassVar[str] = ""
    reads: ClassVar[tuple[str, ...]] = ("active",)
    """What the stage computes with: the active value, inputs, and what stages before it left."""
    writes: ClassVar[tuple[str, ...]] = ("active",)
    """What it leaves for the stages behind it, and what it hands out."""
    weights: ClassVar[tuple[str, ...]] = ()
    """Tensors that it takes: `name: [sizes] with `field`, and its bias with `field``, a line each.

    In a name `{field}` is a field's text, `{a,b}` one or the other, `*` a number, `{embedding}` the table of the flow's
    `embed`; `{x}, {y}` are several names, `{x}, else {y}` the first that is given. A size is made of fields, of
    `hidden` (the channels of the active value) and of words for what only the file knows. `with` and `without` name
    the field that decides, or `field: value`.
    """
    example: ClassVar[str] = ""
    reference: ClassVar[str] = ""
    """The HuggingFace class or paper that the stage follows."""
    cached: ClassVar[bool] = False
    """Whether the stage keeps state between calls; a flow with such a stage is a decoder."""

    def __init_subclass__(cls, name: str = "", **kw: Any) -> None:
        super().__init_subclass__(**kw)
        if name:
            cls.kind = name
            REGISTRY[name] = cls

    def expand(self, b: Builder, x: Value) -> Value:
        """Emit core operators for the phase of `b`; the result becomes the active value."""
        raise NotImplementedError


class Runner(Protocol):
    """What runs the stages that a stage is made of."""

    def run(self, stages: Stages, x: Value, label: str = "", **indices: int) -> Value:
        """Expand stages in order; `indices` are visible to them as `$name` and `{name}`."""
        ...

    def expect(self, count: int) -> None:
        """Say that so many stages will come; a flow of too many ends here."""
        ...


class Composite(Stage):
    """Base of the kinds that are made of other stages."""

    def unfold(self, b: Builder, x: Value, runner: Runner) -> Value:
        """Run the stages inside; the result becomes the active value."""
        raise NotImplementedError
