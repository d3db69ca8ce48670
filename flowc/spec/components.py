"""The components of a model: parts with graphs of their own, of which a later one takes what an earlier one gives.

components:
  encoder:
    inputs: {input_ids: "int64[batch_size, sequence_length]", attention_mask: "int64[batch_size, sequence_length]"}
    flow: [...]
  decoder:
    inputs: {input_ids: "int64[batch_size, sequence_length]", encoder_attention_mask: encoder.attention_mask}
    flow: [...]

A spec without `components:` is one component without a name. The last one is the model's own: its graphs have the
plain names of files. An input is connected by `COMPONENT.port`, an input or output of a component before its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flowc.errors import Span, SpecError
from flowc.ir.types import TensorType
from flowc.spec.keys import Connection
from flowc.text.nodes import ListNode


@dataclass(frozen=True, slots=True)
class InputDecl:
    """A declared graph input: of a type, or connected to a port of an earlier component, whose type it has."""

    name: str
    type: TensorType | None
    span: Span
    connection: Connection | None = None


@dataclass(frozen=True, slots=True)
class Component:
    """A part of a model with graphs of its own; the only one of a plain spec has no name."""

    name: str
    kind: str | None
    inputs: tuple[InputDecl, ...]
    flows: Mapping[str, ListNode]
    """Stages per phase; the key `*` serves every phase."""
    output: str | None
    span: Span
    main: bool = True
    """Whether it is the model's own, the last one."""

    def flow(self, phase: str) -> ListNode | None:
        """The stages of a phase."""
        return self.flows.get(phase, self.flows.get("*"))

    @property
    def what(self) -> str:
        """How messages call it."""
        return f"component '{self.name}'" if self.name else "the spec"


def refuse_components(name: str, several: bool, what: str) -> None:
    """Raise SpecError `unsupported-components` for a model of several components, of which flowc does not do `what`."""
    if several:
        message = f"flowc does not {what} models of several components, as '{name}' is"
        raise SpecError.of("unsupported-components", message)
