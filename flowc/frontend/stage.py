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

import inspect
import sys
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, Protocol, Self, cast, dataclass_transform, get_args

from flowc.frontend.builder import Builder
from flowc.ir.graph import Value

REGISTRY: dict[str, type[Stage]] = {}
"""Every stage kind by its name in a spec; filled by importing `flowc.stages`."""


@dataclass(frozen=True, slots=True)
class Stages:
    """A field that holds a list of stages (the body of a `repeat`)."""

    items: tuple[Any, ...]
    """Nodes of the spec, bound when they are expanded, because an index may change them."""


def attr(
    *,
    doc: str,
    default: Any = MISSING,
    symbol: str | None = None,
    main: bool = False,
    ge: float | None = None,
    gt: float | None = None,
    unit: str = "",
    raw: bool = False,
) -> Any:
    """Declare a field of a stage.

    `symbol` names the entry of the spec's `model:` block that stands in when the field is left out; `main` lets the
    stage be written as `kind: value` with this field alone; `ge` and `gt` bound numbers; in a `raw` text nothing is
    filled in.
    """
    facts = {"doc": doc, "symbol": symbol, "main": main, "ge": ge, "gt": gt, "unit": unit, "raw": raw}
    if default is MISSING and symbol is not None:
        return field(kw_only=True, default=None, metadata={**facts, "required": True})
    return field(kw_only=True, default=default, metadata={**facts, "required": default is MISSING})


@dataclass_transform(kw_only_default=True, field_specifiers=(attr,), frozen_default=True)
class _Declared:
    pass


class Stage(_Declared):
    """Base of all stage kinds. Fields are keyword-only; instances are frozen."""

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

    def __new__(cls, **values: Any) -> Self:
        """An instance, whose fields `__init__` sets: a dataclass's, made when the first instance is."""
        _complete(cls)
        return super().__new__(cls)

    def expand(self, b: Builder, x: Value) -> Value:
        """Emit core operators for the phase of `b`; the result becomes the active value."""
        raise NotImplementedError

    @classmethod
    def summary(cls) -> str:
        """First paragraph of the docstring."""
        return inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")

    @classmethod
    def paragraphs(cls) -> list[str]:
        """The whole docstring as Markdown, a blank line behind each paragraph."""
        return [line for part in inspect.cleandoc(cls.__doc__ or "").split("\n\n") for line in (part, "")]

    @classmethod
    def attributes(cls) -> tuple[Attribute, ...]:
        """The declared fields in order."""
        return _attributes(cls)


@cache
def _complete(cls: type[Stage]) -> None:
    """Make a stage's class a dataclass, its bases first.

    Not when it is declared: making one takes longer than importing its module, and a spec uses few of all kinds.
    """
    for base in reversed(cls.__mro__):
        if base is not Stage and issubclass(base, Stage) and "__dataclass_fields__" not in vars(base):
            dataclass(frozen=True, kw_only=True, eq=False)(base)


@cache
def _attributes(cls: type[Stage]) -> tuple[Attribute, ...]:
    _complete(cls)
    return tuple(Attribute(f.name, _type(cls, f), f) for f in fields(cast("Any", cls)))


def _type(cls: type[Stage], declared: Field[Any]) -> Any:
    """The type that a field's annotation spells; `get_type_hints` would read those of all class variables too."""
    owner = next(base for base in cls.__mro__ if declared.name in vars(base).get("__annotations__", ()))
    return eval(cast("str", declared.type), vars(sys.modules[owner.__module__]))


@dataclass(frozen=True, slots=True)
class Attribute:
    """A declared field: its name, its Python type, and what was said about it."""

    name: str
    type: Any
    field: Field[Any]

    @property
    def doc(self) -> str:
        """One line for people."""
        return self.field.metadata["doc"]

    @property
    def symbol(self) -> str | None:
        """Entry of `model:` that stands in when the field is absent."""
        return self.field.metadata["symbol"]

    @property
    def main(self) -> bool:
        """Whether `kind: value` sets this field."""
        return self.field.metadata["main"]

    @property
    def required(self) -> bool:
        """Whether the field must be given (by itself or by its symbol); never when its type allows for null."""
        return self.field.metadata["required"] and type(None) not in get_args(self.type)

    @property
    def default(self) -> Any:
        """Value when left out."""
        return self.field.default


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
